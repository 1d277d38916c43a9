#pragma once

/// \file
/// The verbs on a GPU, which only nvcc compiles.

#include "compute_on.hpp"
#include "device_call.hpp"

#include <atmanrl/comm/any.hpp>

namespace inspect {

/// The work of with_backend.hpp.
struct device_program {
  using options = device_call;
  template <class B>
  static int run(device_call const& c, atmanrl::comm::any_on<B>) {
    auto backend = make_backend<B>(c, c.bf16_weights);
    *c.out = c.bf16_weights ? compute_on<atmanrl::bf16>(backend, *c.file, *c.what)
                            : compute_on<float>(backend, *c.file, *c.what);
    return 0;
  }
};

}  // namespace inspect
