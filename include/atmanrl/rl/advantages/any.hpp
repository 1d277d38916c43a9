#pragma once

/// \file
/// An advantage that is chosen while the program runs, and the built-in ones by their names.

#include <atmanrl/core/config.hpp>
#include <atmanrl/rl/advantages/batch_normalized.hpp>
#include <atmanrl/rl/advantages/gdpo.hpp>
#include <atmanrl/rl/advantages/group_normalized.hpp>
#include <atmanrl/rl/advantages/leave_one_out.hpp>
#include <atmanrl/rl/advantages/mean_centered.hpp>

#include <array>
#include <functional>
#include <string>
#include <string_view>

namespace atmanrl::advantages {

/// Holds any advantage; without one it is mean_centered.
class any {
 public:
  any() : any(mean_centered{}) {}
  template <Advantage A>
  requires(!std::same_as<A, any>) any(A advantage)
      : call_([advantage = std::move(advantage)](reward_table const& r, std::size_t group_size, std::span<float> out) {
          if constexpr (TableAdvantage<A>)
            advantage(r, group_size, out);
          else
            advantage(std::span<float const>(r.total), group_size, out);
        }) {}

  void operator()(reward_table const& rewards, std::size_t group_size, std::span<float> out) const {
    call_(rewards, group_size, out);
  }

 private:
  std::function<void(reward_table const&, std::size_t, std::span<float>)> call_;
};
static_assert(Advantage<any>);

inline constexpr std::array<std::string_view, 5> names{"mean_centered", "group_normalized", "batch_normalized",
                                                       "leave_one_out", "gdpo"};

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
  fail<usage_error>("there is no advantage \"{}\"; there are {}", name, fmt::join(names, ", "));
}

#endif

}  // namespace atmanrl::advantages
