#pragma once

/// \file
/// Log-probabilities of completions under a model that does not learn from them: the reference of a KL term. A run with
/// adapters has its reference in the same model with adapters::off; full fine-tuning needs a frozen copy.

#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/rl/training_batch.hpp>

#include <cmath>
#include <span>
#include <vector>

namespace atmanrl {

/// log p of every completion token of every rollout, through the forward path and the packing of training.
/// \param which  adapters::off for the model that the adapters began from; the same for one that can have none
/// \returns one list per rollout; that of a masked rollout is empty
/// \throws usage_error for a rollout without prompt or completion, numeric_error naming the rollout when a
///         log-probability is not finite
template <class Model>
std::vector<std::vector<float>> reference_log_probs(Model& model, std::span<training_rollout const> rollouts,
                                                    double temperature, micro_batch_options const& options = {},
                                                    adapters which = adapters::on) {
  static_assert(detail::explain_language_model<Model>());
  std::vector<training_rollout const*> active;
  for (std::size_t i = 0; i < rollouts.size(); ++i) {
    training_rollout const& r = rollouts[i];
    expects<usage_error>(!r.prompt.empty() && !r.completion.empty(),
                         "rollout {} has {} prompt and {} completion tokens; both are needed", i, r.prompt.size(),
                         r.completion.size());
    if (!r.masked) active.push_back(&r);
  }
  std::vector<std::vector<float>> out(rollouts.size());
  for (detail::micro_batch const& part : detail::split_into_micro_batches(active, options)) {
    auto const mine = std::span<training_rollout const* const>(active).subspan(part.first, part.last - part.first);
    prefix_tree_batch const tree = detail::lay_out(mine);
    auto const space = model.borrow_pass(tree.cache_rows());
    auto& [cache, pass] = *space;
    tree.open(model, cache, pass);
    model.forward(cache, tree.batch(), pass, {.adapters = which});
    model.log_probs(pass, tree.scored(), temperature);
    auto const values = pass.log_p();
    std::size_t at = 0;
    for (training_rollout const* const r : mine) {
      std::size_t const i = std::size_t(r - rollouts.data());
      for (std::size_t t = 0; t < r->completion.size(); ++t) {
        out[i].push_back(float(real_part(values[at++])));
        expects<numeric_error>(std::isfinite(out[i].back()),
                               "the reference model's log-probability of token {} of rollout {} is {}", t, i,
                               out[i].back());
      }
    }
  }
  return out;
}

}  // namespace atmanrl
