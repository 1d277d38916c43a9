#pragma once

/// \file
/// The verbs on one backend with one type of weights; the three units beside this header differ in nothing else.

#include "generate.hpp"
#include "gradient.hpp"
#include "grpo.hpp"
#include "logprobs.hpp"
#include "mask.hpp"

#include <atmanrl/io/model_file.hpp>

namespace inspect {

template <class W, class B>
result compute_on(B& backend, atmanrl::model_file const& file, request const& what,
                  atmanrl::weight_storage storage = atmanrl::weight_storage::full) {
  auto model = atmanrl::llama<B, W>::load(backend, file, {}, storage);
  return std::visit([&](auto const& r) -> result { return compute(model, r); }, what);
}

}  // namespace inspect
