#pragma once
// What steps of recorded work ask of the device, as the emulation counts it.
#include <atmanrl/cuda/cuda_backend.cuh>

#if defined(ATMANRL_CUDA_EMULATION)
namespace atmanrl_test {

/// What the steps after `first` up to `last` ask of the device; captures are those of all steps.
/// \param run  `void(int steps)`, the whole work in so many steps, on a backend of its own
template <class Run>
cuda_emulation::launch_counts launches_of(int first, int last, Run const& run) {
  auto& now = cuda_emulation::streams().launched;
  auto const count = [&](int steps) {
    now = {};
    run(steps);
    return now;
  };
  auto const all = count(last);
  auto counts = all - count(first);
  counts.captures = all.captures;
  return counts;
}

}  // namespace atmanrl_test
#endif
