#pragma once

/// \file
/// `grpo`: advantages, ratios, losses and the gradient of one policy-gradient pass over given rollouts.

#include "checks.hpp"
#include "gradient_file.hpp"
#include "requests.hpp"

#include <atmanrl/io/json.hpp>
#include <atmanrl/nn/llama.hpp>
#include <atmanrl/rl/policy_gradient.hpp>

#include <cmath>

namespace inspect {

inline void check(grpo_request const& r, atmanrl::model_config const& config) {
  for (std::size_t g = 0; g < r.groups.size(); ++g) {
    auto const place = fmt::format("standard input: groups/{}", g);
    check_ids(place + "/prompt_ids", r.groups[g].prompt, config);
    for (std::size_t c = 0; c < r.groups[g].completions.size(); ++c) {
      auto const& ids = r.groups[g].completions[c].ids;
      auto const here = fmt::format("{}/completions/{}/ids", place, c);
      check_ids(here, ids, config);
      check_length(here, {r.groups[g].prompt.size(), ids.size()}, config);
    }
  }
}

/// One advantage per completion, groups one after the other; every group is seen alone, so they may differ in size.
inline std::vector<float> advantages_of(grpo_request const& r) {
  std::vector<float> all;
  for (std::size_t g = 0; g < r.groups.size(); ++g) {
    std::vector<float> rewards;
    for (auto const& c : r.groups[g].completions) rewards.push_back(c.reward);
    std::vector<float> part(rewards.size());
    std::visit([&](auto const& advantage) { advantage(rewards, rewards.size(), part); }, r.advantage);
    for (float const a : part)
      atmanrl::expects<atmanrl::numeric_error>(std::isfinite(a), "standard input: groups/{}: the rewards give an advantage of {}", g, a);
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

template <class Model>
std::string run(Model& model, grpo_request const& r) {
  auto const advantages = advantages_of(r);
  std::vector<atmanrl::training_rollout> rollouts;
  std::size_t longest = 1;
  for (auto const& g : r.groups)
    for (auto const& c : g.completions) {
      rollouts.push_back({g.prompt, c.ids, c.log_probs, advantages[rollouts.size()]});
      longest = std::max(longest, c.ids.size());
    }
  atmanrl::trainable_policy<Model> policy(model, {});
  policy.zero_gradient();
  auto const report = std::visit(
      [&](auto const& loss) {
        return add_policy_gradient(policy, std::span<atmanrl::training_rollout const>(rollouts), loss,
                                   {.temperature = r.temperature, .micro_batch = r.micro_batch, .max_tokens = longest});
      },
      r.loss);
  auto const host = policy.gradient().to_host();
  check_gradient(model.layout(), host);

  auto ratios = atmanrl::ordered_json::array();
  for (std::size_t i = 0; i < rollouts.size(); ++i) {
    auto& row = ratios.emplace_back(atmanrl::ordered_json::array());
    for (std::size_t t = 0; t < report.log_p[i].size(); ++t) row.push_back(std::exp(double(report.log_p[i][t]) - double(rollouts[i].old_log_p[t])));
  }
  std::string text = atmanrl::dump_json(atmanrl::ordered_json{{"advantages", advantages},
                                                     {"ratios", std::move(ratios)},
                                                     {"token_losses", report.token_loss},
                                                     {"loss", report.loss},
                                                     {"gradient_norm", std::sqrt(sum_of_squares(model.backend(), policy.gradient().cview()))}});
  if (!r.out.empty()) write_gradient(r.out, model.layout(), host);
  return text;
}

}  // namespace inspect
