#pragma once

/// \file
/// Advantages, ratios, losses and the gradient of one policy-gradient pass over given rollouts.

#include "compute.hpp"

#include <atmanrl/nn/llama.hpp>
#include <atmanrl/rl/policy_gradient.hpp>

#include <cmath>

namespace inspect {

/// One advantage per completion, groups one after the other; every group is seen alone, so they may differ in size.
inline std::vector<float> advantages_of(grpo_request const& r) {
  std::vector<float> all;
  for (auto const& g : r.groups) {
    std::vector<float> rewards, part(g.completions.size());
    for (auto const& c : g.completions) rewards.push_back(c.reward);
    std::visit([&](auto const& advantage) { advantage(rewards, rewards.size(), part); }, r.advantage);
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
      rollouts.push_back({g.prompt, c.ids, c.log_probs, out.advantages[rollouts.size()]});
      longest = std::max(longest, c.ids.size());
    }
  atmanrl::policy_gradient_options options;
  options.temperature = r.temperature;
  options.micro_batch = r.micro_batch;
  options.max_tokens = longest;
  atmanrl::trainable_policy<Model> policy(model, {});
  policy.zero_gradient();
  auto const pass = [&](auto const& loss) {
    return add_policy_gradient(policy, std::span<atmanrl::training_rollout const>(rollouts), loss, options);
  };
  auto report = std::visit(pass, r.loss);
  for (std::size_t i = 0; i < rollouts.size(); ++i) {
    auto& row = out.ratios.emplace_back();
    for (std::size_t t = 0; t < report.log_p[i].size(); ++t)
      row.push_back(std::exp(double(report.log_p[i][t]) - double(rollouts[i].old_log_p[t])));
  }
  out.token_losses = std::move(report.token_loss);
  out.loss = report.loss;
  out.gradient_norm = std::sqrt(sum_of_squares(model.backend(), policy.gradient().view()));
  out.gradient = policy.gradient().to_host();
  return out;
}

}  // namespace inspect
