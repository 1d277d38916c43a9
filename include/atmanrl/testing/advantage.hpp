#pragma once

/// \file
/// What every advantage promises (docs/extending.md#advantages): one finite number for each rollout or token, exactly
/// zero where a group's rewards are equal, and nothing that depends on the order of the groups.

#include <atmanrl/rl/advantages/advantage.hpp>
#include <atmanrl/testing/broken_promise.hpp>
#include <atmanrl/testing/rollouts.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

namespace detail {

/// Rewards of 3 groups, the second of which are all equal, in two parts.
inline reward_table rewards_to_compare(std::size_t group_size) {
  reward_table table{{}, {{"first", 1.0f, {}}, {"second", 0.5f, {}}}};
  for (std::size_t i = 0; i < 3 * group_size; ++i) {
    bool const equal = i / group_size == 1;
    table.components[0].values.push_back(equal ? -0.3f : 0.37f * float(i * i % 5) - 0.9f);
    table.components[1].values.push_back(equal ? 0.7f : 0.11f * float(i * 7 % 4) - 0.2f);
    table.total.push_back(table.components[0].values[i] + 0.5f * table.components[1].values[i]);
  }
  return table;
}

/// `values`, of equally long groups, with the group `from` first and the others after it.
template <class V>
V with_group_first(V values, std::size_t from, std::size_t group_size) {
  auto const first = values.begin() + std::ptrdiff_t(from * group_size);
  std::rotate(values.begin(), first, first + std::ptrdiff_t(group_size));
  return values;
}
inline reward_table with_group_first(reward_table table, std::size_t from, std::size_t group_size) {
  table.total = with_group_first(std::move(table.total), from, group_size);
  for (auto& c : table.components) c.values = with_group_first(std::move(c.values), from, group_size);
  return table;
}

/// A row for every rollout, of one number where rollouts have one.
template <Advantage A>
std::vector<std::vector<float>> rows_of_advantage(A const& advantage, reward_table const& rewards,
                                                  step_rollouts const& step, std::size_t group_size) {
  constexpr float unwritten = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::vector<float>> rows;
  if constexpr (TokenAdvantage<A>)
    if (gives_token_advantages(advantage)) {
      step.for_each(
          [&](rollout_group const&, rollout const& r, std::size_t) { rows.emplace_back(r.ids.size(), unwritten); });
      std::vector<std::span<float>> const spans(rows.begin(), rows.end());
      advantage(rewards, step, std::span<std::span<float> const>(spans));
      return rows;
    }
  if constexpr (RolloutAdvantage<A>) {
    std::vector<float> out(rewards.total.size(), unwritten);
    if constexpr (TableAdvantage<A>)
      advantage(rewards, group_size, std::span<float>(out));
    else
      advantage(std::span<float const>(rewards.total), group_size, std::span<float>(out));
    for (float const a : out) rows.push_back({a});
  }
  return rows;
}

}  // namespace detail

/// \throws broken_promise
template <Advantage A>
void check_advantage(A const& advantage, std::string const& name = name_of<A>()) {
  for (std::size_t const group_size : {2, 5}) {
    auto const rewards = detail::rewards_to_compare(group_size);
    auto step = made_up_rollouts(3, group_size);
    auto const rows = detail::rows_of_advantage(advantage, rewards, step, group_size);
    bool const of_tokens = gives_token_advantages(advantage);
    double largest = 0;
    for (std::size_t i = 0; i < rows.size(); ++i)
      for (std::size_t t = 0; t < rows[i].size(); ++t) {
        float const a = rows[i][t];
        expects<broken_promise>(std::isfinite(a), "{}: the advantage of rollout {}{} is {}: it is written, and finite",
                                name, i, of_tokens ? fmt::format(", token {},", t) : "", a);
        expects<broken_promise>(
            of_tokens || i / group_size != 1 || a == 0,
            "{}: rollout {} of a group whose rewards are all {} has the advantage {} and not exactly 0", name, i,
            rewards.total[i], a);
        largest = std::max(largest, double(std::abs(a)));
      }
    // The third group first, its rewards and rollouts with it.
    std::rotate(step.groups.begin(), step.groups.begin() + 2, step.groups.end());
    auto const moved =
        detail::rows_of_advantage(advantage, detail::with_group_first(rewards, 2, group_size), step, group_size);
    auto const expected = detail::with_group_first(rows, 2, group_size);
    for (std::size_t i = 0; i < expected.size(); ++i)
      for (std::size_t t = 0; t < expected[i].size(); ++t)
        expects<broken_promise>(
            std::abs(moved[i][t] - expected[i][t]) <= 1e-5 * largest,
            "{}: a rollout of the advantage {} has {} when its group stands in another place of the step", name,
            expected[i][t], moved[i][t]);
  }
  if (gives_token_advantages(advantage)) return;
  // There is nothing to compare a rollout with: refused, or a number.
  float alone = 0;
  try {
    alone = detail::rows_of_advantage(advantage, {{0.5f}, {{"first", 1.0f, {0.5f}}}}, made_up_rollouts(1, 1), 1)[0][0];
  } catch (error const&) {
  }
  expects<broken_promise>(std::isfinite(alone),
                          "{}: in a group of one rollout the advantage is {}: refuse such groups, as "
                          "detail::for_each_group does",
                          name, alone);
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
