// gsm8k_experiment --backend cuda: the same experiment with another backend in its traits; of several ranks each has a
// device of its own, and NCCL carries what devices hand to each other where the program was built with it.
#include "on_cuda.hpp"

#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/cuda.hpp>
#include <atmanrl/experiment/experiment.hpp>

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace {

using namespace atmanrl;

struct traits_on_device : gsm8k_traits<cuda_backend> {
  static inline int device = 0;  // of this rank
  static std::unique_ptr<cuda_backend> make_backend(experiment_options const& o) {
    return std::make_unique<cuda_backend>(cuda_options{.device = device, .tf32 = o.tf32});
  }
};

/// How many ranks of lower number run on this machine.
int number_on_machine(comm::any ranks) {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  auto const machines = comm::gather_in_order(ranks, std::vector{std::string(name)});
  return int(std::count(machines.begin(), machines.begin() + ranks.rank(), name));
}

int run(experiment_options const& options, comm::any_on<cuda_backend> ranks, run_hooks& hooks) {
  experiment<traits_on_device> e(options, ranks);
  try {
    return e.run(hooks);
  } catch (cuda_error const& failure) {
    if (failure.code != int(cudaErrorMemoryAllocation) || !e.estimate()) throw;
    throw cuda_error(
        fmt::format("{}; the run was estimated to take {} (less: --lora-rank, --activation-mib, --prompts-per-step)",
                    failure.what(), format_bytes(e.estimate()->peak())),
        failure.code);
  }
}

}  // namespace

int gsm8k_experiment_on_cuda(experiment_options const& options, comm::any ranks, run_hooks& hooks) {
  traits_on_device::device = number_on_machine(ranks);
  std::optional<cuda_backend> probe;  // before anything is read or written
  comm::all_or_none(ranks, [&] {
    try {
      probe.emplace(cuda_options{.device = traits_on_device::device});
    } catch (cuda_error const& e) {
      throw usage_error(e.what());
    }
  });
#if defined(ATMANRL_NCCL)
  if (ranks.size() > 1) {
    comm::nccl devices(ranks, *probe);
    return run(options, devices, hooks);
  }
#endif
  probe.reset();
  return run(options, ranks, hooks);
}
