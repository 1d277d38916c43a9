#include "compute_on.hpp"

#include <atmanrl/backend/reference_backend.hpp>

inspect::result inspect::compute_reference_f32(atmanrl::model_file const& file, request const& what) {
  atmanrl::reference_backend backend;  // plain loops on one thread
  return compute_on<float>(backend, file, what);
}
