#pragma once

/// \file
/// Gradient of the mean next-token cross-entropy with respect to every parameter.

#include "compute.hpp"

#include <atmanrl/nn/decoder.hpp>

#include <cmath>

namespace inspect {

template <class Model>
gradient_result compute(Model& model, gradient_request const& r) {
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  int const rows = int(r.ids.size()) - 1;
  atmanrl::kv_cache<B, T> cache(model.backend(), model.config(), rows);
  atmanrl::forward_pass<B, T> pass(model.backend());
  atmanrl::ragged_batch batch;
  batch.add(cache.add_sequence(rows), std::span(r.ids).first(std::size_t(rows)));
  model.forward(cache, batch, pass, {.mode = atmanrl::gradient_mode::parameters});
  std::vector<atmanrl::scored_token> scored;
  for (int i = 0; i < rows; ++i) scored.push_back({i, r.ids[std::size_t(i) + 1]});
  model.log_probs(pass, scored);
  double loss = 0;
  for (T const x : pass.log_p()) loss -= double(x) / rows;

  auto gradient = atmanrl::tensor<B, T, 1>::zeros(model.backend(), {model.layout().size()});
  std::vector<T> const dlog_p(std::size_t(rows), T(-1.0 / rows));
  model.backward(cache, pass, {.log_p = dlog_p}, {.parameters = gradient.view()});
  double const norm = std::sqrt(sum_of_squares(model.backend(), gradient.view()));
  return {loss, norm, gradient.to_host()};
}

}  // namespace inspect
