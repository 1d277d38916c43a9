// The programs with --backend cuda. They are one unit, because most of what takes nvcc minutes, attention, is the same
// in all of them.
#include "../ablation/ablation.hpp"
#include "../evaluate/evaluate.hpp"
#include "../experiment_program.hpp"
#include "../explain/explain.hpp"
#include "../faithfulness/faithfulness.hpp"
#include "../inspect/device_program.hpp"
#include "../reproduce_table1/arms.hpp"
#include "../sft/sft.hpp"
#include "on_cuda.hpp"
#include "run_on_device.cuh"

#include <atmanrl/experiment/mmlu_traits.hpp>

namespace {

/// What a run was estimated to take is worth knowing where it runs out of memory.
template <template <class> class Traits>
int run_experiment(void const* options, atmanrl::comm::any ranks) {
  using namespace atmanrl;
  return run_on_device<experiment_options>(options, ranks, [](experiment_options const& o, auto devices) {
    experiment<Traits<cuda_backend>> e(o, devices);
    terminal::run_display display;
    try {
      return e.run(display);
    } catch (cuda_error const& failure) {
      if (failure.code != int(cudaErrorMemoryAllocation) || !e.estimate()) throw;
      throw cuda_error(
          fmt::format("{}; the run was estimated to take {} (less: --lora-rank, --activation-mib, --prompts-per-step)",
                      failure.what(), format_bytes(e.estimate()->peak())),
          failure.code);
    }
  });
}

}  // namespace

extern "C" {
on_cuda_entry ablation_on_cuda, evaluate_on_cuda, explain_on_cuda, faithfulness_on_cuda, gsm8k_experiment_on_cuda,
    inspect_on_cuda, mmlu_experiment_on_cuda, reproduce_table1_on_cuda, sft_on_cuda;
}

int ablation_on_cuda(void const* o, atmanrl::comm::any ranks) {
  return run_program_on_device<ablating::program>(o, ranks);
}
int evaluate_on_cuda(void const* o, atmanrl::comm::any ranks) {
  return run_program_on_device<evaluating::program>(o, ranks);
}
int explain_on_cuda(void const* o, atmanrl::comm::any ranks) {
  return run_program_on_device<explaining::program>(o, ranks);
}
int faithfulness_on_cuda(void const* o, atmanrl::comm::any ranks) {
  return run_program_on_device<faithfulness::program>(o, ranks);
}
int gsm8k_experiment_on_cuda(void const* o, atmanrl::comm::any ranks) {
  return run_experiment<atmanrl::gsm8k_traits>(o, ranks);
}
int inspect_on_cuda(void const* o, atmanrl::comm::any ranks) {
  return run_program_on_device<inspect::device_program>(o, ranks);
}
int mmlu_experiment_on_cuda(void const* o, atmanrl::comm::any ranks) {
  return run_experiment<atmanrl::mmlu_traits>(o, ranks);
}
int reproduce_table1_on_cuda(void const* o, atmanrl::comm::any ranks) {
  return run_program_on_device<table1::program>(o, ranks);
}
int sft_on_cuda(void const* o, atmanrl::comm::any ranks) {
  return run_program_on_device<fine_tuning::program>(o, ranks);
}
