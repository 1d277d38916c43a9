#pragma once
// Policies as somebody outside the library would write them, from the doc comments of the concepts alone. Each is used
// where the library takes such a policy.
#include <atmanrl/attention/policy.hpp>
#include <atmanrl/rl/advantages/advantage.hpp>
#include <atmanrl/rl/losses/loss.hpp>
#include <atmanrl/rl/rewards/reward.hpp>
#include <atmanrl/rl/samplers/sampler.hpp>
#include <atmanrl/text/chat_template.hpp>

#include <algorithm>
#include <cmath>

namespace strangers {

/// Rollout reward: short completions.
struct brevity {
  static constexpr std::string_view name = "brevity";
  float target = 4;
  float operator()(atmanrl::rollout const& r) const { return -std::max(0.0f, float(r.ids.size()) - target); }
};

/// Rollout reward: the share of one token.
struct likes_token {
  int id = 0;
  double operator()(atmanrl::rollout const& r) const {
    return double(std::count(r.ids.begin(), r.ids.end(), id)) / double(r.ids.size());
  }
};

/// Group reward: 1 for the shortest of a group.
struct shortest {
  static constexpr std::string_view name = "shortest";
  void operator()(std::span<atmanrl::rollout const> group, std::span<float> out) const {
    auto const best = std::min_element(group.begin(), group.end(),
                                       [](auto const& a, auto const& b) { return a.ids.size() < b.ids.size(); });
    for (std::size_t i = 0; i < group.size(); ++i) out[i] = &group[i] == &*best ? 1.0f : 0.0f;
  }
};

/// Reward with the model at hand, and with state: how many hidden units it has, plus the number of the call.
struct width_and_calls {
  static constexpr std::string_view name = "width_and_calls";
  int calls = 0;
  template <class Model>
  void operator()(atmanrl::step_rollouts& step, Model& model, std::span<float> out) {
    ++calls;
    step.for_each([&](atmanrl::rollout_group const&, atmanrl::rollout const&, std::size_t i) {
      out[i] = float(model.config().hidden + calls);
    });
  }
};

/// Advantage: reward minus the mean of the others (Ahmadian et al. 2024, RLOO).
struct leave_one_out {
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    for (std::size_t i = 0; i < rewards.size(); ++i) {
      std::size_t const first = i / group_size * group_size;
      float others = 0;
      for (std::size_t j = first; j < first + group_size; ++j) others += j == i ? 0 : rewards[j];
      out[i] = rewards[i] - others / float(group_size - 1);
    }
  }
};

/// Loss: REINFORCE over all tokens of the step, without ratio and clip.
struct reinforce {
  double operator()(atmanrl::loss_rollout const& r, atmanrl::loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    double sum = 0;
    for (std::size_t t = 0; t < r.log_p.size(); ++t) {
      token_loss[t] = -r.advantage * r.log_p[t];
      dlog_p[t] = -r.advantage / float(scope.tokens);
      sum += double(token_loss[t]) / double(scope.tokens);
    }
    return sum;
  }
  bool clipped(atmanrl::loss_rollout const&, std::size_t) const { return false; }
};

/// Sampler: Gumbel-max is not possible with one uniform number, the second-best token is.
struct second_best {
  int operator()(std::span<float const> logits, double, double) const {
    int best = 0, second = 1;
    if (logits[1] > logits[0]) std::swap(best, second);
    for (int i = 2; i < int(logits.size()); ++i) {
      if (logits[std::size_t(i)] > logits[std::size_t(best)])
        second = best, best = i;
      else if (logits[std::size_t(i)] > logits[std::size_t(second)])
        second = i;
    }
    return second;
  }
};

/// Attention: a soft cap of the scores (Gemma 2), then a recency bias that falls with the head (ALiBi).
struct capped_recency {
  struct params_type {
    float cap;
    template <class T>
    T operator()(T score, atmanrl::score_site at) const {
      using std::tanh;
      using real = decltype(atmanrl::real_part(T{}));
      return tanh(score / real(cap)) * real(cap) - real(0.1) * real(at.query - at.key) / real(at.head + 1);
    }
  };
  float cap = 2;
  params_type params() const { return {cap}; }
};

/// Trainable attention: a factor for each distance up to `reach`, one set for each tag.
struct distance_factors {
  struct params_type {
    int tags, reach;
    atmanrl::index_t parameter(atmanrl::score_site at) const {
      int const distance = at.query - at.key;
      return at.sequence < tags && distance < reach ? at.sequence * reach + distance : -1;
    }
    template <class T>
    T operator()(T score, T value, atmanrl::score_site) const {
      return score * value + value * value;
    }
  };
  int tags = 1, reach = 3;
  params_type params() const { return {tags, reach}; }
  atmanrl::index_t parameter_count() const { return tags * reach; }
};

/// Chat template: names in brackets.
struct bracketed_chat {
  atmanrl::chat_text operator()(std::span<atmanrl::chat_message const> messages, bool answer_follows) const {
    atmanrl::chat_text out;
    for (auto const& m : messages) out.control("[" + m.role + "] ").content(m.content).control("<|im_end|>");
    return answer_follows ? out.control("[assistant]") : out;
  }
};

static_assert(atmanrl::ChatTemplate<bracketed_chat> && !atmanrl::ChatTemplate<brevity>);
static_assert(atmanrl::RolloutReward<brevity> && atmanrl::RolloutReward<likes_token> && atmanrl::GroupReward<shortest>);
static_assert(atmanrl::ModelReward<width_and_calls> && !atmanrl::RolloutReward<width_and_calls>);
static_assert(atmanrl::Advantage<leave_one_out> && atmanrl::PolicyLoss<reinforce> && atmanrl::Sampler<second_best>);
static_assert(atmanrl::AttentionPolicy<capped_recency> && atmanrl::TrainableAttentionPolicy<distance_factors>);

}  // namespace strangers
