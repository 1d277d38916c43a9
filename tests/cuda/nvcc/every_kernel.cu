// Every kernel but those of attention, for all scalars and weights: what nvcc.py compiles and measures.
#include <atmanrl/cuda.hpp>

using namespace atmanrl;

namespace {

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
  view<T const, 2, device_space> const logits;
  sample_tokens(b, logits, ids, {}, 1, {}, {});
  score_tokens(b, logits, ids, ids, 1, row, row);
}

template <class W>
void use_weights_of(cuda_backend& b) {
  using T = compute_t<W>;
  view<T, 2, device_space> const rows;
  weight<cuda_backend, W> w(b, 1, 1);
  w.assign_rows(b, 0, rows);
  w.read_rows(b, 0, rows);
  embed(b, {}, w.view(), rows);
  matmul(b, rows, w.view(), rows);
  matmul_backward_input(b, rows, w.view(), rows);
}

}  // namespace

void use_every_kernel(cuda_backend& b) {
  use_kernels_of<float>(b);
  use_kernels_of<double>(b);
  use_weights_of<float>(b);
  use_weights_of<double>(b);
  use_weights_of<bf16>(b);
}
