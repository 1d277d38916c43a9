#pragma once

/// \file
/// The verbs on a GPU, which only nvcc compiles.

#include "../model_dtype.hpp"
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
    std::string const dtype = c.bf16_weights ? "bf16" : "f32";
    *c.out = with_weight_type<B>(dtype, [&]<class W>(std::type_identity<W>) {
      return compute_on<W>(backend, *c.file, *c.what, weight_storage_of<B>(dtype));
    });
    return 0;
  }
};

}  // namespace inspect
