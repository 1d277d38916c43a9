#pragma once

/// \file
/// Loss and gradient of a step's rollouts under the present policy: every prompt once per micro-batch, its rollouts as
/// children that share its rows.

#include <atmanrl/rl/losses/loss.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/rl/rollout.hpp>
#include <atmanrl/rl/training_batch.hpp>
#include <atmanrl/rl/update_edits/update_edit.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace atmanrl {

struct policy_gradient_options {
  double temperature = 1;
  int micro_batch = 0;         ///< rollouts per forward and backward pass; 0: as many as fit the row budget
  index_t row_budget = 4096;   ///< rows of one pass, bounds the memory for activations
  std::size_t max_tokens = 1;  ///< length limit of completions, for losses that normalise by it
  double entropy_bonus = 0;    ///< the mean entropy of the step's tokens, times this, is taken from the loss
  bool recompute = false;      ///< keep only the layers' inputs for the backward pass (forward_pass::set_recompute)
};

/// What one pass over the rollouts found; statistics are over the tokens that take part in the loss.
struct policy_gradient_report {
  double loss = 0;         ///< what the gradient is of
  double policy_loss = 0;  ///< without the entropy bonus
  double ratio_min = 1, ratio_mean = 1, ratio_max = 1;
  double clip_share = 0;               ///< clip_low + clip_high: of tokens, or of completions where those are clipped
  double clip_low = 0, clip_high = 0;  ///< with a negative and with a positive advantage
  std::string clip_metric = "clip_ratio/region_mean";  ///< the name of clip_share in the metrics
  std::optional<double> kl = {};                       ///< mean estimate, for losses with a KL term
  std::optional<double> entropy = {};                  ///< nats, with an entropy bonus
  std::vector<std::vector<float>> log_p;               ///< per rollout and token; empty for a masked rollout
  std::vector<std::vector<float>> token_loss;  ///< per rollout and token, before averaging; empty for a masked rollout
};

namespace detail {
/// Running statistics over tokens.
struct token_statistics {
  double ratio_min = std::numeric_limits<double>::infinity(), ratio_max = -std::numeric_limits<double>::infinity(),
         ratio_sum = 0, kl = 0, entropy = 0;
  std::size_t low = 0, high = 0, votes = 0, tokens = 0;

  template <class Loss>
  void add(loss_rollout const& r, Loss const& loss, bool with_reference) {
    for (std::size_t t = 0; t < r.log_p.size(); ++t, ++tokens) {
      double const ratio = std::exp(double(r.log_p[t]) - double(r.old_log_p[t]));
      ratio_min = std::min(ratio_min, ratio);
      ratio_max = std::max(ratio_max, ratio);
      ratio_sum += ratio;
      if (t == 0 || !clips_completions(loss) || r.advantage.per_token()) {
        ++votes;
        if (loss.clipped(r, t)) ++(r.advantage[t] < 0 ? low : high);
      }
      if constexpr (ReferenceLoss<Loss>) kl += with_reference ? loss.kl(r, t) : 0;
    }
  }
  void write(policy_gradient_report& report, bool with_reference, bool with_entropy) const {
    if (tokens == 0) return;
    double const n = double(tokens), all = double(votes);
    report.ratio_min = ratio_min;
    report.ratio_max = ratio_max;
    report.ratio_mean = ratio_sum / n;
    report.clip_low = double(low) / all;
    report.clip_high = double(high) / all;
    report.clip_share = double(low + high) / all;
    if (with_reference) report.kl = kl / n;
    if (with_entropy) report.entropy = entropy / n;
  }
};
}  // namespace detail

/// Adds the gradient of the loss over `rollouts` to policy.gradient(). The entropy bonus is normalised by the tokens of
/// the whole step, so it does not depend on the micro-batches either.
/// \param edit  what rows see while loss and gradient are computed; the ratios compare like with like where `old_log_p`
///              was computed under the same edit (update_log_probs)
/// \throws numeric_error naming the rollout when a log-probability is not finite
template <class Model, PolicyLoss Loss, class Edit = update_edits::none>
policy_gradient_report add_policy_gradient(trainable_weights<Model>& policy, std::span<training_rollout const> rollouts,
                                           Loss const& loss, policy_gradient_options const& options,
                                           Edit const& edit = {}) {
  static_assert(detail::explain_update_edit<Edit, typename Model::backend_type>());
  using T = typename Model::scalar;
  Model& model = policy.model();
  bool const with_reference = needs_reference(loss), with_entropy = options.entropy_bonus != 0;
  expects<usage_error>(!rollouts.empty(), "a policy gradient needs at least one rollout");
  std::vector<training_rollout const*> active;
  std::size_t tokens = 0;
  for (auto const& r : rollouts) {
    expects<shape_error>(!r.prompt.empty() && !r.completion.empty() && r.old_log_p.size() == r.completion.size(),
                         "a rollout of {} prompt tokens, {} completion tokens and {} log-probabilities",
                         r.prompt.size(), r.completion.size(), r.old_log_p.size());
    expects<shape_error>(r.advantage.fits(r.completion.size()),
                         "a rollout of {} completion tokens has the advantages of another number of tokens",
                         r.completion.size());
    if (r.masked) continue;
    active.push_back(&r);
    tokens += r.completion.size();
  }
  auto const parts = detail::split_into_micro_batches(active, {options.micro_batch, options.row_budget});
  loss_scope scope{.rollouts = rollouts.size(),
                   .tokens = tokens,
                   .micro_batch_tokens = 0,
                   .max_tokens = options.max_tokens,
                   .micro_batches = parts.size()};
  policy_gradient_report report;
  report.clip_metric = clip_metric_of(loss);
  report.log_p.resize(rollouts.size());
  report.token_loss.resize(rollouts.size());
  detail::token_statistics statistics;

  for (detail::micro_batch const& part : parts) {
    auto const mine = std::span<training_rollout const* const>(active).subspan(part.first, part.last - part.first);
    prefix_tree_batch const tree = detail::lay_out(mine, detail::prompt_tag<Edit>);
    auto const seen = edit(model.backend(), mine);
    auto const space = model.borrow_pass(tree.cache_rows(), options.recompute);
    auto& [cache, pass] = *space;
    tree.open(model, cache, pass);
    scope.micro_batch_tokens = tree.scored().size();
    model.forward(cache, tree.batch(), pass, {.mode = gradient_mode::parameters}, edited{seen});
    model.log_probs(pass, tree.scored(), options.temperature, with_entropy);
    auto const scored_log_p = pass.log_p();
    std::vector<T> dlog_p, dentropy;
    std::size_t at = 0;
    for (training_rollout const* const r : mine) {
      std::size_t const n = r->completion.size(), i = std::size_t(r - rollouts.data());
      std::vector<float> log_p(scored_log_p.begin() + std::ptrdiff_t(at),
                               scored_log_p.begin() + std::ptrdiff_t(at + n));
      at += n;
      std::vector<float> d(n), token_loss(n);
      loss_rollout const view{log_p, r->old_log_p, r->advantage, r->reference_log_p};
      double const share = loss(view, scope, d, token_loss);
      expects<numeric_error>(std::isfinite(share), "the loss of rollout {} is {}; no update was made with it", i,
                             share);
      report.policy_loss += share;
      statistics.add(view, loss, with_reference);
      dlog_p.insert(dlog_p.end(), d.begin(), d.end());
      report.log_p[i] = std::move(log_p);
      report.token_loss[i] = std::move(token_loss);
    }
    if (with_entropy) {
      for (T const x : pass.entropy()) statistics.entropy += double(real_part(x));
      dentropy.assign(tree.scored().size(), T(-options.entropy_bonus / double(tokens)));
    }
    model.backward(cache, pass, {.log_p = dlog_p, .entropy = dentropy}, {.parameters = policy.gradient().view()},
                   edited{seen});
  }
  statistics.write(report, with_reference, with_entropy);
  report.loss = report.policy_loss - options.entropy_bonus * report.entropy.value_or(0);
  return report;
}

}  // namespace atmanrl
