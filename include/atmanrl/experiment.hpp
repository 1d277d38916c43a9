#pragma once

/// \file
/// The whole experiment: everything of grpo.hpp, tasks, options, evaluation, files.

#include <atmanrl/grpo.hpp>

#include <atmanrl/experiment/experiment.hpp>

// What atmanrl::compiled holds of the above.
#if defined(ATMANRL_COMPILED)
namespace atmanrl {
ATMANRL_FLOAT_TEMPLATE run_shape shape_of(any_task const&, tokenizer const&, model_config const&,
                                          experiment_options const&);
ATMANRL_FLOAT_TEMPLATE rollout annotate(completion, int, int, task_item const&, any_task const&, tokenizer const&,
                                        std::span<int const>, no_delimiter_policy);
ATMANRL_FLOAT_TEMPLATE memory_estimate estimate_memory<cpu_backend, float>(model_config const&,
                                                                           experiment_options const&, run_shape const&);
ATMANRL_FLOAT_TEMPLATE evaluation evaluate(llama<cpu_backend, float>&, tokenizer const&, any_task const&,
                                           evaluation_options const&, samplers::any const&);
ATMANRL_FLOAT_TEMPLATE void save_model(std::filesystem::path const&, trainable_policy<llama<cpu_backend, float>>&,
                                       tokenizer const&, std::filesystem::path const&, dtype);
ATMANRL_FLOAT_TEMPLATE void save_adapters(std::filesystem::path const&, trainable_policy<llama<cpu_backend, float>>&,
                                          std::filesystem::path const&);
ATMANRL_BF16_TEMPLATE memory_estimate estimate_memory<cpu_backend, bf16>(model_config const&, experiment_options const&,
                                                                         run_shape const&);
ATMANRL_BF16_TEMPLATE evaluation evaluate(llama<cpu_backend, bf16>&, tokenizer const&, any_task const&,
                                          evaluation_options const&, samplers::any const&);
ATMANRL_BF16_TEMPLATE void save_model(std::filesystem::path const&, trainable_policy<llama<cpu_backend, bf16>>&,
                                      tokenizer const&, std::filesystem::path const&, dtype);
ATMANRL_BF16_TEMPLATE void save_adapters(std::filesystem::path const&, trainable_policy<llama<cpu_backend, bf16>>&,
                                         std::filesystem::path const&);
}  // namespace atmanrl
#endif
