#pragma once

/// \file
/// Loss and gradient of a step's rollouts under the present policy: every prompt once per micro-batch, its rollouts as
/// children that share its rows.

#include <atmanrl/rl/losses/loss.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/rl/rollout.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

namespace atmanrl {

/// A rollout to learn from. Neighbours with equal prompts share its rows.
struct training_rollout {
  std::span<int const> prompt, completion;
  std::span<float const> old_log_p;
  float advantage = 0;
};

struct policy_gradient_options {
  double temperature = 1;
  int micro_batch = 0;          ///< rollouts per forward and backward pass; 0: as many as fit the row budget
  index_t row_budget = 4096;    ///< rows of one pass, bounds the memory for activations
  std::size_t max_tokens = 1;   ///< length limit of completions, for losses that normalise by it
};

/// What one pass over the rollouts found; statistics are over tokens.
struct policy_gradient_report {
  double loss = 0;
  double ratio_min = 1, ratio_mean = 1, ratio_max = 1;
  double clip_share = 0;
  std::vector<std::vector<float>> log_p;       ///< per rollout and token
  std::vector<std::vector<float>> token_loss;  ///< per rollout and token, before averaging
};

/// Adds the gradient of the loss over `rollouts` to policy.gradient().
/// \throws numeric_error naming the rollout when a log-probability is not finite
template <class Model, PolicyLoss Loss>
policy_gradient_report add_policy_gradient(trainable_policy<Model>& policy, std::span<training_rollout const> rollouts, Loss const& loss,
                                           policy_gradient_options const& options) {
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  Model& model = policy.model();
  expects<usage_error>(!rollouts.empty(), "a policy gradient needs at least one rollout");
  loss_scope scope{.rollouts = rollouts.size(), .tokens = 0, .micro_batch_tokens = 0, .max_tokens = options.max_tokens};
  for (auto const& r : rollouts) {
    expects<shape_error>(!r.prompt.empty() && !r.completion.empty() && r.old_log_p.size() == r.completion.size(),
                         "a rollout of {} prompt tokens, {} completion tokens and {} log-probabilities", r.prompt.size(), r.completion.size(), r.old_log_p.size());
    scope.tokens += r.completion.size();
  }
  policy_gradient_report report;
  double ratio_sum = 0;
  std::size_t clipped = 0, tokens = 0;
  report.ratio_min = std::numeric_limits<double>::infinity();
  report.ratio_max = -std::numeric_limits<double>::infinity();
  forward_pass<B, T> pass(model.backend());

  auto const same = [](std::span<int const> a, std::span<int const> b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); };
  for (std::size_t first = 0; first < rollouts.size();) {
    // As many rollouts as fit, prompts that are shared counted once.
    std::size_t last = first;
    index_t rows = 0;
    while (last < rollouts.size() && (options.micro_batch == 0 || last - first < std::size_t(options.micro_batch))) {
      auto const& r = rollouts[last];
      index_t const mine = index_t(r.completion.size()) + (last > first && same(r.prompt, rollouts[last - 1].prompt) ? 0 : index_t(r.prompt.size()));
      if (last > first && options.micro_batch == 0 && rows + mine > options.row_budget) break;
      rows += mine;
      ++last;
    }
    kv_cache<B, T> cache(model.backend(), model.config(), rows);
    ragged_batch batch;
    std::vector<scored_token> scored;
    scope.micro_batch_tokens = 0;
    int root = -1, prompt_end = -1;
    for (std::size_t i = first; i < last; ++i) {
      auto const& r = rollouts[i];
      if (i == first || !same(r.prompt, rollouts[i - 1].prompt)) {
        root = cache.add_sequence(index_t(r.prompt.size()));
        prompt_end = batch.add(root, r.prompt) + int(r.prompt.size()) - 1;
      }
      scored.push_back({prompt_end, r.completion[0]});
      if (r.completion.size() > 1) {  // the last token's row predicts nothing that is scored
        int const child = cache.add_child(root, index_t(r.prompt.size()), index_t(r.completion.size()) - 1);
        int const row = batch.add(child, r.completion.first(r.completion.size() - 1), int(i));
        for (std::size_t t = 1; t < r.completion.size(); ++t) scored.push_back({row + int(t) - 1, r.completion[t]});
      }
      scope.micro_batch_tokens += r.completion.size();
    }
    model.forward(cache, batch, pass, gradient_mode::parameters);
    model.log_probs(pass, scored, options.temperature);
    auto const scored_log_p = pass.log_p();
    std::vector<T> dlog_p;
    for (std::size_t i = first, at = 0; i < last; ++i) {
      auto const& r = rollouts[i];
      std::size_t const n = r.completion.size();
      std::vector<float> log_p(scored_log_p.begin() + std::ptrdiff_t(at), scored_log_p.begin() + std::ptrdiff_t(at + n));
      at += n;
      std::vector<float> d(n), token_loss(n);
      loss_rollout const view{log_p, r.old_log_p, r.advantage};
      double const part = loss(view, scope, d, token_loss);
      expects<numeric_error>(std::isfinite(part), "the loss of rollout {} is {}; no update was made with it", i, part);
      report.loss += part;
      for (std::size_t t = 0; t < n; ++t) {
        double const ratio = std::exp(double(log_p[t]) - double(r.old_log_p[t]));
        report.ratio_min = std::min(report.ratio_min, ratio);
        report.ratio_max = std::max(report.ratio_max, ratio);
        ratio_sum += ratio;
        clipped += loss.clipped(view, t);
        ++tokens;
      }
      dlog_p.insert(dlog_p.end(), d.begin(), d.end());
      report.log_p.push_back(std::move(log_p));
      report.token_loss.push_back(std::move(token_loss));
    }
    model.backward(cache, pass, std::span<T const>(dlog_p), {}, policy.gradient().view());
    first = last;
  }
  report.ratio_mean = ratio_sum / double(tokens);
  report.clip_share = double(clipped) / double(tokens);
  return report;
}

}  // namespace atmanrl
