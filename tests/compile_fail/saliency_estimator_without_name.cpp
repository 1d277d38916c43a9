// expect: atmanrl: not a saliency estimator: it needs `static constexpr std::string_view name`
#include <atmanrl/saliency/estimators/estimator.hpp>

struct nameless {
  atmanrl::saliency_estimate operator()(auto&, std::span<atmanrl::saliency_item const>) const { return {}; }
};
struct any_model {};
static_assert(atmanrl::detail::explain_saliency_estimator<nameless, any_model>());
