#pragma once

/// \file
/// Accesses of 16 bytes. Kernels are templates over the elements per access, `Width`: whole vectors where row length
/// and addresses allow it, single elements otherwise; the host chooses with `widest`.

#include <atmanrl/core/view.hpp>
#include <atmanrl/cuda/compat.cuh>

#include <bit>
#include <cstdint>
#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// `N` neighbouring elements in registers.
template <class T, int N>
struct alignas(sizeof(T) * N) pack {
  T at[N];
};

namespace detail {
template <std::size_t Bytes>
struct carrier_of;
template <>
struct carrier_of<2> {
  using type = std::uint16_t;
};
template <>
struct carrier_of<4> {
  using type = std::uint32_t;
};
template <>
struct carrier_of<8> {
  using type = bits_of_8_bytes;
};
template <>
struct carrier_of<16> {
  using type = bits_of_16_bytes;
};
}  // namespace detail

/// Reads N elements in one access; `p` must be aligned to their size.
template <int N, class T>
__device__ __forceinline__ pack<T, N> load_pack(T const* p) {
  using carrier = typename detail::carrier_of<sizeof(T) * N>::type;
  return std::bit_cast<pack<T, N>>(*reinterpret_cast<carrier const*>(p));
}

/// The same of what is read once, as weights are: it takes no place in the L1 cache from what is read again.
template <int N, class T>
__device__ __forceinline__ pack<T, N> load_pack_once(T const* p) {
  using carrier = typename detail::carrier_of<sizeof(T) * N>::type;
  return std::bit_cast<pack<T, N>>(__ldcg(reinterpret_cast<carrier const*>(p)));
}

/// Writes N elements in one access; `p` must be aligned to their size.
template <int N, class T>
__device__ __forceinline__ void store_pack(T* p, pack<T, N> const& values) {
  using carrier = typename detail::carrier_of<sizeof(T) * N>::type;
  *reinterpret_cast<carrier*>(p) = std::bit_cast<carrier>(values);
}

/// Writes them in another precision, rounded to nearest even.
template <class To, int N, class T>
__device__ __forceinline__ void store_as(To* p, pack<T, N> const& values) {
  if constexpr (std::is_same_v<To, T>) {
    store_pack(p, values);
  } else {
    pack<To, N> converted;
    ATMANRL_UNROLL
    for (int i = 0; i < N; ++i) converted.at[i] = To(values.at[i]);
    store_pack(p, converted);
  }
}

/// Elements of T in 16 bytes.
template <class T>
inline constexpr int vector_width = 16 / int(sizeof(T));

/// True when rows of `length` elements at these addresses can be read in packs of `width`.
template <class... T>
bool divisible(int width, index_t length, T const*... rows) {
  return length % width == 0 &&
         ((reinterpret_cast<std::uintptr_t>(rows) % (sizeof(T) * std::size_t(width)) == 0) && ...);
}

/// Calls f(std::integral_constant<int, width>) with vector_width<T> where `whole`, else with 1.
template <class T, class F>
void widest(bool whole, F const& f) {
  if (whole)
    f(std::integral_constant<int, vector_width<T>>{});
  else
    f(std::integral_constant<int, 1>{});
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
