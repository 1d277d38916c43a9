#pragma once

/// \file
/// log p(id[i+1] | id[0..i]) and the most probable token after each id[0..i].

#include "compute.hpp"

#include <atmanrl/nn/decoder.hpp>

#include <algorithm>

namespace inspect {

template <class Model>
logprobs_result compute(Model& model, logprobs_request const& r) {
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  using atmanrl::index_t;
  logprobs_result out;
  int const rows = int(r.ids.size()) - 1;
  if (rows == 0) return out;

  atmanrl::kv_cache<B, T> cache(model.backend(), model.config(), rows);
  atmanrl::forward_pass<B, T> pass(model.backend());
  atmanrl::ragged_batch batch;
  batch.add(cache.add_sequence(rows), std::span(r.ids).first(std::size_t(rows)));
  model.forward(cache, batch, pass);
  std::vector<atmanrl::scored_token> scored;
  for (int i = 0; i < rows; ++i) scored.push_back({i, r.ids[std::size_t(i) + 1]});
  model.log_probs(pass, scored);
  out.log_probs = pass.log_p();

  // A few rows of logits at a time: those of a long text with a large vocabulary would take gigabytes.
  index_t const vocab = model.config().vocab;
  int const piece = int(std::max<index_t>(1, (index_t{1} << 22) / vocab));
  atmanrl::tensor<B, T, 2> logits;
  for (int first = 0; first < rows; first += piece) {
    std::vector<int> wanted;
    for (int i = first; i < std::min(rows, first + piece); ++i) wanted.push_back(i);
    model.logits(pass, wanted, logits);
    auto const host = logits.to_host();
    for (auto row = host.begin(); row != host.end(); row += vocab)
      out.argmax.push_back(int(std::max_element(row, row + vocab) - row));
  }
  return out;
}

}  // namespace inspect
