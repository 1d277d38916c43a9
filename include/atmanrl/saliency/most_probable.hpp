#pragma once

/// \file
/// The most probable token after rows of a forward pass: the step of greedy decoding.

#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/ops/sample.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::detail {

/// What finding them takes; kept in the model's workspace.
template <Backend B, class T>
struct most_probable_space {
  tensor<B, T, 2> logits;
  tensor<B, int, 1> row_of, ids;
  tensor<B, std::uint64_t, 1> shares;
  tensor<B, T, 1> log_p, entropy;
};

/// The largest logit's id after each row, the lowest among equals, found where the logits are. A few rows at a time:
/// the logits of all together would be rows x vocabulary numbers.
/// \throws numeric_error when its log-probability is not finite
template <LanguageModel Model>
std::vector<int> most_probable(Model& model, forward_pass<typename Model::backend_type, typename Model::scalar>& pass,
                               std::span<int const> rows) {
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  static constexpr std::size_t at_once = 64;
  B& backend = model.backend();
  auto const space = model.memory().template borrow<most_probable_space<B, T>>();
  auto& [logits, row_of, ids, shares, log_p, entropy] = *space;
  std::vector<int> out;
  for (std::size_t first = 0; first < rows.size(); first += at_once) {
    auto const some = rows.subspan(first, std::min(at_once, rows.size() - first));
    index_t const n = index_t(some.size());
    model.logits(pass, some, logits);
    std::vector<int> each(some.size());
    std::iota(each.begin(), each.end(), 0);
    row_of.resize(backend, {n});
    row_of.assign(each);
    shares.resize(backend, {n});
    shares.assign(std::vector<std::uint64_t>(some.size()));
    ids.resize(backend, {n});
    log_p.resize(backend, {n});
    entropy.resize(backend, {n});
    sample_tokens(backend, logits.cview(), row_of.cview(), shares.cview(), 1, sample_form{.greedy = true}, ids.view());
    score_tokens(backend, logits.cview(), row_of.cview(), ids.cview(), 1, log_p.view(), entropy.view());
    for (T const& x : log_p.to_host())
      expects<numeric_error>(std::isfinite(double(real_part(x))),
                             "the log-probability of the most probable token is {}", double(real_part(x)));
    auto const host = ids.to_host();
    out.insert(out.end(), host.begin(), host.end());
  }
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI::detail
