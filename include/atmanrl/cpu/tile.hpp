#pragma once

/// \file
/// The one multiply-add kernel of the CPU backend: C (rows, up to 32) = A (rows, depth) times B (depth, 32), with B's
/// rows read as vectors and A's elements broadcast. Every element of C is one chain of multiply-adds over ascending
/// depth, in one accumulator, for every number of rows: that is what the bit rule rests on.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/scalar.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/simd.hpp>

#include <algorithm>
#include <array>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// Columns of a panel of B.
inline constexpr index_t panel_width = 32;

/// Most rows whose accumulators stay in registers, two vectors each. NEON has registers for more, but from 11 rows on
/// g++ 12 keeps some of them in memory.
#if defined(__AVX512F__)
inline constexpr int tile_rows = 14;
#elif defined(__AVX__)
inline constexpr int tile_rows = 6;
#elif defined(__aarch64__) && defined(__ARM_NEON)
inline constexpr int tile_rows = 8;
#else
inline constexpr int tile_rows = 4;
#endif

/// What the accumulators begin with and what becomes of C.
enum class into {
  overwrite,  ///< from zero, C = chain
  resume,     ///< from C, C = chain: a longer chain in parts has the bits of the whole
  add,        ///< from zero, C = C + chain
};

/// How element (row, k) of A lies in memory.
enum class a_layout {
  rows,     ///< a[row * lda + k]
  columns,  ///< a[k * lda + row]
};

/// B as floats: row k is b[k * ldb .. k * ldb + 32).
struct float_panel {
  using factor = float;  ///< what A's elements are
  float const* data;
  index_t ldb;
};
/// B as bfloat16, rows 2k and 2k + 1 interleaved in 32 words; a missing last row is zero. It is widened exactly.
struct bf16_panel {
  using factor = float;
  std::uint32_t const* data;
};
/// The same with A in pairs of bfloat16, too: two steps of the depth in one instruction.
struct bf16_pair_panel {
  using factor = std::uint32_t;
  std::uint32_t const* data;
};

/// A panel of weights (or of what a kernel packed) for A's elements of type `Factor`.
template <class Factor>
float_panel panel_of(float const* data) {
  return {data, panel_width};
}
template <class Factor>
auto panel_of(bf16 const* data) {
  auto const* const words = reinterpret_cast<std::uint32_t const*>(data);
  if constexpr (std::is_same_v<Factor, float>)
    return bf16_panel{words};
  else
    return bf16_pair_panel{words};
}
template <class Factor>
bf16_pair_panel panel_of(std::uint32_t const* data) {
  return {data};
}

/// Elements of A, floats or pairs, that `depth` takes.
template <class Factor>
constexpr index_t factors(index_t depth) {
  return std::is_same_v<Factor, float> ? depth : (depth + 1) / 2;
}

/// Elements that a panel of `depth` rows takes.
template <class W>
constexpr index_t panel_size(index_t depth) {
  return panel_width * (std::is_same_v<W, bf16> ? depth + depth % 2 : depth);
}

/// From one panel of a weight to the next.
constexpr index_t panel_bytes(float_panel b, index_t depth) { return b.ldb * depth * index_t(sizeof(float)); }
constexpr index_t panel_bytes(bf16_panel, index_t depth) { return panel_size<bf16>(depth) * index_t(sizeof(bf16)); }
constexpr index_t panel_bytes(bf16_pair_panel, index_t depth) { return panel_bytes(bf16_panel{}, depth); }

namespace detail {

template <int Rows>
using accumulators = simd::floats[Rows][2];

template <int Rows, a_layout Layout>
inline void multiply_add(accumulators<Rows>& sum, float const* a, index_t lda, simd::floats b0, simd::floats b1) {
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    simd::floats const x = simd::broadcast(Layout == a_layout::rows ? a[i * lda] : a[i]);
    sum[i][0] = simd::fma(x, b0, sum[i][0]);
    sum[i][1] = simd::fma(x, b1, sum[i][1]);
  }
}

// Panels of weights stream through the processor once per call; 2 KiB ahead hides the latency of memory.
inline constexpr index_t prefetch_bytes = 2048;

inline void prefetch_rows(void const* p, index_t ahead) {
  char const* const from = static_cast<char const*>(p) + ahead;
  __builtin_prefetch(from);
  if constexpr (simd::lanes == 16) __builtin_prefetch(from + 64);
}

template <int Rows, a_layout Layout>
inline void run_chain(accumulators<Rows>& sum, float const* a, index_t lda, float_panel b, index_t column,
                      index_t depth, index_t ahead) {
  float const* p = b.data + column;
  for (index_t k = 0; k < depth; ++k, p += b.ldb) {
    prefetch_rows(p, ahead);
    multiply_add<Rows, Layout>(sum, a, lda, simd::load(p), simd::load(p + simd::lanes));
    a += Layout == a_layout::rows ? 1 : lda;
  }
}

template <int Rows, a_layout Layout>
inline void run_chain(accumulators<Rows>& sum, float const* a, index_t lda, bf16_panel b, index_t column, index_t depth,
                      index_t ahead) {
  index_t const next = Layout == a_layout::rows ? 1 : lda;
  std::uint32_t const* p = b.data + column;
  for (index_t k = 0; k + 1 < depth; k += 2, p += panel_width) {
    prefetch_rows(p, ahead);
    simd::words const w0 = simd::load(p), w1 = simd::load(p + simd::lanes);
    multiply_add<Rows, Layout>(sum, a, lda, simd::even_bf16(w0), simd::even_bf16(w1));
    multiply_add<Rows, Layout>(sum, a + next, lda, simd::odd_bf16(w0), simd::odd_bf16(w1));
    a += 2 * next;
  }
  if (depth % 2)
    multiply_add<Rows, Layout>(sum, a, lda, simd::even_bf16(simd::load(p)),
                               simd::even_bf16(simd::load(p + simd::lanes)));
}

#if defined(__AVX512BF16__)
template <int Rows, a_layout Layout>
inline void run_chain(accumulators<Rows>& sum, std::uint32_t const* a, index_t lda, bf16_pair_panel b, index_t column,
                      index_t depth, index_t ahead) {
  std::uint32_t const* p = b.data + column;
  for (index_t k = 0; k < depth; k += 2, p += panel_width) {
    prefetch_rows(p, ahead);
    simd::words const b0 = simd::load(p), b1 = simd::load(p + simd::lanes);
#  pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      simd::words const x = simd::broadcast(Layout == a_layout::rows ? a[i * lda] : a[i]);
      sum[i][0] = simd::dot_bf16(x, b0, sum[i][0]);
      sum[i][1] = simd::dot_bf16(x, b1, sum[i][1]);
    }
    a += Layout == a_layout::rows ? 1 : lda;
  }
}
#endif

template <int Rows, a_layout Layout, class Panel>
void tile(typename Panel::factor const* a, index_t lda, Panel b, index_t depth, float* c, index_t ldc, index_t width,
          into how, index_t ahead) {
  using simd::lanes;
  for (index_t column = 0; column < width; column += 2 * lanes) {
    index_t const first = std::min<index_t>(width - column, lanes),
                  second = std::clamp<index_t>(width - column - lanes, 0, lanes);
    accumulators<Rows> sum;
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) sum[i][0] = sum[i][1] = simd::floats{};
    if (how == into::resume) {
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
        sum[i][0] = simd::load_first(c + i * ldc + column, first);
        sum[i][1] = simd::load_first(c + i * ldc + column + lanes, second);
      }
    }
    run_chain<Rows, Layout>(sum, a, lda, b, column, depth, ahead);
    if (how == into::add) {
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
        sum[i][0] += simd::load_first(c + i * ldc + column, first);
        sum[i][1] += simd::load_first(c + i * ldc + column + lanes, second);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      simd::store_first(c + i * ldc + column, sum[i][0], first);
      simd::store_first(c + i * ldc + column + lanes, sum[i][1], second);
    }
  }
}

template <class Panel>
using tile_function = void (*)(typename Panel::factor const*, index_t, Panel, index_t, float*, index_t, index_t, into,
                               index_t);

template <a_layout Layout, class Panel, std::size_t... I>
constexpr std::array<tile_function<Panel>, sizeof...(I)> make_tiles(std::index_sequence<I...>) {
  return {tile<int(I) + 1, Layout, Panel>...};
}
template <a_layout Layout, class Panel>
inline constexpr auto tiles = make_tiles<Layout, Panel>(std::make_index_sequence<tile_rows>{});

}  // namespace detail

/// Calls f(first, count) for parts of [0, items) of nearly equal size, each at most `most`.
template <class F>
void for_each_part(index_t items, index_t most, F const& f) {
  index_t const parts = (items + most - 1) / most;
  for (index_t i = 0; i < parts; ++i) {
    index_t const first = items * i / parts;
    f(first, items * (i + 1) / parts - first);
  }
}

/// C = A B as `how` says, for any number of rows.
/// \param a      `rows` x `depth`, in the layout that the template argument names; `lda` floats or pairs apart
/// \param b      `depth` x 32
/// \param c      `rows` x `width`, `ldc` floats from row to row; columns from `width` on are left alone
/// \param width  at most 32
template <a_layout Layout = a_layout::rows, class Panel>
void multiply(index_t rows, typename Panel::factor const* a, index_t lda, Panel b, index_t depth, float* c, index_t ldc,
              index_t width, into how) {
  for_each_part(rows, tile_rows, [&](index_t first, index_t count) {
    detail::tiles<Layout, Panel>[std::size_t(count - 1)](a + first * (Layout == a_layout::rows ? lda : 1), lda, b,
                                                         depth, c + first * ldc, ldc, width, how,
                                                         detail::prefetch_bytes);
  });
}

/// Floats or pairs that `pack_rows` may write.
constexpr index_t packed_size(index_t rows, index_t depth) { return rows * depth + simd::lanes; }

/// Squares of vectors, one below the other, that the rows of a tile take when they are transposed.
inline constexpr int tile_squares = (tile_rows + simd::lanes - 1) / simd::lanes;

/// Writes rows tile by tile in the order in which `multiply_packed` reads them, [tile][depth][rows of the tile]. Rows a
/// multiple of 4 KiB apart would drive each other out of the first-level cache where they lie. As pairs, they are
/// rounded to bfloat16 on the way.
template <class Factor>
void pack_rows(float const* source, index_t stride, index_t rows, index_t depth, Factor* target) {
  using simd::lanes;
  constexpr bool pairs = !std::is_same_v<Factor, float>;
  for_each_part(rows, tile_rows, [&](index_t first, index_t count) {
    float const* const from = source + first * stride;
    Factor* const to = target + first * factors<Factor>(depth);
    if constexpr (!pairs)
      if (count == 1) return void(std::copy_n(from, depth, to));
    for (index_t k = 0; k < depth; k += lanes) {
      simd::floats squares[tile_squares][lanes];  // of the tile's rows, the last one filled up with zeros
      for (int s = 0; s < tile_squares; ++s) {
        simd::floats(&block)[lanes] = squares[s];
        int const rows_here = int(count) - s * lanes;
        float const* const rows_at = from + s * lanes * stride + k;
        if (k + lanes <= depth) {
#pragma GCC unroll 16
          for (int i = 0; i < lanes; ++i) block[i] = i < rows_here ? simd::load(rows_at + i * stride) : simd::floats{};
        } else {
          for (int i = 0; i < lanes; ++i)
            block[i] = i < rows_here ? simd::load_first(rows_at + i * stride, depth - k) : simd::floats{};
        }
        simd::transpose(block);
      }
      // Whole vectors: what a store writes too much, the next ones overwrite.
      index_t const valid = factors<Factor>(std::min<index_t>(lanes, depth - k));
      for (index_t i = 0; i < valid; ++i) {
        for (int s = 0; s < tile_squares && s * lanes < count; ++s) {
          simd::floats const(&block)[lanes] = squares[s];
          if constexpr (pairs)
            simd::store(to + (k / 2 + i) * count + s * lanes, simd::to_bf16_pairs(block[2 * i], block[2 * i + 1]));
          else
            simd::store(to + (k + i) * count + s * lanes, block[i]);
        }
      }
    }
  });
}

/// The same for the columns of `source` (depth, columns) as rows of A. A few rows of the source at a time go into all
/// tiles, so that none of their lines leaves the cache half read.
inline void pack_columns(float const* source, index_t stride, index_t depth, index_t columns, float* target) {
  constexpr index_t few = 8;
  for (index_t k = 0; k < depth; k += few) {
    for_each_part(columns, tile_rows, [&](index_t first, index_t count) {
      float* const to = target + first * depth;
      for (index_t i = k; i < std::min(k + few, depth); ++i) {
        for (index_t c = 0; c < count; c += simd::lanes) {
          simd::floats const v = simd::load_first(source + i * stride + first + c, count - c);
          // What a whole vector writes too much, the tile's next rows overwrite; the next tile's are there already.
          if (i * count + c + simd::lanes <= depth * count)
            simd::store(to + i * count + c, v);
          else
            simd::store_first(to + i * count + c, v, count - c);
        }
      }
    });
  }
}

/// C = A B for rows that `pack_rows` or columns that `pack_columns` wrote. While the last of several tiles goes through
/// the panel, which is in the cache by then, the next panel is asked for.
template <class Panel>
void multiply_packed(index_t rows, typename Panel::factor const* packed, Panel b, index_t depth, float* c, index_t ldc,
                     index_t width, into how) {
  index_t const next_panel = panel_bytes(b, depth);
  for_each_part(rows, tile_rows, [&](index_t first, index_t count) {
    detail::tiles<a_layout::columns, Panel>[std::size_t(count - 1)](
        packed + first * factors<typename Panel::factor>(depth), count, b, depth, c + first * ldc, ldc, width, how,
        first > 0 && first + count == rows ? next_panel : detail::prefetch_bytes);
  });
}

/// Writes `source` (rows, width) as (rows, 32), with zeros after a row of less than 32.
inline void copy_to_panel(float const* source, index_t stride, index_t rows, index_t width, float* target) {
  using simd::lanes;
  for (index_t c = 0; c < panel_width; c += lanes) {
    index_t const count = std::clamp<index_t>(width - c, 0, lanes);
    for (index_t r = 0; r < rows; ++r)
      simd::store(target + r * panel_width + c, simd::load_first(source + r * stride + c, count));
  }
}

/// Writes the transpose of `source` (rows, columns) as (columns, 32): target[c * 32 + r]; rows up to 32 are filled with
/// zero.
inline void transpose_to_panel(float const* source, index_t stride, index_t rows, index_t columns, float* target) {
  using simd::lanes;
  for (index_t r = 0; r < panel_width; r += lanes) {
    for (index_t c = 0; c < columns; c += lanes) {
      simd::floats block[lanes];
      float const* const from = source + r * stride + c;
      float* const to = target + c * panel_width + r;
      if (r + lanes <= rows && c + lanes <= columns) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) block[i] = simd::load(from + i * stride);
        simd::transpose(block);
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) simd::store(to + i * panel_width, block[i]);
      } else {
        index_t const valid = std::min<index_t>(columns - c, lanes);
        for (int i = 0; i < lanes; ++i)
          block[i] = r + i < rows ? simd::load_first(from + i * stride, valid) : simd::floats{};
        simd::transpose(block);
        for (index_t i = 0; i < valid; ++i) simd::store(to + i * panel_width, block[i]);
      }
    }
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
