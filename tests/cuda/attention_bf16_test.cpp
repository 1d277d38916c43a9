// Attention of models with bf16 weights, whose factors are rounded: the plain loops over the same factors, rounded.
#include <atmanrl/attention/knockout.hpp>

#include "cuda/attention_on_device.hpp"
#include "cuda/attention_policies.hpp"
#include "cuda/device_like.hpp"
#include "cuda/thread_orders.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

double rounded(double x) { return double(float(bf16(float(x)))); }

tree_problem bf16_problem(std::vector<node> const& tree, heads const& h, int layer = 0) {
  tree_problem p(tree, h.query, h.kv, h.dim, layer);
  p.extents.bf16_weights = true;
  return p;
}

/// What the kernels make of a problem against the plain loops over rounded queries, keys, values and gradients of the
/// output: probabilities, scores and their gradients are not rounded, so the two are much closer than rounding is.
template <class K = float, class Params, class Oracle>
void check_rounded(cuda_backend& backend, tree_problem const& p, Params params, Oracle oracle,
                   std::vector<double> const& parameters = {}, device_run const& run = {}) {
  constexpr double tolerance = 3e-5;
  int most_rows = 0;
  for (auto const& s : p.sequences) most_rows = std::max(most_rows, s.rows);
  REQUIRE(most_rows * p.extents.group() > 8);  // few rows are not rounded
  attention_results const got = on_device<float, K>(backend, p, p.qkv, params, parameters, run);
  tree_problem of = p;
  std::vector<double> x;
  for (double const v : p.qkv) x.push_back(rounded(v));
  for (double& v : of.dout) v = rounded(v);
  attention_results cache = got;  // what the kernels read of it
  for (auto* const stored : {&cache.keys, &cache.values})
    for (double& v : *stored) v = rounded(v);
  attention_results const expected = in_plain_loops(of, x, oracle, cache, parameters, run);
  CHECK(relative_difference(got.out, expected.out) < tolerance);
  CHECK(relative_difference(got.lse, expected.lse) < tolerance);
  if (!run.backward) return;
  CHECK(relative_difference(got.dqkv, expected.dqkv) < tolerance);
  CHECK(relative_difference(got.dparameters, expected.dparameters) < tolerance);
}

std::vector<node> several_tiles() { return {{-1, 30, 70, 0}, {0, 0, 41, 1}, {0, 5, 33, 2}, {1, 0, 9, 3}}; }

device_run const forward_alone{.backward = false};

}  // namespace

TEST_CASE("cuda bf16 attention: outputs are those of rounded factors, for every head dimension and group") {
  cuda_backend device;
  for (heads const h : {heads{1, 1, 64}, heads{4, 2, 64}, heads{3, 1, 128}, heads{8, 1, 32}, heads{4, 1, 16}}) {
    CAPTURE(h.query, h.kv, h.dim);
    for (auto const& tree : {several_tiles(), decoding(130, 20), ragged_trees()}) {
      if (h.query == h.kv && tree.front().rows == 3) continue;  // too few rows
      auto const p = bf16_problem(tree, h);
      check_rounded(device, p, unedited{}, unedited{});
      check_rounded<bf16>(device, p, unedited{}, unedited{});
    }
  }
}
