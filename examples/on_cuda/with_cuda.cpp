#include "on_cuda.hpp"

#include <atmanrl/core/error.hpp>

#include <fmt/format.h>

#include <dlfcn.h>

// cuBLAS takes 200 MB and a tenth of a second when a program that is linked with it starts, whatever it then does. So
// what nvcc compiled is a library beside the programs that is loaded when it is asked for.
int run_on_cuda(char const* program, void const* options, atmanrl::comm::any ranks) {
  void* const library = dlopen("libatmanrl_on_cuda.so", RTLD_NOW | RTLD_LOCAL);
  atmanrl::expects<atmanrl::usage_error>(library != nullptr,
                                         "--backend cuda: {} (the build target atmanrl_on_cuda makes that library)",
                                         library ? "" : dlerror());
  auto* const run = reinterpret_cast<on_cuda_entry*>(dlsym(library, fmt::format("{}_on_cuda", program).c_str()));
  atmanrl::expects<atmanrl::usage_error>(run != nullptr, "--backend cuda: {}", run ? "" : dlerror());
  return run(options, ranks);
}
