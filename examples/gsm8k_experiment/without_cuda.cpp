#include "on_cuda.hpp"

int run_on_cuda(atmanrl::experiment_options const&, atmanrl::comm::any, atmanrl::run_hooks&) {
  atmanrl::fail<atmanrl::usage_error>("--backend cuda: this program was built without CUDA; see docs/cuda.md");
}
