#include "compute_on.hpp"

#include <atmanrl/cpu/cpu_backend.hpp>

inspect::result inspect::compute_cpu(atmanrl::model_file const& file, int threads, bool bf16, request const& what) {
  // Numbers to hold against other programs: the stored weights, exactly, and nothing else rounded.
  atmanrl::cpu_backend backend({.threads = threads, .exact_activations = bf16});
  return compute_on<float>(backend, file, what, bf16 ? atmanrl::weight_storage::bf16 : atmanrl::weight_storage::full);
}
