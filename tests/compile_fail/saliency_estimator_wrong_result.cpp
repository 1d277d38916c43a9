// expect: atmanrl: not a saliency estimator: write `atmanrl::saliency_estimate operator\(\)\(auto& model,
// std::span<atmanrl::saliency_item const> items\)`
#include <atmanrl/saliency/estimators/estimator.hpp>

struct one_number {
  static constexpr std::string_view name = "one_number";
  float operator()(auto&, std::span<atmanrl::saliency_item const>) const { return 0; }
};
struct any_model {};
static_assert(atmanrl::detail::explain_saliency_estimator<one_number, any_model>());
