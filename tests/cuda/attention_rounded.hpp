#pragma once
// Attention of models with bf16 weights, whose factors are rounded, against the plain loops over the same factors,
// rounded.
#include "cuda/attention_on_device.hpp"

namespace atmanrl_test {

inline double rounded_to_bf16(double x) { return double(float(bf16(float(x)))); }

inline tree_problem bf16_problem(std::vector<node> const& tree, heads const& h, int layer = 0) {
  tree_problem p(tree, h.query, h.kv, h.dim, layer);
  p.extents.bf16_weights = true;
  return p;
}

/// The plain loops over rounded queries, keys, values and gradients of the output.
/// \param got  of the device: what its cache holds
template <class Params>
attention_results in_rounded_loops(tree_problem const& p, Params params, attention_results const& got,
                                   std::vector<double> const& parameters = {}) {
  tree_problem of = p;
  std::vector<double> x;
  for (double const v : p.qkv) x.push_back(rounded_to_bf16(v));
  for (double& v : of.dout) v = rounded_to_bf16(v);
  attention_results cache = got;
  for (auto* const stored : {&cache.keys, &cache.values})
    for (double& v : *stored) v = rounded_to_bf16(v);
  return in_plain_loops(of, x, params, cache, parameters);
}

/// Probabilities, scores and their gradients are not rounded, so device and loops are much closer to each other than
/// rounding is to no rounding.
template <class K = float, class Params, class Oracle>
void check_rounded(cuda_backend& backend, tree_problem const& p, Params params, Oracle oracle,
                   std::vector<double> const& parameters = {}, device_run const& run = {}) {
  constexpr double tolerance = 3e-5;
  int most_rows = 0;
  for (auto const& s : p.sequences) most_rows = std::max(most_rows, s.rows);
  REQUIRE(most_rows * p.extents.group() > 8);  // few rows are not rounded
  attention_results const got = on_device<float, K>(backend, p, p.qkv, params, parameters, run);
  attention_results const expected = in_rounded_loops(p, oracle, got, parameters);
  CHECK(relative_difference(got.out, expected.out) < tolerance);
  CHECK(relative_difference(got.lse, expected.lse) < tolerance);
  CHECK(relative_difference(got.dqkv, expected.dqkv) < tolerance);
  CHECK(relative_difference(got.dparameters, expected.dparameters) < tolerance);
}

}  // namespace atmanrl_test
