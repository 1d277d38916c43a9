#pragma once

/// \file
/// Opens the model, checks the request against its config, loads the weights and carries the request out.

#include "generate.hpp"
#include "gradient.hpp"
#include "grpo.hpp"
#include "logprobs.hpp"
#include "mask.hpp"

namespace inspect {

template <class W, class B>
std::string run_on_model(B& backend, request const& r) {
  auto const file = atmanrl::model_file::open(r.model);
  std::visit([&](auto const& what) { check(what, file.config()); }, r.what);
  auto model = atmanrl::llama<B, W>::load(backend, file);
  return std::visit([&](auto const& what) { return run(model, what); }, r.what);
}

}  // namespace inspect
