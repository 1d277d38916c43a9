// Every kernel but those of attention, for all scalars and weights: what nvcc.py compiles and measures.
#include <atmanrl/cuda.hpp>
#include <atmanrl/ops/matmul_gated.hpp>
#include <atmanrl/ops/matmul_rope_append.hpp>

using namespace atmanrl;

namespace {

struct product_of_gate {
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T gate, T up) const {
    return gate * up;
  }
};

template <class T>
void use_kernels_of(cuda_backend& b) {
  view<T, 1, device_space> const row;
  view<T, 2, device_space> const rows;
  view<int const, 1, device_space> const ids;
  view<T const, 2, device_space> const tables;
  rms_norm(b, rows, row, T(1), rows, row);
  rms_norm_recompute(b, rows, row, row, rows);
  rms_norm_backward(b, rows, row, row, rows, rows, row);
  swiglu(b, rows, rows);
  swiglu_backward(b, rows, rows, rows);
  gated(b, product_of_gate{}, rows, rows);
  gated_backward(b, product_of_gate{}, rows, rows, rows);
  rope(b, view<T, 3, device_space>(), 0, ids, tables, tables);
  gather_rows(b, rows, ids, rows);
  add_rows(b, rows, ids, rows);
  add_bias(b, row, rows);
  add_bias_backward(b, rows, row);
  add(b, row, row);
  sum_rows(b, rows, row);
  scale(b, row, T(1));
  copy_columns(b, rows, 0, rows, 0, 0);
  (void)sum_of_squares(b, row);
  matmul_backward_weight(b, rows, rows, rows);
  adamw_step(b, row, row, row, row, {}, 1);
  adamw_step(b, row, row, row, row, std::span<element_range const>(), {}, 1);
  sgd_step(b, row, row, {});
  sgd_step(b, row, row, row, {});
  lion_step(b, row, row, row, {});
  log_prob_scratch<cuda_backend, T> scratch;
  weight_view<cuda_backend, T> const head;
  log_prob(b, rows, head, ids, 1, scratch, row, row, row);
  log_prob_backward(b, rows, head, ids, 1, scratch, row, row, row, row, rows, rows);
  divergence(b, rows, ids, ids, row, rows, row, row);
  view<T const, 2, device_space> const logits;
  sample_tokens(b, logits, ids, {}, 1, {}, {});
  score_tokens(b, logits, ids, ids, 1, row, row);
  advance_rows(b, decoding_step<T, device_space>{});
}

template <class W>
void use_weights_of(cuda_backend& b) {
  using T = compute_t<W>;
  view<T, 2, device_space> const rows;
  weight<cuda_backend, W> w(b, 1, 1);
  w.assign_rows(b, 0, rows);
  w.read_rows(b, 0, rows);
  embed(b, {}, w.view(), rows);
  view<T, 3, device_space> const qkv;
  view<T const, 2, device_space> const tables;
  view<int const, 1, device_space> const ids;
  view<W, 3, device_space> const cache;
  rope_and_append(b, {}, qkv, ids, tables, tables, ids, cache, cache);
  matmul(b, rows, w.view(), rows);
  matmul_backward_input(b, rows, w.view(), rows);
}

/// What writes bf16 where products take it.
void use_factors(cuda_backend& b) {
  view<float, 1, device_space> const row;
  view<float, 2, device_space> const rows;
  view<float const, 3, device_space> const heads;
  view<float const, 2, device_space> const tables;
  view<int const, 1, device_space> const ids;
  view<bf16, 2, device_space> const factor;
  view<bf16 const, 2, device_space> const left;
  rms_norm(b, rows, row, 1.0f, factor, row, rows);
  rms_norm_recompute(b, rows, row, row, factor);
  rms_norm_backward(b, rows, row, row, rows, rows, row, factor);
  swiglu(b, rows, factor);
  swiglu_backward(b, rows, rows, factor);
  gated(b, product_of_gate{}, rows, factor);
  gated_backward(b, product_of_gate{}, rows, rows, factor);
  rope_into(b, heads, 0, ids, tables, tables, rotation::inverse, view<bf16, 3, device_space>());
  add_bias_backward(b, left, row);
  copy_columns<cuda_backend, bf16>(b, left, 0, factor, 0, 0);
  convert(b, view<float const, 1, device_space>(), view<bf16, 1, device_space>());
  matmul_backward_weight<cuda_backend, float>(b, left, left, rows);
  weight_view<cuda_backend, bf16> const head;
  matmul_into_factor(b, left, head, 1.0f, factor);
  matmul_and_swiglu(b, left, head, rows, factor);
  matmul_and_gated(b, product_of_gate{}, left, head, rows, factor);
  auto const into = [&]<class K>(view<K, 3, device_space> cache) {
    view<float, 3, device_space> const qkv;
    matmul_rope_and_append(b, {}, left, head, qkv, ids, tables, tables, ids, cache, cache);
  };
  into(view<float, 3, device_space>());
  into(view<bf16, 3, device_space>());
  log_prob_scratch<cuda_backend, float, bf16> scratch;
  log_prob(b, left, head, ids, 1, scratch, row, row, row);
  log_prob_backward(b, left, head, ids, 1, scratch, row, row, row, row, rows, rows);
  adamw_step_and_store(b, row, row, row, row, 1.0f, std::span<stored_range<float> const>(), {}, 1);
}

}  // namespace

void use_every_kernel(cuda_backend& b) {
  use_factors(b);
  use_kernels_of<float>(b);
  use_kernels_of<double>(b);
  use_weights_of<float>(b);
  use_weights_of<double>(b);
  use_weights_of<bf16>(b);
}
