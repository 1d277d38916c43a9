#pragma once

/// \file
/// Everything that training with AtManRL takes: models, tasks, saliency, rewards, GRPO, on the CPU.

#include <atmanrl/llama.hpp>
#include <atmanrl/saliency.hpp>

#include <atmanrl/optim/any.hpp>
#include <atmanrl/rl/advantages/advantage.hpp>
#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/advantages/batch_normalized.hpp>
#include <atmanrl/rl/advantages/gdpo.hpp>
#include <atmanrl/rl/advantages/group_normalized.hpp>
#include <atmanrl/rl/advantages/leave_one_out.hpp>
#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/rl/losses/bnpo.hpp>
#include <atmanrl/rl/losses/cispo.hpp>
#include <atmanrl/rl/losses/dapo.hpp>
#include <atmanrl/rl/losses/dr_grpo.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/losses/gspo.hpp>
#include <atmanrl/rl/losses/kl.hpp>
#include <atmanrl/rl/losses/loss.hpp>
#include <atmanrl/rl/losses/surrogate.hpp>
#include <atmanrl/rl/losses/two_sided.hpp>
#include <atmanrl/rl/observers/causality.hpp>
#include <atmanrl/rl/observers/observer.hpp>
#include <atmanrl/rl/reward_gradient_options.hpp>
#include <atmanrl/rl/rewards/any.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/chain_information.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/edited_answer.hpp>
#include <atmanrl/rl/rewards/format.hpp>
#include <atmanrl/rl/rewards/function.hpp>
#include <atmanrl/rl/rewards/gated.hpp>
#include <atmanrl/rl/rewards/gradient_only.hpp>
#include <atmanrl/rl/rewards/knock_out.hpp>
#include <atmanrl/rl/rewards/length.hpp>
#include <atmanrl/rl/rewards/parts.hpp>
#include <atmanrl/rl/rewards/penalized.hpp>
#include <atmanrl/rl/rewards/restored_answer.hpp>
#include <atmanrl/rl/rewards/reward.hpp>
#include <atmanrl/rl/rewards/reward_gradient.hpp>
#include <atmanrl/rl/rewards/reward_table.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/rewards/shuffled.hpp>
#include <atmanrl/rl/rewards/soft_overlong.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>
#include <atmanrl/rl/save_model.hpp>
#include <atmanrl/rl/samplers/any.hpp>
#include <atmanrl/rl/samplers/form.hpp>
#include <atmanrl/rl/samplers/greedy.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
#include <atmanrl/rl/samplers/sampler.hpp>
#include <atmanrl/rl/sft.hpp>
#include <atmanrl/rl/update_edits/hide_from_answer.hpp>
#include <atmanrl/rl/update_edits/hide_prompt_from_answer.hpp>
#include <atmanrl/rl/update_edits/update_edit.hpp>

// What atmanrl::compiled holds of the above.
#if defined(ATMANRL_COMPILED)
namespace atmanrl::inline ATMANRL_ABI {
ATMANRL_TEMPLATE class trainable_weights<llama<cpu_backend>>;
ATMANRL_TEMPLATE class trainable_policy<llama<cpu_backend>>;
ATMANRL_TEMPLATE class trainable_policy<llama<cpu_backend>, optim::any>;
ATMANRL_TEMPLATE std::vector<std::vector<completion>> generate(llama<cpu_backend>&, std::span<std::vector<int> const>,
                                                               generate_options const&, samplers::any const&);
ATMANRL_TEMPLATE std::vector<std::vector<completion>> generate(llama<cpu_backend>&, std::span<std::vector<int> const>,
                                                               generate_options const&, samplers::multinomial const&);
ATMANRL_TEMPLATE std::vector<std::vector<completion>> generate(llama<cpu_backend>&, std::span<std::vector<int> const>,
                                                               generate_options const&, samplers::greedy const&);
ATMANRL_TEMPLATE std::vector<detail::rollout_share> detail::add_leaf_gradient(
    trainable_weights<llama<cpu_backend>>&, std::span<training_rollout const>, std::size_t, loss_scope,
    losses::any const&, policy_gradient_options const&, update_edits::none const&);
ATMANRL_TEMPLATE std::vector<detail::rollout_share> detail::add_leaf_gradient(
    trainable_weights<llama<cpu_backend>>&, std::span<training_rollout const>, std::size_t, loss_scope,
    losses::grpo const&, policy_gradient_options const&, update_edits::none const&);
ATMANRL_TEMPLATE std::vector<std::vector<float>> reference_log_probs(llama<cpu_backend>&,
                                                                     std::span<training_rollout const>, double,
                                                                     micro_batch_options const&, adapters,
                                                                     update_edits::none const&);
}  // namespace atmanrl::inline ATMANRL_ABI
#endif
