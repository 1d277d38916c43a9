// main() of the CUDA tests, emulated or on a device: 77 where there is none, and nothing that the emulation found may
// stay unread.
#include <atmanrl/cuda/compat.cuh>

#include <cstdio>

int run_catch(int argc, char** argv);  // catch_runner.cpp

int main(int argc, char** argv) {
#if defined(ATMANRL_CUDA_EMULATION)
  int const failed = run_catch(argc, argv);
  auto const found = cuda_emulation::take_reports();
  for (auto const& sentence : found) std::printf("not read by any test: %s\n", sentence.c_str());
  if (std::size_t const left = cuda_emulation::live_allocations())
    std::printf("%zu device allocations are left\n", left);
  return failed != 0 || !found.empty() || cuda_emulation::live_allocations() != 0;
#else
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no CUDA device: skipped");
    return 77;
  }
  return run_catch(argc, argv);
#endif
}
