#include "compute_on.hpp"

#include <atmanrl/cpu/cpu_backend.hpp>

inspect::result inspect::compute_cpu_f32(atmanrl::model_file const& file, int threads, request const& what) {
  atmanrl::cpu_backend backend({.threads = threads});
  return compute_on<float>(backend, file, what);
}
