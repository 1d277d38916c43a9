#include "on_cuda.hpp"

#include <dlfcn.h>

// cuBLAS takes 200 MB and a tenth of a second when a program that is linked with it starts, whatever it then does. So
// what nvcc compiled is a library beside the program that is loaded when it is asked for.
int run_on_cuda(atmanrl::experiment_options const& options, atmanrl::comm::any ranks, atmanrl::run_hooks& hooks) {
  void* const library = dlopen("libgsm8k_experiment_on_cuda.so", RTLD_NOW | RTLD_LOCAL);
  atmanrl::expects<atmanrl::usage_error>(
      library != nullptr, "--backend cuda: {} (the build target gsm8k_experiment_on_cuda makes that library)",
      library ? "" : dlerror());
  auto const run = reinterpret_cast<decltype(&gsm8k_experiment_on_cuda)>(dlsym(library, "gsm8k_experiment_on_cuda"));
  atmanrl::expects<atmanrl::usage_error>(run != nullptr, "--backend cuda: {}", run ? "" : dlerror());
  return run(options, ranks, hooks);
}
