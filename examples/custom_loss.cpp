// Losses and an advantage of one's own, proven before anything is trained with them: REINFORCE (Williams 1992) over all
// tokens of the step, SAPO, which is one of the GRPO family, and the reward minus the best of the group.
#include <atmanrl/rl/losses/surrogate.hpp>
#include <atmanrl/testing/advantage.hpp>
#include <atmanrl/testing/loss.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>

struct reinforce {
  double operator()(atmanrl::loss_rollout const& r, atmanrl::loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    double sum = 0;
    for (std::size_t t = 0; t < r.log_p.size(); ++t) {
      token_loss[t] = -r.advantage[t] * r.log_p[t];
      dlog_p[t] = -r.advantage[t] / float(scope.tokens);
      sum += double(token_loss[t]) / double(scope.tokens);
    }
    return sum;
  }
  bool clipped(atmanrl::loss_rollout const&, std::size_t) const { return false; }
};

// [family]
/// SAPO (Gao et al. 2025, arXiv:2511.20347): a sigmoid of the ratio instead of the clip, 4/τ σ(τ (ρ - 1)) A, with τ by
/// the sign of the advantage.
struct sapo {
  double positive = 1, negative = 1.05;
  atmanrl::losses::ratio_level level = atmanrl::losses::ratio_level::token;

  atmanrl::losses::surrogate term(double ratio, double advantage) const {
    double const temperature = advantage > 0 ? positive : negative;
    double const gate = 1 / (1 + std::exp(-temperature * (ratio - 1)));
    return {.loss = -4 / temperature * gate * advantage, .slope = -4 * gate * (1 - gate) * ratio * advantage};
  }
  double token_weight(atmanrl::loss_rollout const& r, atmanrl::loss_scope const& scope) const {
    return 1 / (double(scope.rollouts) * double(r.log_p.size()));
  }
  double operator()(atmanrl::loss_rollout const& r, atmanrl::loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    return atmanrl::losses::evaluate_surrogate(*this, r, scope, dlog_p, token_loss);
  }
  bool clipped(atmanrl::loss_rollout const&, std::size_t) const { return false; }
};
// [/family]

struct below_best {
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    atmanrl::detail::for_each_group(rewards, group_size, out, [](std::span<float const> r, std::span<float> a) {
      float const best = *std::max_element(r.begin(), r.end());
      for (std::size_t i = 0; i < r.size(); ++i) a[i] = r[i] - best;
    });
  }
};

/// The first with its derivative twice as steep as its value.
struct too_steep : reinforce {
  double operator()(atmanrl::loss_rollout const& r, atmanrl::loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    double const sum = reinforce::operator()(r, scope, dlog_p, token_loss);
    for (float& d : dlog_p) d *= 2;
    return sum;
  }
};

int main() {
  try {
    // [prove]
    // The derivative is the value's, on the policy and off it; equal rewards have the advantage 0.
    atmanrl::testing::check_loss(reinforce{});
    atmanrl::testing::check_loss(sapo{});
    atmanrl::testing::check_advantage(below_best{});
    // [/prove]
  } catch (atmanrl::error const& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
  try {
    atmanrl::testing::check_loss(too_steep{});
  } catch (atmanrl::testing::broken_promise const& e) {
    fmt::print("{}\n", e.what());
    return 0;
  }
  return 1;
}
