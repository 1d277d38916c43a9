#pragma once

/// \file
/// Rotary position embedding of some elements of a head, and where the heads of a row go on their way into the cache:
/// what the kernels of rope.cuh and of skinny_rope.cuh have in common.

#include <atmanrl/cuda/vector.cuh>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// The two halves of a head, `Width` elements of each.
template <class T, int Width>
struct halves {
  pack<T, Width> a, b;

  __device__ static halves load(T const* from, int half) {
    return {load_pack<Width>(from), load_pack<Width>(from + half)};
  }
  // (a, b) -> (a cos - b sin, b cos + a sin); the backward pass rotates the other way, sin -> -sin.
  template <class Real>
  __device__ __forceinline__ void rotate(Real const* cosine, Real const* sine, Real direction) {
    auto const c = load_pack<Width>(cosine), s = load_pack<Width>(sine);
    ATMANRL_UNROLL
    for (int k = 0; k < Width; ++k) {
      T const u = a.at[k], v = b.at[k], turn = s.at[k] * direction;
      a.at[k] = u * c.at[k] - v * turn;
      b.at[k] = v * c.at[k] + u * turn;
    }
  }
  template <class To>
  __device__ __forceinline__ void store(To* to, int half) const {
    store_as(to, a);
    store_as(to + half, b);
  }
};

/// Where the heads of one row go: queries stay where the projection has its place, rotated; keys are rotated on their
/// way into the cache; values go there as they are.
template <class T, class Real, class K>
struct row_into_cache {
  T* qkv;                     ///< (heads + 2 kv_heads, 2 half) of the row, of which queries are written
  K *keys, *values;           ///< (kv_heads, 2 half), the row's place in the cache
  Real const *cosine, *sine;  ///< (half) at the row's position
  int heads, kv_heads, half;

  /// \param qkv           (rows, heads + 2 kv_heads, 2 half)
  /// \param cosine, sine  (positions, half)
  /// \param keys, values  (cache rows, kv_heads, 2 half)
  __device__ __forceinline__ static row_into_cache of(index_t row, T* qkv, int heads, int kv_heads, int half,
                                                      int position, Real const* cosine, Real const* sine, int cache_row,
                                                      K* keys, K* values) {
    index_t const angles = index_t(position) * half, cached = index_t(cache_row) * kv_heads * 2 * half;
    return {qkv + row * (heads + 2 * kv_heads) * 2 * half,
            keys + cached,
            values + cached,
            cosine + angles,
            sine + angles,
            heads,
            kv_heads,
            half};
  }

  /// \param head  of queries, keys and values, in this order
  /// \param both  elements i and up of both halves of it
  template <int Width>
  __device__ __forceinline__ void take(int head, int i, halves<T, Width> both) const {
    if (head < heads + kv_heads) both.rotate(cosine + i, sine + i, Real(1));
    if (head < heads)
      both.store(qkv + index_t(head) * 2 * half + i, half);
    else if (head < heads + kv_heads)
      both.store(keys + index_t(head - heads) * 2 * half + i, half);
    else
      both.store(values + index_t(head - heads - kv_heads) * 2 * half + i, half);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
