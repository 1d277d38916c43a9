// expect: atmanrl: not an observer: write `void operator\(\)\(atmanrl::grpo_step_report& report, auto& model, std::vector<atmanrl::observation>& out\)`
#include <atmanrl/rl/observers/observer.hpp>

struct of_metrics {
  void operator()(std::string_view metrics) const;
};
struct any_model {};
static_assert(atmanrl::detail::explain_observer<of_metrics, any_model>());
