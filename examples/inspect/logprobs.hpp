#pragma once

/// \file
/// `logprobs`: log p(id[i+1] | id[0..i]) and the most probable token after each id[0..i].

#include "checks.hpp"
#include "requests.hpp"

#include <atmanrl/io/json.hpp>
#include <atmanrl/nn/llama.hpp>

#include <algorithm>

namespace inspect {

inline void check(logprobs_request const& r, atmanrl::model_config const& config) {
  check_ids("--ids", r.ids, config);
  check_length("--ids", {r.ids.size()}, config);
}

template <class Model>
std::string run(Model& model, logprobs_request const& r) {
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  using atmanrl::index_t;
  atmanrl::ordered_json out{{"logprobs", atmanrl::ordered_json::array()}, {"argmax", atmanrl::ordered_json::array()}};
  int const rows = int(r.ids.size()) - 1;
  if (rows == 0) return atmanrl::dump_json(out);

  atmanrl::kv_cache<B, T> cache(model.backend(), model.config(), rows);
  atmanrl::forward_pass<B, T> pass(model.backend());
  atmanrl::ragged_batch batch;
  batch.add(cache.add_sequence(rows), std::span(r.ids).first(std::size_t(rows)));
  model.forward(cache, batch, pass);
  std::vector<atmanrl::scored_token> scored;
  for (int i = 0; i < rows; ++i) scored.push_back({i, r.ids[std::size_t(i) + 1]});
  model.log_probs(pass, scored);
  for (T const x : pass.log_p()) out["logprobs"].push_back(double(x));

  // A few rows of logits at a time: those of a long text with a large vocabulary would take gigabytes.
  int const piece = int(std::max<index_t>(1, (index_t{1} << 22) / model.config().vocab));
  atmanrl::tensor<B, T, 2> logits;
  for (int first = 0; first < rows; first += piece) {
    std::vector<int> wanted;
    for (int i = first; i < std::min(rows, first + piece); ++i) wanted.push_back(i);
    model.logits(pass, wanted, logits);
    auto const host = logits.to_host();
    for (auto row = host.begin(); row != host.end(); row += model.config().vocab)
      out["argmax"].push_back(std::max_element(row, row + model.config().vocab) - row);
  }
  return atmanrl::dump_json(out);
}

}  // namespace inspect
