#pragma once

/// \file
/// A request that is carried out on a GPU, by the library that nvcc compiled (on_cuda/).

#include "../backend_options.hpp"
#include "compute.hpp"

namespace inspect {

struct device_call : backend_options {
  bool bf16_weights;
  atmanrl::model_file const* file;
  request const* what;
  result* out;
};

}  // namespace inspect
