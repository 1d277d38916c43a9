#pragma once

/// \file
/// Rotation of queries and keys, and the new rows' keys and values on their way into the cache: the two passes over
/// (rows, heads + 2 kv_heads, head_dim) between the projection and attention, which a backend may have as one.

#include <atmanrl/ops/attention.hpp>
#include <atmanrl/ops/rope.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
template <class Qkv, class Positions, class Tables, class Rows>
void expects_rope_append(Qkv const& qkv, Positions const& positions, Tables const& cosine, Tables const& sine,
                         Rows const& cache_rows) {
  expects<shape_error>(positions.extent(0) == qkv.extent(0) && cache_rows.extent(0) == qkv.extent(0) &&
                           cosine.extent(1) * 2 == qkv.extent(2) && sine.shape() == cosine.shape(),
                       "{} positions, {} cache rows and tables {} for qkv {}", positions.extent(0),
                       cache_rows.extent(0), cosine.shape(), qkv.shape());
}
}  // namespace detail

/// `rope` of queries and keys, then `append_keys_and_values`. A backend with a kernel for both (kernels::rope's
/// `and_append`) leaves keys and values in `qkv` as they are, since only queries are read there afterwards.
/// \param qkv          (rows, heads + 2 kv_heads, head_dim), queries rotated in place
/// \param cache_rows   (rows), where each row goes
/// \param keys, values (cache rows, kv_heads, head_dim) of this layer
template <Backend B, class T, class Real, KeyValueStorage<T> K>
void rope_and_append(B& backend, attention_extents const& e, view<T, 3, typename B::memory_space> qkv,
                     std::type_identity_t<view_on<B, int const, 1>> positions,
                     view<Real const, 2, typename B::memory_space> cosine,
                     std::type_identity_t<view_on<B, Real const, 2>> sine,
                     std::type_identity_t<view_on<B, int const, 1>> cache_rows,
                     view<K, 3, typename B::memory_space> keys, std::type_identity_t<view_on<B, K, 3>> values) {
  if constexpr (requires {
                  kernels::rope<B>::and_append(backend, e, qkv, positions, cosine, sine, cache_rows, keys, values);
                }) {
    detail::expects_attention_extents(e, qkv, keys, values);
    detail::expects_rope_append(qkv, positions, cosine, sine, cache_rows);
    kernels::rope<B>::and_append(backend, e, qkv, positions, cosine, sine, cache_rows, keys, values);
  } else {
    rope(backend, qkv, e.heads + e.kv_heads, positions, cosine, sine);
    append_keys_and_values(backend, e, qkv, cache_rows, keys, values);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI
