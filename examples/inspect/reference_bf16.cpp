#include "run_on_model.hpp"

#include <atmanrl/backend/reference_backend.hpp>

std::string inspect::run_reference_bf16(request const& r) {
  atmanrl::reference_backend backend;  // plain loops on one thread
  return run_on_model<atmanrl::bf16>(backend, r);
}
