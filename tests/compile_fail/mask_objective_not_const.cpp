// expect: atmanrl: a mask objective's operator\(\) must be const and return a number
#include <atmanrl/saliency/objectives/objective.hpp>

struct counts_calls {
  static constexpr std::string_view name = "counts_calls";
  int calls = 0;
  double operator()(atmanrl::answer_log_probs const&, std::span<double>) { return ++calls; }
};
static_assert(atmanrl::detail::explain_mask_objective<counts_calls>());
