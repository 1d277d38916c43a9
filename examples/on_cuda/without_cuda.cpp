#include "on_cuda.hpp"

#include <atmanrl/core/error.hpp>

int run_on_cuda(char const*, void const*, atmanrl::comm::any) {
  atmanrl::fail<atmanrl::usage_error>("--backend cuda: this program was built without CUDA; see docs/cuda.md");
}
