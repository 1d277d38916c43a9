#pragma once

/// \file
/// The trainer of a run: the parts that the traits name, made from the options.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/row_budgets.hpp>
#include <atmanrl/experiment/traits_parts.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/rl/grpo.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// Whether a run holds a second, frozen copy of its model: its loss asks for a reference, as which adapters that are
/// off serve, too.
template <class Traits>
bool needs_reference_model(experiment_options const& o) {
  return o.lora_rank == 0 && needs_reference(detail::make_traits_loss<Traits>(o));
}

/// What a run trains: the adapters, or all.
template <class Model>
parameter_layout trained_layout(model_config const& c, experiment_options const& o) {
  architecture const& kind = Model::kind_of(c);
  return o.lora_rank > 0 ? parameter_layout(c, kind, o.lora()) : parameter_layout(c, kind);
}

/// \tparam Traits  gsm8k_traits<> or a type derived from it
/// \param ranks  that train together, each with a trainer of the same options
template <class Traits, class Model, class TokenizerT, class TaskT>
auto make_trainer(Model& model, TokenizerT const& words, TaskT const& task, experiment_options const& o,
                  comm::any_on<typename Traits::backend> ranks = {}) {
  grpo_options options = o;
  options.row_budget = budgets_of(model.config(), Model::kept_numbers(model.config()), o).update;
  options.total_steps = std::uint64_t(o.steps);
  return grpo(model, words, task, detail::make_traits_reward<Traits>(within_budgets(model, o)), options,
              detail::make_traits_advantage<Traits>(o), detail::make_traits_loss<Traits>(o),
              detail::make_traits_sampler<Traits>(o), detail::make_traits_schedule<Traits>(o),
              detail::make_traits_optimizer<Traits>(o), detail::make_traits_update_edit<Traits>(o), ranks);
}

}  // namespace atmanrl::inline ATMANRL_ABI
