#pragma once

/// \file
/// Advantages, ratios, losses and the gradient of one policy-gradient pass over given rollouts.

#include "compute.hpp"

#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/rl/policy_gradient.hpp>

#include <cmath>
#include <span>

namespace inspect {

/// One advantage per completion, groups one after the other. Groups may differ in size where each is seen alone.
inline std::vector<float> advantages_of(grpo_request const& r) {
  auto const of = [&](std::span<grpo_request::group const> groups) {
    atmanrl::reward_table table;
    for (std::size_t k = 0; k < r.reward_weights.size(); ++k)
      table.components.push_back({fmt::format("rewards[{}]", k), r.reward_weights[k], {}});
    for (auto const& g : groups)
      for (auto const& c : g.completions) {
        float total = 0;
        for (std::size_t k = 0; k < c.rewards.size(); ++k) {
          table.components[k].values.push_back(c.rewards[k]);
          total += r.reward_weights[k] * c.rewards[k];
        }
        table.total.push_back(total);
      }
    return atmanrl::advantages_of(r.advantage, table, groups[0].completions.size());
  };
  std::span<grpo_request::group const> const groups(r.groups);
  if (r.advantage_looks_beyond_group) return of(groups);
  std::vector<float> all;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    auto const part = of(groups.subspan(g, 1));
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

template <class Model>
grpo_result compute(Model& model, grpo_request const& r) {
  grpo_result out;
  out.advantages = advantages_of(r);
  std::vector<atmanrl::training_rollout> rollouts;
  std::size_t longest = 1;
  for (auto const& g : r.groups)
    for (auto const& c : g.completions) {
      rollouts.push_back(
          {g.prompt, c.ids, c.log_probs, out.advantages[rollouts.size()], c.reference_log_probs, c.masked});
      longest = std::max(longest, c.ids.size());
    }
  atmanrl::policy_gradient_options options;
  options.temperature = r.temperature;
  options.micro_batch = r.micro_batch;
  options.max_tokens = r.max_tokens > 0 ? r.max_tokens : longest;
  options.entropy_bonus = r.entropy_bonus;
  atmanrl::trainable_policy<Model> policy(model);
  policy.zero_gradient();
  auto report = add_policy_gradient(policy, std::span<atmanrl::training_rollout const>(rollouts), r.loss, options);
  for (std::size_t i = 0; i < rollouts.size(); ++i) {
    auto& row = out.ratios.emplace_back();
    for (std::size_t t = 0; t < report.log_p[i].size(); ++t)
      row.push_back(std::exp(double(report.log_p[i][t]) - double(rollouts[i].old_log_p[t])));
  }
  out.token_losses = std::move(report.token_loss);
  out.loss = report.loss;
  out.kl = report.kl;
  out.gradient_norm = std::sqrt(sum_of_squares(model.backend(), policy.gradient().view()));
  out.gradient = policy.gradient().to_host();
  return out;
}

}  // namespace inspect
