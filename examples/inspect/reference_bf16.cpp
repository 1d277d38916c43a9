#include "compute_on.hpp"

#include <atmanrl/backend/reference_backend.hpp>

inspect::result inspect::compute_reference_bf16(atmanrl::model_file const& file, request const& what) {
  atmanrl::reference_backend backend;  // plain loops on one thread
  return compute_on<atmanrl::bf16>(backend, file, what);
}
