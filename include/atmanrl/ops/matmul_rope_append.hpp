#pragma once

/// \file
/// The projection of queries, keys and values, their rotation, and keys and values into the cache: a product and the
/// pass of `rope_and_append`, which a backend may have as one.

#include <atmanrl/ops/matmul.hpp>
#include <atmanrl/ops/rope_append.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// `matmul`, then `rope_and_append`, to their bits. A backend with a kernel for both (kernels::rope's `of_product`,
/// which says of each call whether it took it) leaves keys and values in `qkv` unwritten.
/// \param x            (rows, inputs)
/// \param w            ((heads + 2 kv_heads) head_dim, inputs)
/// \param qkv          (rows, heads + 2 kv_heads, head_dim): afterwards rotated queries; keys and values are undefined
/// \param cache_rows   (rows), where each row goes
/// \param keys, values (cache rows, kv_heads, head_dim) of this layer
template <Backend B, class W, class Real, KeyValueStorage<compute_t<W>> K>
void matmul_rope_and_append(B& backend, attention_extents const& e, view_on<B, factor_t<B, W> const, 2> x,
                            weight_view<B, W> w, view_on<B, compute_t<W>, 3> qkv,
                            std::type_identity_t<view_on<B, int const, 1>> positions,
                            view<Real const, 2, typename B::memory_space> cosine,
                            std::type_identity_t<view_on<B, Real const, 2>> sine,
                            std::type_identity_t<view_on<B, int const, 1>> cache_rows,
                            view<K, 3, typename B::memory_space> keys, std::type_identity_t<view_on<B, K, 3>> values) {
  auto const flat = qkv.template reshaped<2>({qkv.extent(0), qkv.extent(1) * qkv.extent(2)});
  detail::expects_product(x, w, flat);
  if constexpr (requires {
                  kernels::rope<B>::of_product(backend, e, x, w, qkv, positions, cosine, sine, cache_rows, keys,
                                               values);
                }) {
    detail::expects_attention_extents(e, qkv, keys, values);
    detail::expects_rope_append(qkv, positions, cosine, sine, cache_rows);
    if (kernels::rope<B>::of_product(backend, e, x, w, qkv, positions, cosine, sine, cache_rows, keys, values)) return;
  }
  matmul(backend, x, w, flat);
  rope_and_append(backend, e, qkv, positions, cosine, sine, cache_rows, keys, values);
}

}  // namespace atmanrl::inline ATMANRL_ABI
