// gsm8k_experiment --backend cuda: the same experiment with another backend in its traits.
#include "on_cuda.hpp"

#include <atmanrl/cuda.hpp>
#include <atmanrl/experiment/experiment.hpp>

int gsm8k_experiment_on_cuda(atmanrl::experiment_options const& options) {
  try {
    atmanrl::cuda_backend const probe;  // before anything is read or written
  } catch (atmanrl::cuda_error const& e) {
    throw atmanrl::usage_error(e.what());
  }
  atmanrl::experiment<atmanrl::gsm8k_traits<atmanrl::cuda_backend>> e{options};
  try {
    return e.run();
  } catch (atmanrl::cuda_error const& failure) {
    if (failure.code != int(cudaErrorMemoryAllocation) || !e.estimate()) throw;
    throw atmanrl::cuda_error(
        fmt::format("{}; the run was estimated to take {} (less: --lora-rank, --activation-mib, --prompts-per-step)",
                    failure.what(), atmanrl::format_bytes(e.estimate()->peak())),
        failure.code);
  }
}
