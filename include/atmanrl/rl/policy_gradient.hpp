#pragma once

/// \file
/// Loss and gradient of a step's rollouts under the present policy: every prompt once per micro-batch, its rollouts as
/// children that share its rows.

#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/rl/losses/loss.hpp>
#include <atmanrl/rl/rollout.hpp>
#include <atmanrl/rl/trainable_weights.hpp>
#include <atmanrl/rl/training_batch.hpp>
#include <atmanrl/rl/update_edits/update_edit.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

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
  void add(loss_rollout const& r, Loss const& loss, bool with_reference, double entropy_sum) {
    entropy += entropy_sum;
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

/// What one rollout adds to the report.
struct rollout_share {
  double loss = 0, entropy = 0;  ///< nats, the sum over tokens
  std::vector<float> log_p, token_loss;

  static constexpr auto fields() {
    using r = rollout_share;
    return std::tuple(&r::loss, &r::entropy, &r::log_p, &r::token_loss);
  }
};

/// \throws usage_error, shape_error for rollouts that nothing can be learned from
inline void check_rollouts(std::span<training_rollout const> rollouts) {
  expects<usage_error>(!rollouts.empty(), "a policy gradient needs at least one rollout");
  for (training_rollout const& r : rollouts) {
    expects<shape_error>(!r.prompt.empty() && !r.completion.empty() && r.old_log_p.size() == r.completion.size(),
                         "a rollout of {} prompt tokens, {} completion tokens and {} log-probabilities",
                         r.prompt.size(), r.completion.size(), r.old_log_p.size());
    expects<shape_error>(r.advantage.fits(r.completion.size()),
                         "a rollout of {} completion tokens has the advantages of another number of tokens",
                         r.completion.size());
  }
}

/// Those that take part in the loss.
inline std::vector<training_rollout const*> unmasked(std::span<training_rollout const> rollouts) {
  std::vector<training_rollout const*> out;
  for (training_rollout const& r : rollouts)
    if (!r.masked) out.push_back(&r);
  return out;
}

/// Of a step whose rollouts are learned from in leaves of `leaf` rollouts each.
inline loss_scope scope_of(std::span<training_rollout const> rollouts, std::size_t leaf,
                           policy_gradient_options const& options) {
  loss_scope scope{.rollouts = rollouts.size(),
                   .tokens = 0,
                   .micro_batch_tokens = 0,
                   .max_tokens = options.max_tokens,
                   .micro_batches = 0};
  for (std::size_t first = 0; first < rollouts.size(); first += leaf) {
    auto const active = unmasked(rollouts.subspan(first, std::min(leaf, rollouts.size() - first)));
    for (training_rollout const* r : active) scope.tokens += r->completion.size();
    scope.micro_batches += split_into_micro_batches(active, {options.micro_batch, options.row_budget}).size();
  }
  return scope;
}

/// Adds the gradient of the contributions of a leaf's rollouts to policy.pass_gradients().
/// \param first  number of the first one within the step, for messages
template <class Model, PolicyLoss Loss, class Edit>
std::vector<rollout_share> add_leaf_gradient(trainable_weights<Model>& policy,
                                             std::span<training_rollout const> rollouts, std::size_t first,
                                             loss_scope scope, Loss const& loss, policy_gradient_options const& options,
                                             Edit const& edit) {
  using T = typename Model::scalar;
  Model& model = policy.model();
  bool const with_entropy = options.entropy_bonus != 0;
  auto const active = unmasked(rollouts);
  std::vector<rollout_share> out(rollouts.size());
  auto const parts = split_into_micro_batches(active, {options.micro_batch, options.row_budget});
  for (micro_batch const& part : parts) {
    auto const mine = std::span<training_rollout const* const>(active).subspan(part.first, part.last - part.first);
    prefix_tree_batch const tree = lay_out(mine, prompt_tag<Edit>);
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
      rollout_share& share = out[i];
      share.log_p.assign(scored_log_p.begin() + std::ptrdiff_t(at), scored_log_p.begin() + std::ptrdiff_t(at + n));
      share.token_loss.resize(n);
      std::vector<float> d(n);
      share.loss =
          loss(loss_rollout{share.log_p, r->old_log_p, r->advantage, r->reference_log_p}, scope, d, share.token_loss);
      expects<numeric_error>(std::isfinite(share.loss), "the loss of rollout {} is {}; no update was made with it",
                             first + i, share.loss);
      if (with_entropy)
        for (std::size_t t = at; t < at + n; ++t) share.entropy += double(real_part(pass.entropy()[t]));
      dlog_p.insert(dlog_p.end(), d.begin(), d.end());
      at += n;
    }
    if (with_entropy) dentropy.assign(tree.scored().size(), T(-options.entropy_bonus / double(scope.tokens)));
    model.backward(cache, pass, {.log_p = dlog_p, .entropy = dentropy}, policy.pass_gradients(&part == &parts.back()),
                   edited{seen});
  }
  return out;
}

/// \param shares  of all rollouts, in their order
template <PolicyLoss Loss>
policy_gradient_report report_of(std::span<training_rollout const> rollouts, std::vector<rollout_share> shares,
                                 Loss const& loss, policy_gradient_options const& options) {
  bool const with_reference = needs_reference(loss);
  policy_gradient_report report;
  report.clip_metric = clip_metric_of(loss);
  token_statistics statistics;
  for (std::size_t i = 0; i < rollouts.size(); ++i) {
    training_rollout const& r = rollouts[i];
    rollout_share& share = shares[i];
    if (!r.masked) {
      report.policy_loss += share.loss;
      statistics.add({share.log_p, r.old_log_p, r.advantage, r.reference_log_p}, loss, with_reference, share.entropy);
    }
    report.log_p.push_back(std::move(share.log_p));
    report.token_loss.push_back(std::move(share.token_loss));
  }
  statistics.write(report, with_reference, options.entropy_bonus != 0);
  report.loss = report.policy_loss - options.entropy_bonus * report.entropy.value_or(0);
  return report;
}
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
  detail::check_rollouts(rollouts);
  auto const scope = detail::scope_of(rollouts, rollouts.size(), options);
  return detail::report_of(rollouts, detail::add_leaf_gradient(policy, rollouts, 0, scope, loss, options, edit), loss,
                           options);
}

/// The same for a step of `rollouts`, as the sum over groups that trainable_weights::sum_gradient makes: a call of all
/// ranks, which have all rollouts and compute the gradients of some groups. The micro-batches of a group are its own.
/// \param group_size  rollouts of a group
/// \param more        `void more(std::size_t first, std::size_t count)`, which may add something for these rollouts to
///                    policy.gradient(); called for each of this rank's groups
template <class Model, PolicyLoss Loss, class Edit, class More>
policy_gradient_report sum_policy_gradient(trainable_weights<Model>& policy, std::span<training_rollout const> rollouts,
                                           std::size_t group_size, Loss const& loss,
                                           policy_gradient_options const& options, Edit const& edit, More&& more) {
  static_assert(detail::explain_update_edit<Edit, typename Model::backend_type>());
  detail::check_rollouts(rollouts);
  expects<shape_error>(group_size > 0 && rollouts.size() % group_size == 0, "{} rollouts are no groups of {}",
                       rollouts.size(), group_size);
  auto const scope = detail::scope_of(rollouts, group_size, options);
  std::vector<detail::rollout_share> mine;
  policy.sum_gradient(rollouts.size() / group_size, [&](std::size_t group) {
    std::size_t const first = group * group_size;
    auto shares =
        detail::add_leaf_gradient(policy, rollouts.subspan(first, group_size), first, scope, loss, options, edit);
    std::move(shares.begin(), shares.end(), std::back_inserter(mine));
    more(first, group_size);
  });
  return detail::report_of(rollouts, policy.gather_of_leaves(rollouts.size() / group_size, std::move(mine)), loss,
                           options);
}

}  // namespace atmanrl::inline ATMANRL_ABI
