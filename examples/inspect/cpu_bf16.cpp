#include "run_on_model.hpp"

#include <atmanrl/cpu/cpu_backend.hpp>

std::string inspect::run_cpu_bf16(request const& r) {
  atmanrl::cpu_backend backend({.threads = r.threads});
  return run_on_model<atmanrl::bf16>(backend, r);
}
