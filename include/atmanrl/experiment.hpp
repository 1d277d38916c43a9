#pragma once

/// \file
/// The whole experiment: everything of grpo.hpp, tasks, options, evaluation, files.

#include <atmanrl/grpo.hpp>

#include <atmanrl/evaluation/edited_chains.hpp>
#include <atmanrl/experiment/experiment.hpp>
#include <atmanrl/tasks/mmlu.hpp>

// What atmanrl::compiled holds of the above.
#if defined(ATMANRL_COMPILED)
#  define ATMANRL_TEMPLATES(TEMPLATE, W)                                                                               \
    TEMPLATE evaluation evaluate(llama<cpu_backend, W>&, tokenizer const&, any_task const&, evaluation_options const&, \
                                 samplers::any const&);                                                                \
    TEMPLATE void save_model(std::filesystem::path const&, trainable_weights<llama<cpu_backend, W>>&,                  \
                             tokenizer const&, std::filesystem::path const&, dtype);                                   \
    TEMPLATE void save_adapters(std::filesystem::path const&, trainable_weights<llama<cpu_backend, W>>&,               \
                                std::filesystem::path const&);

namespace atmanrl {
ATMANRL_FLOAT_TEMPLATE run_data look_at_data(any_task const&, tokenizer const&, model_config const&,
                                             experiment_options const&);
ATMANRL_FLOAT_TEMPLATE rollout annotate(completion, int, int, task_item const&, any_task const&, tokenizer const&,
                                        std::span<int const>, no_delimiter_policy);
ATMANRL_TEMPLATES(ATMANRL_FLOAT_TEMPLATE, float)
ATMANRL_TEMPLATES(ATMANRL_BF16_TEMPLATE, bf16)
}  // namespace atmanrl
#  undef ATMANRL_TEMPLATES
#endif
