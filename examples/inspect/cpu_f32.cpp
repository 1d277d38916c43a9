#include "run_on_model.hpp"

#include <atmanrl/cpu/cpu_backend.hpp>

std::string inspect::run_cpu_f32(request const& r) {
  atmanrl::cpu_backend backend({.threads = r.threads});
  return run_on_model<float>(backend, r);
}
