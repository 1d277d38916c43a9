#pragma once
// The matrix units, as nvcuda::wmma of nvcc's mma.h: products of 16 x 8 by 8 x 16 matrices of TF32 numbers that a warp
// computes together. Lanes own the elements that they own on hardware, and reach memory for those themselves, so that
// bank conflicts, races and poison are seen as for any other access.
#include "collectives.hpp"

namespace cuda_emulation {

/// What works on registers only: the tracer would be called for every element, to find that it is not memory.
#define ATMANRL_EMULATED_UNTRACED __attribute__((noinline, no_sanitize_thread))

/// The part of a matrix that a lane holds. All bits set, as in shared memory, until it is filled or loaded.
template <int N>
struct alignas(8) fragment_elements {
  static constexpr int num_elements = N;
  fragment_elements() { std::memset(x, 0xff, sizeof x); }
  float x[N];
};

/// Where element i of a lane's part lies in its matrix.
struct matrix_element {
  unsigned row, column;
};
__forceinline__ constexpr matrix_element element_of_a(unsigned lane, unsigned i) {
  return {lane / 4 + i % 2 * 8, lane % 4 + i / 2 * 4};
}
__forceinline__ constexpr matrix_element element_of_b(unsigned lane, unsigned i) {
  return {lane % 4 + i % 2 * 4, lane / 4 + i / 2 * 8};
}
__forceinline__ constexpr matrix_element element_of_accumulator(unsigned lane, unsigned i) {
  return {lane / 4 + i / 2 % 2 * 8, lane % 4 * 2 + i % 2 + i / 4 * 8};
}

/// The elements that a lane passes to the product, and where it wants its results: in the lane's registers.
struct lanes_product {
  float const *a, *b, *c;
  float* d;
};

namespace detail {

inline void require_whole_warp(char const* call, location place) {
  auto const& s = state();
  if ((s.running->linear | 31u) >= s.threads.size())
    abandon_collective(call, place,
                       "the warp is not whole: the block has " + std::to_string(s.threads.size()) + " threads");
}

/// An element that nobody wrote has all bits set. The units ignore the last 13 bits of a factor's mantissa, so a factor
/// that has some there was forgotten to be rounded.
template <int N>
ATMANRL_EMULATED_UNTRACED void require_sound(char const* call, location place, char const* matrix, float const* x,
                                             bool factor) {
  std::uint32_t bits[N];
  std::memcpy(bits, x, sizeof bits);
  for (int i = 0; i < N; ++i) {
    if (bits[i] == ~0u)
      abandon_collective(call, place,
                         "x[" + std::to_string(i) + "] of " + matrix +
                             " was neither filled nor loaded, or loaded from memory that nobody wrote");
    if (factor && (bits[i] & 0x1fffu))
      abandon_collective(call, place, "x[" + std::to_string(i) + "] of " + matrix + " is not a TF32 number");
  }
}

/// The product for all lanes. Sums are added up in float from c on, in ascending order of k; hardware promises neither
/// an order nor how it rounds in between. The product of two TF32 numbers is exact in float.
ATMANRL_EMULATED_UNTRACED inline void multiply(emulated_thread const* lanes) {
  using row = float __attribute__((vector_size(64)));
  float a[16][8];
  row b[8], sum[16];
  lanes_product const* of[32];
  for (unsigned lane = 0; lane < 32; ++lane) {
    of[lane] = reinterpret_cast<lanes_product const*>(lanes[lane].given);
    for (unsigned i = 0; i < 4; ++i) {
      auto const in_a = element_of_a(lane, i), in_b = element_of_b(lane, i);
      a[in_a.row][in_a.column] = of[lane]->a[i];
      b[in_b.row][in_b.column] = of[lane]->b[i];
    }
    for (unsigned i = 0; i < 8; ++i) {
      auto const at = element_of_accumulator(lane, i);
      sum[at.row][at.column] = of[lane]->c[i];
    }
  }
  for (unsigned r = 0; r < 16; ++r)
    for (unsigned k = 0; k < 8; ++k) sum[r] += a[r][k] * b[k];
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned i = 0; i < 8; ++i) {
      auto const at = element_of_accumulator(lane, i);
      of[lane]->d[i] = sum[at.row][at.column];
    }
}

}  // namespace detail

/// The warp meets at a matrix in memory, which must be the same for all lanes.
inline void meet_at_matrix(char const* call, float const* p, unsigned ldm, bool column_major, location place) {
  auto const address = reinterpret_cast<std::uintptr_t>(p);
  if (address % 32) abandon_collective(call, place, "the pointer is not a multiple of 32 bytes");
  if (ldm % 4)
    abandon_collective(call, place, "the leading dimension " + std::to_string(ldm) + " is not a multiple of 4");
  detail::require_whole_warp(call, place);
  // The address ends in zeros, which leaves room for the layout.
  warp_meeting(collective::matrix_access, call, ~0u, address + column_major, ldm, place,
               [call, place](emulated_thread const* lanes, unsigned count) {
                 for (unsigned lane = 1; lane < count; ++lane)
                   if (lanes[lane].given != lanes[0].given || lanes[lane].source != lanes[0].source)
                     abandon_collective(call, place,
                                        "lane " + std::to_string(lane) +
                                            " asks for another pointer, leading dimension or layout than "
                                            "lane 0");
               });
}

inline void multiply_matrices(lanes_product const& mine, location place) {
  constexpr char const* call = "mma_sync";
  detail::require_whole_warp(call, place);
  detail::require_sound<4>(call, place, "A", mine.a, true);
  detail::require_sound<4>(call, place, "B", mine.b, true);
  detail::require_sound<8>(call, place, "C", mine.c, false);
  warp_meeting(collective::matrix_product, call, ~0u, reinterpret_cast<std::uintptr_t>(&mine), 0, place,
               [](emulated_thread const* lanes, unsigned) { detail::multiply(lanes); });
}

/// Two neighbours of a row, which hardware loads and stores at once.
using pair_of_floats = float __attribute__((vector_size(8), may_alias));

}  // namespace cuda_emulation

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
namespace precision {
struct tf32;
}
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
class fragment;
template <class Layout>
class fragment<matrix_a, 16, 16, 8, precision::tf32, Layout> : public cuda_emulation::fragment_elements<4> {};
template <class Layout>
class fragment<matrix_b, 16, 16, 8, precision::tf32, Layout> : public cuda_emulation::fragment_elements<4> {};
template <>
class fragment<accumulator, 16, 16, 8, float> : public cuda_emulation::fragment_elements<8> {};

/// Rounds to 10 bits of mantissa, to nearest, ties away from zero: cvt.rna.tf32.f32. A NaN stays one, and what nobody
/// wrote keeps its bits, by which mma_sync knows it.
inline float __float_to_tf32(float x) {
  auto const bits = cuda_emulation::to_bits(x);
  if (bits == ~std::uint32_t{0}) return x;
  bool const is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return cuda_emulation::from_bits<float>((is_nan ? bits | 0x400000u : bits + 0x1000u) & 0xffffe000u);
}

template <int N>
__forceinline__ void fill_fragment(cuda_emulation::fragment_elements<N>& f, float v) {
  for (float& x : f.x) x = v;
}

// Inlined, so that a traced access carries the kernel's own line.
template <class Use, class Layout>
__forceinline__ void load_matrix_sync(fragment<Use, 16, 16, 8, precision::tf32, Layout>& f, float const* p,
                                      unsigned ldm,
                                      cuda_emulation::location place = cuda_emulation::location::current()) {
  constexpr bool column_major = std::is_same_v<Layout, col_major>;
  cuda_emulation::meet_at_matrix("load_matrix_sync", p, ldm, column_major, place);
  unsigned const lane = cuda_emulation::state().running->lane();
  for (unsigned i = 0; i < 4; ++i) {
    auto const [row, column] =
        std::is_same_v<Use, matrix_a> ? cuda_emulation::element_of_a(lane, i) : cuda_emulation::element_of_b(lane, i);
    f.x[i] = p[column_major ? std::size_t(column) * ldm + row : std::size_t(row) * ldm + column];
  }
}
__forceinline__ void load_matrix_sync(fragment<accumulator, 16, 16, 8, float>& f, float const* p, unsigned ldm,
                                      layout_t layout,
                                      cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::meet_at_matrix("load_matrix_sync", p, ldm, layout == mem_col_major, place);
  unsigned const lane = cuda_emulation::state().running->lane();
  if (layout == mem_col_major) {
    for (unsigned i = 0; i < 8; ++i) {
      auto const [row, column] = cuda_emulation::element_of_accumulator(lane, i);
      f.x[i] = p[std::size_t(column) * ldm + row];
    }
  } else {
    for (unsigned i = 0; i < 8; i += 2) {
      auto const [row, column] = cuda_emulation::element_of_accumulator(lane, i);
      auto const pair = *reinterpret_cast<cuda_emulation::pair_of_floats const*>(p + std::size_t(row) * ldm + column);
      f.x[i] = pair[0];
      f.x[i + 1] = pair[1];
    }
  }
}
__forceinline__ void store_matrix_sync(float* p, fragment<accumulator, 16, 16, 8, float> const& f, unsigned ldm,
                                       layout_t layout,
                                       cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::detail::require_sound<8>("store_matrix_sync", place, "the accumulator", f.x, false);
  cuda_emulation::meet_at_matrix("store_matrix_sync", p, ldm, layout == mem_col_major, place);
  unsigned const lane = cuda_emulation::state().running->lane();
  if (layout == mem_col_major) {
    for (unsigned i = 0; i < 8; ++i) {
      auto const [row, column] = cuda_emulation::element_of_accumulator(lane, i);
      p[std::size_t(column) * ldm + row] = f.x[i];
    }
  } else {
    for (unsigned i = 0; i < 8; i += 2) {
      auto const [row, column] = cuda_emulation::element_of_accumulator(lane, i);
      *reinterpret_cast<cuda_emulation::pair_of_floats*>(p + std::size_t(row) * ldm + column) =
          cuda_emulation::pair_of_floats{f.x[i], f.x[i + 1]};
    }
  }
}

/// D = A B + C; D and C may be the same fragment.
template <class LayoutA, class LayoutB>
__forceinline__ void mma_sync(fragment<accumulator, 16, 16, 8, float>& d,
                              fragment<matrix_a, 16, 16, 8, precision::tf32, LayoutA> const& a,
                              fragment<matrix_b, 16, 16, 8, precision::tf32, LayoutB> const& b,
                              fragment<accumulator, 16, 16, 8, float> const& c,
                              cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::multiply_matrices({a.x, b.x, c.x, d.x}, place);
}

}  // namespace nvcuda::wmma

#undef ATMANRL_EMULATED_UNTRACED
