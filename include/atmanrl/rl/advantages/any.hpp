#pragma once

/// \file
/// An advantage that is chosen while the program runs, and the built-in ones by their names.

#include <atmanrl/core/config.hpp>
#include <atmanrl/rl/advantages/batch_normalized.hpp>
#include <atmanrl/rl/advantages/chain_only.hpp>
#include <atmanrl/rl/advantages/gdpo.hpp>
#include <atmanrl/rl/advantages/group_normalized.hpp>
#include <atmanrl/rl/advantages/leave_one_out.hpp>
#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/advantages/saliency_weighted.hpp>

#include <array>
#include <functional>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::advantages {

/// Holds any advantage; without one it is mean_centered.
class any {
 public:
  any() : any(mean_centered{}) {}
  template <Advantage A>
  requires(!std::same_as<A, any>) any(A advantage) : per_token_(gives_token_advantages(advantage)) {
    if constexpr (TokenAdvantage<A>) of_tokens_ = advantage;
    if constexpr (TableAdvantage<A>)
      of_rollouts_ = std::move(advantage);
    else if constexpr (RewardAdvantage<A>)
      of_rollouts_ = [advantage = std::move(advantage)](reward_table const& r, std::size_t group_size,
                                                        std::span<float> out) {
        advantage(std::span<float const>(r.total), group_size, out);
      };
  }

  /// \throws usage_error for one that has numbers of tokens alone
  void operator()(reward_table const& rewards, std::size_t group_size, std::span<float> out) const {
    expects<usage_error>(bool(of_rollouts_), "the advantage has a number for every token, which takes the rollouts");
    of_rollouts_(rewards, group_size, out);
  }
  void operator()(reward_table const& rewards, step_rollouts const& rollouts,
                  std::span<std::span<float> const> out) const {
    expects<usage_error>(bool(of_tokens_), "the advantage has one number for a rollout and none for its tokens");
    of_tokens_(rewards, rollouts, out);
  }
  bool per_token() const { return per_token_; }

 private:
  bool per_token_;
  std::function<void(reward_table const&, std::size_t, std::span<float>)> of_rollouts_;
  std::function<void(reward_table const&, step_rollouts const&, std::span<std::span<float> const>)> of_tokens_;
};
static_assert(RolloutAdvantage<any> && TokenAdvantage<any>);

inline constexpr std::array<std::string_view, 7> names{
    "mean_centered", "group_normalized",  "batch_normalized", "leave_one_out",
    "gdpo",          "saliency_weighted", "chain_only"};

/// Whether the advantages of a group depend on the other groups of the step.
inline bool looks_beyond_group(std::string_view name) { return name == "batch_normalized" || name == "gdpo"; }

/// \throws usage_error that lists the names
any by_name(std::string_view name);

#if ATMANRL_BODIES

ATMANRL_INLINE any by_name(std::string_view name) {
  if (name == "mean_centered") return mean_centered{};
  if (name == "group_normalized") return group_normalized{};
  if (name == "batch_normalized") return batch_normalized{};
  if (name == "leave_one_out") return leave_one_out{};
  if (name == "gdpo") return gdpo{};
  if (name == "saliency_weighted") return saliency_weighted<>{};
  if (name == "chain_only") return chain_only<>{};
  fail<usage_error>("there is no advantage \"{}\"; there are {}", name, fmt::join(names, ", "));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::advantages
