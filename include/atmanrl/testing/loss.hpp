#pragma once

/// \file
/// What every policy loss promises (docs/extending.md#losses): the derivative that it writes is that of its value, it
/// writes every number, all of them finite, and what it says of a rollout depends on that rollout alone.

#include <atmanrl/rl/losses/loss.hpp>
#include <atmanrl/testing/broken_promise.hpp>
#include <atmanrl/testing/derivatives.hpp>

#include <limits>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// What a loss is a function of, beside what every loss is.
struct loss_check {
  /// The importance ratio is a constant of the derivative, as CISPO's is: the value is then differentiated with
  /// π_old moving beside π.
  bool constant_ratio = false;
};

namespace detail {

struct loss_values {
  double loss = 0;
  std::vector<float> dlog_p, token_loss;
  bool operator==(loss_values const&) const = default;
};

template <PolicyLoss L>
loss_values values_of_loss(L const& loss, loss_rollout const& r, loss_scope const& scope) {
  std::vector<float> const unwritten(r.log_p.size(), std::numeric_limits<float>::quiet_NaN());
  loss_values out{0, unwritten, unwritten};
  out.loss = loss(r, scope, out.dlog_p, out.token_loss);
  return out;
}

/// Rollouts of a check: ratios on the policy, a little off it and far off it, up and down.
struct loss_case {
  std::vector<float> log_p, old_log_p, reference_log_p;
};
inline std::vector<loss_case> loss_cases() {
  std::vector<float> const old{-0.5f, -1.5f, -2.0f, -0.1f, -3.0f}, reference{-0.7f, -1.2f, -2.5f, -0.4f, -2.0f};
  std::vector<loss_case> cases;
  for (std::vector<float> const& off : {std::vector<float>{0, 0, 0, 0, 0},
                                        {1e-3f, 0, -1e-3f, 2e-3f, -3e-3f},
                                        {0.05f, 0.4f, -0.1f, -0.6f, 1.8f},
                                        {0.7f}}) {
    loss_case& c = cases.emplace_back();
    for (std::size_t t = 0; t < off.size(); ++t) {
      c.log_p.push_back(old[t] + off[t]);
      c.old_log_p.push_back(old[t]);
      c.reference_log_p.push_back(reference[t]);
    }
  }
  return cases;
}

/// d loss / d log_p[token] on both sides; log-probabilities are floats, so their steps are measured as they come out.
template <PolicyLoss L>
slopes slopes_of_loss(L const& loss, loss_case const& c, rollout_advantage advantage, loss_scope const& scope,
                      std::size_t token, loss_check const& options) {
  auto const moved = [&](float by) {
    loss_case at = c;
    at.log_p[token] += by;
    if (options.constant_ratio) at.old_log_p[token] += at.log_p[token] - c.log_p[token];
    double const value = values_of_loss(loss, {at.log_p, at.old_log_p, advantage, at.reference_log_p}, scope).loss;
    return std::pair(value, double(at.log_p[token]) - double(c.log_p[token]));
  };
  constexpr float h = 0x1p-11f;
  double const here = moved(0).first;
  auto const [low, down] = moved(-h);
  auto const [high, up] = moved(h);
  return {(low - here) / down, (high - here) / up};
}

}  // namespace detail

/// \throws broken_promise
template <PolicyLoss L>
void check_loss(L const& loss, loss_check const& options = {}, std::string const& name = name_of<L>()) {
  loss_scope const scope{.rollouts = 3, .tokens = 17, .micro_batch_tokens = 9, .max_tokens = 11, .micro_batches = 2};
  std::vector<float> const each{0.7f, -0.4f, 0, 1.1f, -0.2f};
  auto const cases = detail::loss_cases();
  std::vector<detail::loss_values> first;
  auto const for_each_case = [&](auto&& f) {
    for (detail::loss_case const& c : cases)
      for (rollout_advantage const advantage : {rollout_advantage(-1.3f), rollout_advantage(0.7f), rollout_advantage(0),
                                                rollout_advantage(std::span(each).first(c.log_p.size()))})
        f(c, advantage, loss_rollout{c.log_p, c.old_log_p, advantage, c.reference_log_p});
  };
  // A loss that reads the advantage as one number of the rollout refuses those of tokens.
  bool takes_tokens = true;
  try {
    detail::values_of_loss(loss, {cases[0].log_p, cases[0].old_log_p, std::span(each), cases[0].reference_log_p},
                           scope);
  } catch (usage_error const&) {
    takes_tokens = false;
  }
  for_each_case([&](detail::loss_case const& c, rollout_advantage advantage, loss_rollout const& r) {
    if (advantage.per_token() && !takes_tokens) return;
    auto const got = first.emplace_back(detail::values_of_loss(loss, r, scope));
    expects<broken_promise>(std::isfinite(got.loss), "{}: the loss of a rollout of {} tokens is {}", name,
                            r.log_p.size(), got.loss);
    double sum = 0, largest = 1e-3;
    for (std::size_t t = 0; t < r.log_p.size(); ++t) {
      expects<broken_promise>(std::isfinite(got.dlog_p[t]) && std::isfinite(got.token_loss[t]),
                              "{}: token {} of {} has the derivative {} and the loss {}: both are written for every "
                              "token, and finite",
                              name, t, r.log_p.size(), got.dlog_p[t], got.token_loss[t]);
      sum += double(got.token_loss[t]);
      largest = std::max(largest, double(std::abs(got.dlog_p[t])));
    }
    if constexpr (TokenWeightedLoss<L>) {
      double const expected = loss.token_weight(r, scope) * sum;
      expects<broken_promise>(
          std::abs(got.loss - expected) <= 1e-5 * std::max(1.0, std::abs(expected)),
          "{}: a rollout's loss is {}, but its token_weight times the sum of its token losses is {}", name, got.loss,
          expected);
    }
    // Where the ratio is the sequence's, each token is given the gradient of its own term, not that of the sum.
    if (advantage.per_token() && clips_completions(loss)) return;
    for (std::size_t t = 0; t < r.log_p.size(); ++t) {
      slopes const quotient = detail::slopes_of_loss(loss, c, advantage, scope, t, options);
      expects<broken_promise>(
          quotient.allow(double(got.dlog_p[t]), 2e-3 * std::max(largest, std::abs(quotient.mean()))),
          "{}: d loss / d log_p of token {} is {:.6g} by its derivative but {:.6g} by the difference quotient (log_p "
          "{}, "
          "old log_p {}, advantage {})",
          name, t, got.dlog_p[t], quotient.mean(), r.log_p[t], r.old_log_p[t], advantage[t]);
    }
  });
  // Again, and so with other rollouts before each: a gradient may not depend on the split into micro-batches.
  std::size_t at = 0;
  for_each_case([&](detail::loss_case const&, rollout_advantage advantage, loss_rollout const& r) {
    if (advantage.per_token() && !takes_tokens) return;
    auto const again = detail::values_of_loss(loss, r, scope);
    expects<broken_promise>(again == first[at],
                            "{}: the loss of rollout {} is {} the first time and {} after other rollouts: it must "
                            "depend on its rollout alone",
                            name, at, first[at].loss, again.loss);
    ++at;
  });
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
