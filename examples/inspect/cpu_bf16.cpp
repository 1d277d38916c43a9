#include "compute_on.hpp"

#include <atmanrl/cpu/cpu_backend.hpp>

inspect::result inspect::compute_cpu_bf16(atmanrl::model_file const& file, int threads, request const& what) {
  atmanrl::cpu_backend backend({.threads = threads});
  return compute_on<atmanrl::bf16>(backend, file, what);
}
