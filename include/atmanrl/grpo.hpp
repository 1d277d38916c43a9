#pragma once

/// \file
/// Everything that training with AtManRL takes: models, tasks, saliency, rewards, GRPO, on the CPU.

#include <atmanrl/llama.hpp>
#include <atmanrl/saliency.hpp>

#include <atmanrl/optim/any.hpp>
#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/observers/causality.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>
#include <atmanrl/rl/samplers/greedy.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>

// What atmanrl::compiled holds of the above.
#if defined(ATMANRL_COMPILED)
#  include <atmanrl/rl/losses/any.hpp>
#  include <atmanrl/rl/samplers/any.hpp>
#  define ATMANRL_TEMPLATES(TEMPLATE, W)                                                                              \
    TEMPLATE class trainable_weights<llama<cpu_backend, W>>;                                                          \
    TEMPLATE class trainable_policy<llama<cpu_backend, W>>;                                                           \
    TEMPLATE class trainable_policy<llama<cpu_backend, W>, optim::any>;                                               \
    TEMPLATE std::vector<std::vector<completion>> generate(llama<cpu_backend, W>&, std::span<std::vector<int> const>, \
                                                           generate_options const&, samplers::any const&);            \
    TEMPLATE std::vector<std::vector<completion>> generate(llama<cpu_backend, W>&, std::span<std::vector<int> const>, \
                                                           generate_options const&, samplers::multinomial const&);    \
    TEMPLATE std::vector<std::vector<completion>> generate(llama<cpu_backend, W>&, std::span<std::vector<int> const>, \
                                                           generate_options const&, samplers::greedy const&);         \
    TEMPLATE policy_gradient_report add_policy_gradient(trainable_weights<llama<cpu_backend, W>>&,                    \
                                                        std::span<training_rollout const>, losses::any const&,        \
                                                        policy_gradient_options const&);                              \
    TEMPLATE policy_gradient_report add_policy_gradient(trainable_weights<llama<cpu_backend, W>>&,                    \
                                                        std::span<training_rollout const>, losses::grpo const&,       \
                                                        policy_gradient_options const&);                              \
    TEMPLATE std::vector<std::vector<float>> reference_log_probs(                                                     \
        llama<cpu_backend, W>&, std::span<training_rollout const>, double, micro_batch_options const&, adapters);

namespace atmanrl {
ATMANRL_TEMPLATES(ATMANRL_FLOAT_TEMPLATE, float)
ATMANRL_TEMPLATES(ATMANRL_BF16_TEMPLATE, bf16)
}  // namespace atmanrl
#  undef ATMANRL_TEMPLATES
#endif
