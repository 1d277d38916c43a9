#include "compute_on.hpp"

#include <atmanrl/cpu/cpu_backend.hpp>

inspect::result inspect::compute_cpu_bf16(atmanrl::model_file const& file, int threads, request const& what) {
  // Numbers to hold against other programs: the stored weights, exactly, and nothing else rounded.
  atmanrl::cpu_backend backend({.threads = threads, .exact_activations = true});
  return compute_on<atmanrl::bf16>(backend, file, what);
}
