#pragma once

/// \file
/// The whole experiment: everything of grpo.hpp, tasks, options, evaluation, files.

#include <atmanrl/grpo.hpp>

#include <atmanrl/evaluation/edited_chains.hpp>
#include <atmanrl/experiment/experiment.hpp>
#include <atmanrl/tasks/mmlu.hpp>

// What atmanrl::compiled holds of the above.
#if defined(ATMANRL_COMPILED)
namespace atmanrl::inline ATMANRL_ABI {
ATMANRL_TEMPLATE run_data look_at_data(any_task const&, tokenizer const&, model_config const&,
                                       experiment_options const&);
ATMANRL_TEMPLATE rollout annotate(completion, int, int, task_item const&, any_task const&, tokenizer const&,
                                  std::span<int const>, no_delimiter_policy);
ATMANRL_TEMPLATE evaluation evaluate(llama<cpu_backend>&, tokenizer const&, any_task const&, evaluation_options const&,
                                     samplers::any const&);
ATMANRL_TEMPLATE void save_model(std::filesystem::path const&, trainable_weights<llama<cpu_backend>>&, tokenizer const&,
                                 std::filesystem::path const&, dtype);
ATMANRL_TEMPLATE void save_adapters(std::filesystem::path const&, trainable_weights<llama<cpu_backend>>&,
                                    std::filesystem::path const&);
}  // namespace atmanrl::inline ATMANRL_ABI
#endif
