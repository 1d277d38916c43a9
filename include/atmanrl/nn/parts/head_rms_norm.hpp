#pragma once

/// \file
/// Queries and keys normed head by head, with one gain for all heads of each  (QK norm; Henry et al. 2020,
/// arXiv:2010.04245; as Qwen3 has it, arXiv:2505.09388): a part of a block's `qk`.

#include <atmanrl/nn/parts/part.hpp>
#include <atmanrl/ops/rms_norm.hpp>

namespace atmanrl::inline ATMANRL_ABI::nn {

/// y = g x / rms(x) over the head_dim components of every head.
struct head_rms_norm {
  template <Backend B, class T>
  struct saved {
    tensor<B, T, 2> q, k;                  // (rows, heads * head_dim), (rows, kv_heads * head_dim), as projected
    tensor<B, T, 1> q_inv_rms, k_inv_rms;  // (rows * heads), (rows * kv_heads)
  };
  static index_t saved_numbers(model_config const& c) { return (c.heads + c.kv_heads) * (c.head_dim + 1); }
  static void parameters(model_config const& c, index_t, parameter_list& list) {
    list.gain("self_attn.q_norm.weight", "attn_q_norm.weight", c.head_dim);
    list.gain("self_attn.k_norm.weight", "attn_k_norm.weight", c.head_dim);
  }

  template <Backend B, class T>
  static void forward(part_call<B, T> const& c, view_on<B, T, 3> qkv, saved<B, T>& s) {
    norm<B, T>(c, qkv, 0, c.config.heads, 0, s.q, s.q_inv_rms);
    norm<B, T>(c, qkv, c.config.heads, c.config.kv_heads, 1, s.k, s.k_inv_rms);
  }
  template <Backend B, class T>
  static void backward(part_call<B, T> const& c, view_on<B, T, 3> dqkv, saved<B, T> const& s) {
    norm_backward<B, T>(c, dqkv, 0, c.config.heads, 0, s.q, s.q_inv_rms);
    norm_backward<B, T>(c, dqkv, c.config.heads, c.config.kv_heads, 1, s.k, s.k_inv_rms);
  }

 private:
  // Heads [first, first + heads) as columns of the rows, and as rows of their own.
  template <Backend B, class T>
  static view_on<B, T, 2> columns(view_on<B, T, 3> x) {
    return x.template reshaped<2>({x.extent(0), x.extent(1) * x.extent(2)});
  }
  template <Backend B, class T>
  static view_on<B, T, 2> by_head(part_call<B, T> const& c, view_on<B, T, 2> x) {
    return x.template reshaped<2>({x.size() / c.config.head_dim, c.config.head_dim});
  }

  template <Backend B, class T>
  static void norm(part_call<B, T> const& c, view_on<B, T, 3> qkv, index_t first, index_t heads, std::size_t gain,
                   tensor<B, T, 2>& x, tensor<B, T, 1>& inv_rms) {
    index_t const rows = qkv.extent(0), width = heads * c.config.head_dim;
    x.resize(c.backend(), {rows, width});
    inv_rms.resize(c.backend(), {rows * heads});
    c.scratch.resize(c.backend(), {rows, width});
    copy_columns<B, T>(c.backend(), columns<B, T>(qkv), first * c.config.head_dim, x.view(), 0, width);
    atmanrl::rms_norm<B, T>(c.backend(), by_head(c, x.view()), c.gain(gain), real_t<T>(c.config.rms_eps),
                            by_head(c, c.scratch.view()), inv_rms.view());
    copy_columns<B, T>(c.backend(), c.scratch.cview(), 0, columns<B, T>(qkv), first * c.config.head_dim, width);
  }

  template <Backend B, class T>
  static void norm_backward(part_call<B, T> const& c, view_on<B, T, 3> dqkv, index_t first, index_t heads,
                            std::size_t gain, tensor<B, T, 2> const& x, tensor<B, T, 1> const& inv_rms) {
    index_t const rows = dqkv.extent(0), width = heads * c.config.head_dim;
    // The gradient after the norm in the upper half, the one before it, which is added to, in the lower.
    c.scratch.resize(c.backend(), {2 * rows, width});
    auto const dy = c.scratch.view().rows(0, rows), dx = c.scratch.view().rows(rows, rows);
    copy_columns<B, T>(c.backend(), columns<B, T>(dqkv), first * c.config.head_dim, dy, 0, width);
    c.backend().fill_zero(dx.data(), std::size_t(dx.size()) * sizeof(T));
    rms_norm_backward<B, T>(c.backend(), x.cview().template reshaped<2>({rows * heads, c.config.head_dim}),
                            c.gain(gain), inv_rms.cview(), by_head(c, dy), by_head(c, dx), c.gain_gradient(gain));
    copy_columns<B, T>(c.backend(), dx, 0, columns<B, T>(dqkv), first * c.config.head_dim, width);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::nn
