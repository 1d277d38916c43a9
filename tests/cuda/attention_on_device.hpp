#pragma once
// Runs a tree_problem on the CUDA backend, and the plain loops in double over the very same cache as the oracle.
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/cuda/attention.cuh>
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/ops/mean_attention.hpp>

#include "attention/problem.hpp"
#include "catch.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

namespace atmanrl_test {

struct heads {
  index_t query, kv, dim;
};

using unedited = attention::none::params_type;

inline std::vector<node> three_levels() {
  return {{-1, 0, 37, 0}, {0, 0, 70, 1}, {0, 0, 33, 2}, {1, 0, 9, 3}, {1, 5, 20, 4}};
}
inline std::vector<node> several_roots() { return {{-1, 100, 1, 0}, {-1, 31, 40, 1}, {1, 70, 3, 2}}; }
/// A prompt in the cache, and rollouts that each add a few rows.
inline std::vector<node> decoding(int prompt, int most) {
  return {{-1, prompt, 0, 0}, {0, 3, 1, 1}, {0, 0, most, 2}, {0, 33, 1, 3}, {0, 7, 0, 4}, {0, 1, 1, 5}};
}
inline std::vector<node> two_rollouts() { return {{-1, 20, 17, 7}, {0, 0, 60, 0}, {0, 2, 45, 1}, {-1, 0, 9, 2}}; }

/// Everything that a forward and a backward pass leave behind, in double; T and K keep their bits in it.
struct attention_results {
  std::vector<double> keys, values, out, lse, dqkv;
  std::vector<double> dparameters;  ///< (kv_heads, parameters)
  std::vector<double> mean;         ///< (rows, longest) mean over heads of the probabilities
  std::vector<bf16> factor;         ///< (rows, heads, dim) the output as products with bf16 weights take it
  std::vector<double> out_beside;   ///< what was written beside it

  std::vector<double> all() const {
    std::vector<double> a;
    for (auto const* v : {&keys, &values, &out, &lse, &dqkv, &dparameters, &mean})
      a.insert(a.end(), v->begin(), v->end());
    return a;
  }
};

struct device_run {
  bool backward = true;
  bool mean = false;           ///< mean attention, too, which is slow here
  bool says_most_rows = true;  ///< whether the plan names the largest number of rows
  bool shares_out = true;      ///< whether the plan says how many sequences see the first of a tree
  bool wants_dparameters = true;
  bool as_factor = false;         ///< the output is written as a factor, too
  bool as_factor_alone = false;   ///< or as a factor alone
  double dparameters_before = 0;  ///< what the gradient of the parameters is added to
};

/// \tparam K  storage of keys and values
template <class T, class K = T, class Params>
attention_results on_device(cuda_backend& backend, tree_problem const& p, std::vector<double> const& x, Params params,
                            std::vector<double> const& parameters = {}, device_run const& run = {}) {
  auto const upload = [&]<class U, int Rank>(std::vector<U> const& from, std::array<index_t, Rank> shape) {
    tensor<cuda_backend, U, Rank> to(backend, shape);
    to.assign(std::span(from));
    return to;
  };
  auto const& e = p.extents;
  auto const qkv = upload.template operator()<T, 3>(converted<T>(x), p.qkv_shape());
  auto const sequences = upload.template operator()<attention_sequence, 1>(p.sequences, {index_t(p.sequences.size())});
  auto const segments = upload.template operator()<attention_segment, 1>(p.segments, {index_t(p.segments.size())});
  auto const trees = upload.template operator()<int, 1>(p.trees, {index_t(p.trees.size())});
  auto const cache_rows = upload.template operator()<int, 1>(p.cache_rows, {index_t(p.cache_rows.size())});
  int most_rows = 0;
  for (auto const& s : p.sequences) most_rows = std::max(most_rows, run.says_most_rows ? s.rows : 0);
  attention_plan<device_space> const plan{.sequences = sequences.cview(),
                                          .segments = segments.cview(),
                                          .trees = trees.cview(),
                                          .longest = p.longest,
                                          .most_rows = most_rows,
                                          .root_viewers = run.shares_out ? p.root_viewers() : 1,
                                          .longest_root = run.says_most_rows ? p.longest_root() : 0};

  auto const cache = [&](std::vector<double> cached) {
    cached.resize(std::size_t(p.cached_rows + p.rows) * std::size_t(e.kv_heads * e.head_dim));
    std::vector<K> stored;
    for (double const c : cached) stored.push_back(K(compute_t<K>(c)));
    return upload.template operator()<K, 3>(stored, p.cache_shape());
  };
  auto keys = cache(p.cached_keys), values = cache(p.cached_values);
  append_keys_and_values(backend, e, qkv.cview(), cache_rows.cview(), keys.view(), values.view());

  tensor<cuda_backend, T, 1> const edit =
      upload.template operator()<T, 1>(converted<T>(parameters), {index_t(parameters.size())});
  tensor<cuda_backend, T, 3> out(backend, p.out_shape());
  tensor<cuda_backend, T, 2> lse(backend, {p.rows, e.heads});
  attention_forward(backend, e, qkv.cview(), keys.cview(), values.cview(), plan, params, edit.data(), out.view(),
                    lse.view());

  auto const host = [](auto const& t) {
    std::vector<double> all;
    for (auto const v : t.to_host()) all.push_back(double(v));
    return all;
  };
  attention_results r;
  if constexpr (std::is_same_v<T, float>) {
    if (run.as_factor || run.as_factor_alone) {
      tensor<cuda_backend, bf16, 3> factor(backend, p.out_shape());
      tensor<cuda_backend, T, 3> beside(backend, run.as_factor ? p.out_shape() : std::array<index_t, 3>{});
      attention_forward(backend, e, qkv.cview(), keys.cview(), values.cview(), plan, params, edit.data(), beside.view(),
                        lse.view(), factor.view());
      r.factor = factor.to_host();
      r.out_beside = host(beside);
    }
  }
  if constexpr (!kernels::has_row_min<Params>) {
    if (run.mean) {
      tensor<cuda_backend, T, 2> mean(backend, {p.rows, p.longest});
      mean_attention(backend, e, qkv.cview(), keys.cview(), lse.cview(), plan, params, edit.data(), mean.view());
      r.mean = host(mean);
    }
    if (run.backward) {
      auto const dout = upload.template operator()<T, 3>(converted<T>(p.dout), p.out_shape());
      tensor<cuda_backend, T, 3> dqkv(backend, p.qkv_shape());
      index_t const count = run.wants_dparameters ? index_t(parameters.size()) : 0;
      tensor<cuda_backend, T, 2> dparameters(backend, {e.kv_heads, count});
      dparameters.assign(std::vector<T>(std::size_t(e.kv_heads * count), T(run.dparameters_before)));
      attention_backward(backend, e, qkv.cview(), keys.cview(), values.cview(), plan, params, edit.data(), out.cview(),
                         lse.cview(), dout.cview(), dqkv.view(), dparameters.view());
      r.dqkv = host(dqkv);
      r.dparameters = host(dparameters);
    }
  }
  r.keys = host(keys), r.values = host(values), r.out = host(out), r.lse = host(lse);
  return r;
}

/// Whether the output is written as a factor to the bits of its rounding, beside itself and alone.
template <class K = float, class Params>
void check_factors(cuda_backend& backend, tree_problem const& p, Params params) {
  device_run run{.backward = false, .as_factor = true};
  attention_results const beside = on_device<float, K>(backend, p, p.qkv, params, {}, run);
  std::vector<bf16> expected;
  for (double const x : beside.out) expected.push_back(bf16(float(x)));
  CHECK(beside.factor == expected);
  CHECK(beside.out_beside == beside.out);
  run = {.backward = false, .as_factor_alone = true};
  CHECK(on_device<float, K>(backend, p, p.qkv, params, {}, run).factor == expected);
}

/// The plain loops in double over the cache that `device` left after.
template <class Params>
attention_results in_plain_loops(tree_problem const& p, std::vector<double> const& x, Params params,
                                 attention_results const& device, std::vector<double> const& parameters = {},
                                 device_run const& run = {}) {
  reference_backend backend;
  auto const& e = p.extents;
  attention_results r;
  r.out.resize(p.dout.size());
  r.lse.resize(std::size_t(p.rows * e.heads));
  view<double const, 3> const in(x.data(), p.qkv_shape()), k(device.keys.data(), p.cache_shape()),
      v(device.values.data(), p.cache_shape());
  attention_forward(backend, e, in, k, v, p.plan(), params, parameters.data(),
                    view<double, 3>(r.out.data(), p.out_shape()), as(r.lse, {p.rows, e.heads}));
  if constexpr (!kernels::has_row_min<Params>) {
    if (run.mean) {
      r.mean.resize(std::size_t(p.rows * p.longest));
      mean_attention(backend, e, in, k, as(r.lse, {p.rows, e.heads}), p.plan(), params, parameters.data(),
                     as(r.mean, {p.rows, p.longest}));
    }
    r.dqkv.resize(x.size());
    index_t const count = index_t(parameters.size());
    r.dparameters.resize(std::size_t(e.kv_heads * count));
    attention_backward(backend, e, in, k, v, p.plan(), params, parameters.data(),
                       view<double const, 3>(r.out.data(), p.out_shape()), as(r.lse, {p.rows, e.heads}),
                       view<double const, 3>(p.dout.data(), p.out_shape()),
                       view<double, 3>(r.dqkv.data(), p.qkv_shape()), as(r.dparameters, {e.kv_heads, count}));
  }
  return r;
}

/// Outputs and gradients of a call in T with a cache of K against the plain loops.
/// \param params, oracle  the policy's params in the device's and in the host's memory
template <class T, class K = T, class Params, class Oracle>
void check_on_device(cuda_backend& backend, tree_problem const& p, Params params, Oracle oracle,
                     std::vector<double> const& parameters = {}, device_run const& run = {}) {
  // Factors of TF32 are off by 2^-11 of themselves.
  double const tolerance = sizeof(T) == 8 ? 1e-12 : backend.options().tf32 ? 2e-3 : 1e-5;
  std::vector<double> x;  // what T keeps of it
  for (double const v : p.qkv) x.push_back(double(T(v)));
  attention_results const got = on_device<T, K>(backend, p, x, params, parameters, run);
  attention_results const expected = in_plain_loops(p, x, oracle, got, parameters, run);
  CHECK(relative_difference(got.out, expected.out) < tolerance);
  CHECK(relative_difference(got.lse, expected.lse) < tolerance);
  if (run.mean) CHECK(relative_difference(got.mean, expected.mean) < tolerance);
  CHECK(relative_difference(got.dqkv, expected.dqkv) < tolerance);
  CHECK(relative_difference(got.dparameters, expected.dparameters) < tolerance);
}

}  // namespace atmanrl_test
