#pragma once

/// \file
/// A backend that computes nothing and counts: operations and bytes of every kernel call. The library's own code walks
/// a model of billions of parameters over it in seconds, so what is counted is what a GPU would be asked to do, call by
/// call. This header alone makes `counting_backend` complete, and it names every kernel.
///
/// What is counted, kernel by kernel:
/// - operations: additions, multiplications, comparisons, divisions, exponentials and roots, each as one;
/// - bytes: every operand once per call and every result once, a result that is added to twice. Keys and values that
///   several sequences of a call share count once. It is the least that a kernel without a cache can move.

#include <atmanrl/counting/attention.hpp>
#include <atmanrl/counting/optimizers.hpp>
#include <atmanrl/counting/runtime.hpp>
#include <atmanrl/ops/divergence.hpp>
#include <atmanrl/ops/elementwise.hpp>
#include <atmanrl/ops/embedding.hpp>
#include <atmanrl/ops/gated.hpp>
#include <atmanrl/ops/log_prob.hpp>
#include <atmanrl/ops/matmul.hpp>
#include <atmanrl/ops/rms_norm.hpp>
#include <atmanrl/ops/rope.hpp>
#include <atmanrl/ops/sample.hpp>
#include <atmanrl/ops/swiglu.hpp>

#include <concepts>
#include <span>

namespace atmanrl::inline ATMANRL_ABI::kernels {

namespace counting {

/// Of products of few rows, as cuda/skinny.cuh takes them: at most so many rows, inputs a multiple of so many.
inline constexpr index_t most_skinny_rows = 16, skinny_inputs = 8;
/// Whether a GPU that is asked for products of few rows has such a product in a kernel with what follows it.
template <class W>
bool is_skinny_product(backend const& b, on<W const, 2> x) {
  return b.skinny_products() && std::same_as<W, bf16> && x.extent(0) <= most_skinny_rows &&
         x.extent(1) % skinny_inputs == 0;
}
/// Counts one with its activation, of `operations` for a number: the product is neither written nor read.
template <class W>
bool gated_product(backend& b, char const* kernel, double operations, on<W const, 2> x, weight_view<backend, W> w,
                   on<W, 2> y) {
  if (!is_skinny_product<W>(b, x)) return false;
  b.count(kernel, work_kind::products, 2.0 * double(x.size()) * double(w.outputs) + operations * double(y.size()),
          bytes(x) + double(w.outputs * w.inputs) * sizeof(W) + bytes(y));
  return true;
}

}  // namespace counting

template <>
struct matmul<counting::backend> {
  static constexpr index_t output_granularity = 1;
  static constexpr bool is_row_major = true;
  template <class W>
  struct factor {
    using type = W;
  };

  template <class W>
  static constexpr index_t storage_size(index_t outputs, index_t inputs) {
    return outputs * inputs;
  }
  template <class W, class T>
  static void assign_rows(counting::backend& b, weight_view<counting::backend, W>, index_t,
                          counting::on<T const, 2> rows) {
    b.count("assign_rows", work_kind::rest, 0, double(rows.size()) * (sizeof(T) + sizeof(W)));
  }
  template <class W, class T>
  static void read_rows(counting::backend& b, weight_view<counting::backend, W>, index_t, counting::on<T, 2> rows) {
    b.count("read_rows", work_kind::rest, 0, double(rows.size()) * (sizeof(T) + sizeof(W)));
  }
  template <class X, class W, class T>
  static void forward(counting::backend& b, counting::on<X const, 2> x, weight_view<counting::backend, W> w,
                      counting::on<T, 2> y, bool add) {
    b.count("matmul", work_kind::products, 2.0 * double(x.size()) * double(w.outputs),
            counting::bytes(x) + double(w.outputs * w.inputs) * sizeof(W) + (add ? 2 : 1) * counting::bytes(y));
  }
  template <class X, class W, class T>
  static void backward_input(counting::backend& b, counting::on<X const, 2> dy, weight_view<counting::backend, W> w,
                             counting::on<T, 2> dx, bool add) {
    b.count("matmul_backward_input", work_kind::products, 2.0 * double(dx.size()) * double(w.outputs),
            counting::bytes(dy) + double(w.outputs * w.inputs) * sizeof(W) + (add ? 2 : 1) * counting::bytes(dx));
  }
  template <class W, class S>
  static void forward_into_factor(counting::backend& b, counting::on<W const, 2> x, weight_view<counting::backend, W> w,
                                  S, counting::on<W, 2> y) {
    forward(b, x, w, y, false);
  }
  template <class W, class S>
  static void backward_input_into_factor(counting::backend& b, counting::on<W const, 2> dy,
                                         weight_view<counting::backend, W> w, S, counting::on<W, 2> dx) {
    backward_input(b, dy, w, dx, false);
  }
  template <class X, class T>
  static void backward_weight(counting::backend& b, counting::on<X const, 2> dy, counting::on<X const, 2> x,
                              counting::on<T, 2> dw) {
    b.count("matmul_backward_weight", work_kind::weight_gradients, 2.0 * double(x.size()) * double(dw.extent(0)),
            counting::bytes(dy) + counting::bytes(x) + 2 * counting::bytes(dw));
  }
};

template <>
struct embedding<counting::backend> {
  template <class W, class T>
  static void forward(counting::backend& b, counting::on<int const, 1> ids, weight_view<counting::backend, W>,
                      counting::on<T, 2> y) {
    b.count("embed", work_kind::rest, 0, counting::bytes(ids) + double(y.size()) * (sizeof(W) + sizeof(T)));
  }
  template <class T>
  static void gather_rows(counting::backend& b, counting::on<T const, 2>, counting::on<int const, 1> rows,
                          counting::on<T, 2> y) {
    b.count("gather_rows", work_kind::rest, 0, counting::bytes(rows) + 2 * counting::bytes(y));
  }
  template <class T>
  static void add_rows(counting::backend& b, counting::on<T const, 2> dy, counting::on<int const, 1> rows,
                       counting::on<T, 2>) {
    b.count("add_rows", work_kind::rest, double(dy.size()), counting::bytes(rows) + 3 * counting::bytes(dy));
  }
};

template <>
struct rms_norm<counting::backend> {
  template <class T, class Y>
  static void forward(counting::backend& b, counting::on<T const, 2> x, counting::on<T const, 1> gain, T,
                      counting::on<Y, 2> y, counting::on<T, 1> inv_rms, counting::on<T, 2> copy = {}) {
    b.count("rms_norm", work_kind::rest, 4.0 * double(x.size()),
            counting::bytes(x) + counting::bytes(gain) + counting::bytes(y) + counting::bytes(inv_rms) +
                counting::bytes(copy));
  }
  template <class T, class Y>
  static void recompute(counting::backend& b, counting::on<T const, 2> x, counting::on<T const, 1> gain,
                        counting::on<T const, 1> inv_rms, counting::on<Y, 2> y) {
    b.count("rms_norm_recompute", work_kind::rest, 2.0 * double(x.size()),
            counting::bytes(x) + counting::bytes(gain) + counting::bytes(y) + counting::bytes(inv_rms));
  }
  template <class T, class F = T>
  static void backward(counting::backend& b, counting::on<T const, 2> x, counting::on<T const, 1> gain,
                       counting::on<T const, 1> inv_rms, counting::on<T const, 2> dy, counting::on<T, 2> dx,
                       counting::on<T, 1> dgain, counting::on<F, 2> factor = {}) {
    b.count("rms_norm_backward", work_kind::rest, (dgain.empty() ? 9.0 : 12.0) * double(x.size()),
            counting::bytes(x) + counting::bytes(gain) + counting::bytes(inv_rms) + counting::bytes(dy) +
                2 * counting::bytes(dx) + 2 * counting::bytes(dgain) + counting::bytes(factor));
  }
};

template <>
struct rope<counting::backend> {
  template <class T, class Real>
  static void apply(counting::backend& b, counting::on<T, 3> x, index_t heads, counting::on<int const, 1> positions,
                    counting::on<Real const, 2> cosine, counting::on<Real const, 2>, bool) {
    double const turned = double(x.extent(0) * heads * x.extent(2));
    b.count("rope", work_kind::rest, 3 * turned,
            2 * turned * sizeof(T) + counting::bytes(positions) + tables(x, cosine));
  }
  template <class T, class Real, class F>
  static void into(counting::backend& b, counting::on<T const, 3> x, index_t heads,
                   counting::on<int const, 1> positions, counting::on<Real const, 2> cosine,
                   counting::on<Real const, 2>, bool, counting::on<F, 3> y) {
    double const turned = double(x.extent(0) * heads * x.extent(2));
    b.count(
        "rope_into", work_kind::rest, 3 * turned,
        counting::bytes(x) + counting::bytes(y) + (heads > 0 ? counting::bytes(positions) + tables(x, cosine) : 0.0));
  }
  template <class T, class Real, class K>
  static void and_append(counting::backend& b, attention_extents const& e, counting::on<T, 3> qkv,
                         counting::on<int const, 1> positions, counting::on<Real const, 2> cosine,
                         counting::on<Real const, 2>, counting::on<int const, 1> cache_rows, counting::on<K, 3>,
                         counting::on<K, 3>) {
    double const row_heads = double(qkv.extent(0) * e.head_dim), queries = row_heads * double(e.heads),
                 keys = row_heads * double(e.kv_heads);
    b.count("rope_append", work_kind::rest, 3 * (queries + keys),
            sizeof(T) * (2 * queries + 2 * keys) + sizeof(K) * 2 * keys + counting::bytes(positions) +
                counting::bytes(cache_rows) + tables(qkv, cosine));
  }
  template <class W, class T, class Real, class K>
  static bool of_product(counting::backend& b, attention_extents const& e, counting::on<W const, 2> x,
                         weight_view<counting::backend, W> w, counting::on<T, 3> qkv,
                         counting::on<int const, 1> positions, counting::on<Real const, 2> cosine,
                         counting::on<Real const, 2>, counting::on<int const, 1> cache_rows, counting::on<K, 3>,
                         counting::on<K, 3>) {
    if (!counting::is_skinny_product<W>(b, x) || e.head_dim % 16 != 0) return false;
    double const row_heads = double(qkv.extent(0) * e.head_dim), queries = row_heads * double(e.heads),
                 keys = row_heads * double(e.kv_heads);
    b.count("matmul_and_rope_append", work_kind::products,
            2.0 * double(x.size()) * double(w.outputs) + 3 * (queries + keys),
            counting::bytes(x) + double(w.outputs * w.inputs) * sizeof(W) + sizeof(T) * queries + sizeof(K) * 2 * keys +
                counting::bytes(positions) + counting::bytes(cache_rows) + tables(qkv, cosine));
    return true;
  }

 private:
  template <class X, class Table>
  static double tables(X const& x, Table const& cosine) {
    return 2.0 * double(x.extent(0) * cosine.extent(1)) * sizeof(typename Table::value_type);
  }
};

template <>
struct swiglu<counting::backend> {
  template <class T, class Y>
  static void forward(counting::backend& b, counting::on<T const, 2> gate_up, counting::on<Y, 2> y) {
    b.count("swiglu", work_kind::rest, 5.0 * double(y.size()), counting::bytes(gate_up) + counting::bytes(y));
  }
  template <class W>
  static bool of_product(counting::backend& b, counting::on<W const, 2> x, weight_view<counting::backend, W> w,
                         counting::on<W, 2> y) {
    return counting::gated_product(b, "matmul_and_swiglu", 5, x, w, y);
  }
  template <class T, class Y>
  static void backward(counting::backend& b, counting::on<T const, 2> gate_up, counting::on<T const, 2> dy,
                       counting::on<Y, 2> dgate_up) {
    b.count("swiglu_backward", work_kind::rest, 12.0 * double(dy.size()),
            counting::bytes(gate_up) + counting::bytes(dy) + counting::bytes(dgate_up));
  }
};

/// Backwards f is called twice with dual numbers, each of whose operations is three.
template <>
struct gated<counting::backend> {
  template <class T, class F, class Y>
  static void forward(counting::backend& b, F, counting::on<T const, 2> gate_up, counting::on<Y, 2> y) {
    b.count("gated", work_kind::rest, double(F::operations) * double(y.size()),
            counting::bytes(gate_up) + counting::bytes(y));
  }
  template <class F, class W>
  static bool of_product(counting::backend& b, F, counting::on<W const, 2> x, weight_view<counting::backend, W> w,
                         counting::on<W, 2> y) {
    return counting::gated_product(b, "matmul_and_gated", F::operations, x, w, y);
  }
  template <class T, class F, class Y>
  static void backward(counting::backend& b, F, counting::on<T const, 2> gate_up, counting::on<T const, 2> dy,
                       counting::on<Y, 2> dgate_up) {
    b.count("gated_backward", work_kind::rest, (6.0 * double(F::operations) + 2) * double(dy.size()),
            counting::bytes(gate_up) + counting::bytes(dy) + counting::bytes(dgate_up));
  }
};

template <>
struct log_prob<counting::backend> {
  static constexpr logit_blocks blocks = device_logit_blocks;
  template <class T>
  static void start(counting::backend& b, counting::on<softmax_state<T>, 1> states) {
    b.count("log_prob_start", work_kind::rest, 0, counting::bytes(states));
  }
  template <class T>
  static void accumulate(counting::backend& b, counting::on<T const, 2> logits, T, index_t,
                         counting::on<int const, 1> targets, counting::on<softmax_state<T>, 1> states) {
    b.count("log_prob_accumulate", work_kind::rest, 7.0 * double(logits.size()),
            counting::bytes(logits) + counting::bytes(targets) + 2 * counting::bytes(states));
  }
  template <class T>
  static void finish(counting::backend& b, counting::on<softmax_state<T> const, 1> states, counting::on<T, 1> log_p,
                     counting::on<T, 1> lse, counting::on<T, 1> entropy) {
    b.count("log_prob_finish", work_kind::rest, 5.0 * double(log_p.size()),
            counting::bytes(states) + counting::bytes(log_p) + counting::bytes(lse) + counting::bytes(entropy));
  }
  template <class T>
  static void backward(counting::backend& b, counting::on<T, 2> logits, T inv_temperature, index_t first_id,
                       counting::on<int const, 1> targets, counting::on<T const, 1> lse,
                       counting::on<T const, 1> dlog_p, counting::on<T const, 1> entropy,
                       counting::on<T const, 1> dentropy) {
    backward(b, logits, inv_temperature, first_id, targets, lse, dlog_p, entropy, dentropy, logits);
  }
  template <class T, class F>
  static void backward(counting::backend& b, counting::on<T, 2> logits, T, index_t, counting::on<int const, 1> targets,
                       counting::on<T const, 1> lse, counting::on<T const, 1> dlog_p, counting::on<T const, 1> entropy,
                       counting::on<T const, 1> dentropy, counting::on<F, 2> dlogits) {
    b.count("log_prob_backward", work_kind::rest, (dentropy.empty() ? 5.0 : 9.0) * double(logits.size()),
            counting::bytes(logits) + counting::bytes(dlogits) + counting::bytes(targets) + counting::bytes(lse) +
                counting::bytes(dlog_p) +
                (dentropy.empty() ? 0 : counting::bytes(entropy) + counting::bytes(dentropy)));
  }
};

template <>
struct divergence<counting::backend> {
  template <class T>
  static void turn(counting::backend& b, counting::on<T const, 2>, counting::on<int const, 1> z0_rows,
                   counting::on<int const, 1> targets, counting::on<T const, 1> weights, counting::on<T, 2> z,
                   counting::on<T, 1> kl, counting::on<T, 1> log_p) {
    b.count("divergence", work_kind::rest, 17.0 * double(z.size()),
            3 * counting::bytes(z) + counting::bytes(z0_rows) + counting::bytes(targets) + counting::bytes(weights) +
                counting::bytes(kl) + counting::bytes(log_p));
  }
};

template <>
struct sample<counting::backend> {
  template <class T>
  static void draw(counting::backend& b, counting::on<T const, 2> logits, counting::on<int const, 1> rows,
                   counting::on<std::uint64_t const, 1> shares, double, sample_form const&, counting::on<int, 1> ids) {
    double const seen = double(ids.size() * logits.extent(1));
    b.count("sample", work_kind::rest, 5 * seen,
            sizeof(T) * seen + counting::bytes(rows) + counting::bytes(shares) + counting::bytes(ids));
  }
  template <class T>
  static void score(counting::backend& b, counting::on<T const, 2> logits, counting::on<int const, 1> rows,
                    counting::on<int const, 1> ids, double, counting::on<T, 1> log_p, counting::on<T, 1> entropy) {
    double const seen = double(ids.size() * logits.extent(1));
    b.count("score", work_kind::rest, 7 * seen,
            sizeof(T) * seen + counting::bytes(rows) + counting::bytes(ids) + counting::bytes(log_p) +
                counting::bytes(entropy));
  }
};

template <>
struct elementwise<counting::backend> {
  template <class T>
  static void add_bias(counting::backend& b, counting::on<T const, 1> bias, counting::on<T, 2> y) {
    b.count("add_bias", work_kind::rest, double(y.size()), counting::bytes(bias) + 2 * counting::bytes(y));
  }
  template <class X, class T>
  static void add_bias_backward(counting::backend& b, counting::on<X const, 2> dy, counting::on<T, 1> dbias) {
    b.count("add_bias_backward", work_kind::rest, double(dy.size()), counting::bytes(dy) + 2 * counting::bytes(dbias));
  }
  template <class T>
  static void add(counting::backend& b, counting::on<T const, 1> x, counting::on<T, 1> y) {
    b.count("add", work_kind::rest, double(y.size()), counting::bytes(x) + 2 * counting::bytes(y));
  }
  template <class T>
  static void sum_rows(counting::backend& b, counting::on<T const, 2> x, counting::on<T, 1> sum) {
    b.count("sum_rows", work_kind::rest, double(x.size()), counting::bytes(x) + counting::bytes(sum));
  }
  template <class T>
  static void scale(counting::backend& b, counting::on<T, 1> x, T) {
    b.count("scale", work_kind::rest, double(x.size()), 2 * counting::bytes(x));
  }
  template <class From, class To>
  static void convert(counting::backend& b, counting::on<From const, 1> from, counting::on<To, 1> to) {
    b.count("convert", work_kind::rest, 0, counting::bytes(from) + counting::bytes(to));
  }
  template <class T>
  static void copy_columns(counting::backend& b, counting::on<T const, 2> from, index_t, counting::on<T, 2>, index_t,
                           index_t count) {
    b.count("copy_columns", work_kind::rest, 0, 2.0 * double(from.extent(0) * count) * sizeof(T));
  }
  template <class T>
  static void sums_of_squares(counting::backend& b, counting::on<T const, 1> x, std::span<double> sums) {
    b.count("sums_of_squares", work_kind::rest, 2.0 * double(x.size()), counting::bytes(x));
    for (double& s : sums) s = 4.0 / double(sums.size());  // a norm of 2, so that clipping to 1 scales
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::kernels
