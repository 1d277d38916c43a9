#pragma once

/// \file
/// Log-probabilities of completions that nothing is learned from: those of the reference of a KL term, and those of the
/// policy before a step's updates where an update edit makes them other ones than the sampler's. A run with adapters
/// has its reference in the same model with adapters::off; full fine-tuning needs a frozen copy.

#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/rl/training_batch.hpp>
#include <atmanrl/rl/update_edits/update_edit.hpp>

#include <cmath>
#include <span>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
/// \param whose  for the error's text
template <class Model, class Edit>
std::vector<std::vector<float>> rollout_log_probs(Model& model, std::span<training_rollout const> rollouts,
                                                  double temperature, micro_batch_options const& options,
                                                  adapters which, Edit const& edit, std::string_view whose) {
  static_assert(explain_language_model<Model>());
  static_assert(explain_update_edit<Edit, typename Model::backend_type>());
  std::vector<training_rollout const*> active;
  for (std::size_t i = 0; i < rollouts.size(); ++i) {
    training_rollout const& r = rollouts[i];
    expects<usage_error>(!r.prompt.empty() && !r.completion.empty(),
                         "rollout {} has {} prompt and {} completion tokens; both are needed", i, r.prompt.size(),
                         r.completion.size());
    if (!r.masked) active.push_back(&r);
  }
  std::vector<std::vector<float>> out(rollouts.size());
  for (micro_batch const& part : split_into_micro_batches(active, options)) {
    auto const mine = std::span<training_rollout const* const>(active).subspan(part.first, part.last - part.first);
    prefix_tree_batch const tree = lay_out(mine, prompt_tag<Edit>);
    auto const seen = edit(model.backend(), mine);
    auto const space = model.borrow_pass(tree.cache_rows());
    auto& [cache, pass] = *space;
    tree.open(model, cache, pass);
    model.forward(cache, tree.batch(), pass, {.adapters = which}, edited{seen});
    model.log_probs(pass, tree.scored(), temperature);
    auto const values = pass.log_p();
    std::size_t at = 0;
    for (training_rollout const* const r : mine) {
      std::size_t const i = std::size_t(r - rollouts.data());
      for (std::size_t t = 0; t < r->completion.size(); ++t) {
        out[i].push_back(float(real_part(values[at++])));
        expects<numeric_error>(std::isfinite(out[i].back()), "{} log-probability of token {} of rollout {} is {}",
                               whose, t, i, out[i].back());
      }
    }
  }
  return out;
}
}  // namespace detail

/// log p of every completion token of every rollout, through the forward path and the packing of training.
/// \param which  adapters::off for the model that the adapters began from; the same for one that can have none
/// \param edit   the update edit of the loss that the log-probabilities are for
/// \returns one list per rollout; that of a masked rollout is empty
/// \throws usage_error for a rollout without prompt or completion, numeric_error naming the rollout when a
///         log-probability is not finite
template <class Model, class Edit = update_edits::none>
std::vector<std::vector<float>> reference_log_probs(Model& model, std::span<training_rollout const> rollouts,
                                                    double temperature, micro_batch_options const& options = {},
                                                    adapters which = adapters::on, Edit const& edit = {}) {
  return detail::rollout_log_probs(model, rollouts, temperature, options, which, edit, "the reference model's");
}

/// The same of the policy itself under an update edit: what the ratios of a step's updates are to be compared with.
template <class Model, class Edit>
std::vector<std::vector<float>> update_log_probs(Model& model, std::span<training_rollout const> rollouts,
                                                 double temperature, micro_batch_options const& options,
                                                 Edit const& edit) {
  return detail::rollout_log_probs(model, rollouts, temperature, options, adapters::on, edit,
                                   "under the update edit, the policy's");
}

}  // namespace atmanrl::inline ATMANRL_ABI
