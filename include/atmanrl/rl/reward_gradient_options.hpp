#pragma once

/// \file
/// Whether and how a trainer climbs the gradient of its reward (rl/rewards/reward_gradient.hpp).

#include <atmanrl/core/option_naming.hpp>
#include <atmanrl/core/random.hpp>

#include <cmath>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Where grad R is added.
enum class reward_gradient_update {
  off,     ///< nowhere, as in the published method
  joined,  ///< to the gradient of the policy loss, in every inner pass: one direction, clipped as one
  /// In an update of its own after the inner passes, at the step's rate times the weight. It shares the optimizer's
  /// state with them, so that with moments each gradient also goes into the other's next steps.
  own,
  own_optimizer  ///< the same with an optimizer state of its own, which takes as much memory again
};

inline bool is_own_update(reward_gradient_update u) {
  return u == reward_gradient_update::own || u == reward_gradient_update::own_optimizer;
}

struct reward_gradient_options {
  reward_gradient_update update = reward_gradient_update::off;
  /// `joined`: what multiplies the mean of grad R over rollouts; 1 with a loss that is the plain mean of rollouts' sums
  /// over tokens is the derivative of the expected reward. `own`, `own_optimizer`: what multiplies the rate; with
  /// `own_optimizer` and normalised steps the gradient's size does not matter.
  double weight = 1;
  /// Probability of a rollout to be among those whose gradient is computed; they are weighted by its inverse.
  double share = 1;
};

/// \throws usage_error that names the option, as `name` does, and the value
void validate(reward_gradient_options const& o, option_naming name = name_in_code);

namespace detail {
/// Per rollout what multiplies grad R_i in the gradient of a loss: -weight / rollouts, 0 for those that are not drawn.
inline std::vector<double> reward_gradient_scale(reward_gradient_options const& o, double weight, std::size_t rollouts,
                                                 std::uint64_t seed, std::uint64_t step) {
  std::vector<double> scale(rollouts, -weight / double(rollouts) / o.share);
  for (std::size_t i = 0; i < rollouts && o.share < 1; ++i) {
    // Numbers that lie outside of those that tokens are drawn with.
    random_key const key{seed, std::uint32_t(step), 0xffffffffu, std::uint32_t(i), 0xfffffff1u};
    if (uniform(key) >= o.share) scale[i] = 0;
  }
  return scale;
}
}  // namespace detail

#if ATMANRL_BODIES

ATMANRL_INLINE void validate(reward_gradient_options const& o, option_naming name) {
  expects_at_least(name, "reward gradient weight", o.weight, 0.0);
  expects<usage_error>(std::isfinite(o.weight), "{} is {}, it must be finite", name("reward gradient weight"),
                       o.weight);
  expects<usage_error>(o.share > 0 && o.share <= 1, "{} is {}, it must be above 0 and at most 1",
                       name("reward gradient share"), o.share);
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
