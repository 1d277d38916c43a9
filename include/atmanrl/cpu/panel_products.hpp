#pragma once

/// \file
/// The products with a weight's panels, y = x Wᵀ and dx = dy W, on all threads: how rows are cut into blocks that stay
/// in the caches and shared out. How a block of rows is packed and meets a panel is the product's own: `vector_product`
/// by the vector kernels (cpu/tile.hpp), `amx_product` and `bfmmla_product` by a matrix unit (cpu/amx_product.hpp,
/// cpu/bfmmla_product.hpp), `packed_product` by the vector kernels on the panels of a packed weight
/// (cpu/packed_product.hpp), `amx_int8_product` by AMX on those (cpu/amx_int8_product.hpp). A row's bits depend on the
/// product alone and not on the cut.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/scalar.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/amx_product.hpp>
#include <atmanrl/cpu/amx_tiles.hpp>
#include <atmanrl/cpu/bfmmla_product.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/matmul.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

inline constexpr index_t packed_floats = index_t{1}
                                         << 17;  // of x that are packed at a time: half of a large second-level cache
inline constexpr index_t output_block = 1024;    // outputs of a transposed panel: 128 KiB
inline constexpr index_t input_row_block = 384;  // rows of dy that share a transposed panel
inline constexpr index_t least_products = index_t{1} << 16;  // multiply-adds that are worth a thread
inline constexpr index_t turns = 4;  // pieces of a product that a thread takes at most, if all are equally fast

/// Floats, or pairs of bfloat16 by VDPBF16PS.
template <class Factor>
struct vector_product {
  using factor = Factor;
  static constexpr index_t row_unit = 1;  ///< blocks of rows begin at multiples of it

  /// Rows of a block at most.
  static index_t block_rows(index_t depth) {
    return std::clamp(packed_floats / (depth * tile_rows + 1), index_t{3}, index_t{8}) * tile_rows;
  }
  /// Factors that packed rows take; where those begin that come after the first `depth`, a multiple of `output_block`.
  static constexpr index_t packed_size(index_t rows, index_t depth) { return cpu::packed_size(rows, depth); }
  static constexpr index_t packed_at(index_t rows, index_t depth) {
    return rows * factors<Factor>(depth) + depth / output_block * simd::lanes;
  }
  static void pack(float const* source, index_t stride, index_t rows, index_t depth, Factor* target) {
    pack_rows(source, stride, rows, depth, target);
  }

  /// What one thread needs while it multiplies.
  struct worker {
    template <class E>
    void multiply(index_t rows, Factor const* packed, E const* panel, index_t depth, float* c, index_t ldc,
                  index_t width, into how) {
      multiply_packed(rows, packed, panel_of<Factor>(panel), depth, c, ldc, width, how);
    }
  };
  worker begin() const { return {}; }
};

/// Pairs of bfloat16 by AMX or by its twin.
struct amx_product {
  using factor = std::uint32_t;
  static constexpr index_t packed_words = index_t{1} << 18;  ///< half of the second-level cache of these processors
  bool twin = false;                                         ///< in plain code, on any machine
  static constexpr index_t row_unit = amx::block_rows;

  static index_t block_rows(index_t depth) {
    return std::clamp(packed_words / (amx::packed_size(amx::block_rows, depth) + 1), index_t{1}, index_t{16}) *
           amx::block_rows;
  }
  static constexpr index_t packed_size(index_t rows, index_t depth) { return amx::packed_size(rows, depth); }
  static constexpr index_t packed_at(index_t rows, index_t depth) { return amx::packed_size(rows, depth); }
  static void pack(float const* source, index_t stride, index_t rows, index_t depth, std::uint32_t* target) {
    amx::pack_rows(source, stride, rows, depth, target);
  }

  /// A thread that has its tiles configured.
  class worker {
   public:
    explicit worker(bool twin) : tiles_(twin, amx::full_tiles()) {}

    template <amx::parts Parts = amx::parts::rounded, class E>
    void multiply(index_t rows, std::uint32_t const* packed, E const* panel, index_t depth, float* c, index_t ldc,
                  index_t width, into how) {
      auto const* const words = reinterpret_cast<std::uint32_t const*>(panel);
      tiles_.with_unit([&](auto& unit) { amx::multiply<Parts>(unit, rows, packed, words, depth, c, ldc, width, how); });
    }

   private:
    amx::thread_tiles tiles_;
  };
  worker begin() const { return worker(twin); }
};

/// Pairs of bfloat16 by BFMMLA or by its twin.
struct bfmmla_product {
  using factor = std::uint32_t;
  bool twin = false;  ///< in plain code, on any machine
  static constexpr index_t row_unit = bfmmla::tile_rows;

  static index_t block_rows(index_t depth) {
    return std::clamp(packed_floats / (bfmmla::packed_size(bfmmla::tile_rows, depth) + 1), index_t{3}, index_t{8}) *
           bfmmla::tile_rows;
  }
  static constexpr index_t packed_size(index_t rows, index_t depth) { return bfmmla::packed_size(rows, depth); }
  static constexpr index_t packed_at(index_t rows, index_t depth) { return bfmmla::packed_size(rows, depth); }
  static void pack(float const* source, index_t stride, index_t rows, index_t depth, std::uint32_t* target) {
    bfmmla::pack_rows(source, stride, rows, depth, target);
  }

  struct worker {
    bool twin;

    template <class E>
    void multiply(index_t rows, std::uint32_t const* packed, E const* panel, index_t depth, float* c, index_t ldc,
                  index_t width, into how) {
      auto const* const words = reinterpret_cast<std::uint32_t const*>(panel);
      if (twin) return bfmmla::multiply<bfmmla::twin>(rows, packed, words, depth, c, ldc, width, how);
      bfmmla::multiply<bfmmla::native>(rows, packed, words, depth, c, ldc, width, how);
    }
  };
  worker begin() const { return {twin}; }
};

constexpr index_t panels(index_t outputs) { return (outputs + panel_width - 1) / panel_width; }

namespace detail {

// Pieces of each of `blocks` blocks of `columns` panels: the more, the less a slow thread holds up the others, but of
// numbers that let `team` equal threads finish together.
inline index_t pieces_of(index_t columns, index_t blocks, index_t team) {
  index_t const ideal = (blocks * columns + team - 1) / team;  // panels of one thread
  index_t best = 1, least = std::numeric_limits<index_t>::max();
  for (index_t pieces = std::min(columns, turns * team / blocks); pieces > 0 && least > ideal; --pieces) {
    index_t const longest = (columns + pieces - 1) / pieces * ((blocks * pieces + team - 1) / team);
    if (longest < least) best = pieces, least = longest;
  }
  return best;
}

/// The next panel's block lies too far away for the processor to foresee.
template <class W>
void prefetch_block(W const* p) {
  constexpr index_t line = 64, bytes = panel_width * panel_width * index_t(sizeof(W));
  for (index_t i = 0; i < bytes; i += line) __builtin_prefetch(reinterpret_cast<char const*>(p) + i);
}

/// target[output][32] = the panel's inputs [k, k + width), zero after them, for its 32 outputs; as pairs of outputs
/// where the target holds pairs.
inline void transpose_block(float const* panel, index_t k, index_t width, float* target) {
  transpose_to_panel(panel + k * panel_width, panel_width, width, panel_width, target);
}
template <class Factor>
void transpose_block(bf16 const* panel, index_t k, index_t width, Factor* target) {
  using simd::lanes;
  auto const* const words = reinterpret_cast<std::uint32_t const*>(panel) + k / 2 * panel_width;
  for (index_t r = 0; r < panel_width; r += lanes) {
    for (index_t c = 0; c < panel_width; c += lanes) {
      simd::words pairs[lanes / 2];
#pragma GCC unroll 8
      for (index_t i = 0; i < lanes; i += 2)
        pairs[i / 2] = r + i < width ? simd::load(words + (r + i) / 2 * panel_width + c) : simd::words{};
      if constexpr (std::is_same_v<Factor, float>) {
        simd::floats block[lanes];
#pragma GCC unroll 8
        for (index_t i = 0; i < lanes; i += 2) {
          block[i] = simd::even_bf16(pairs[i / 2]);
          block[i + 1] = simd::odd_bf16(pairs[i / 2]);
        }
        simd::transpose(block);
#pragma GCC unroll 16
        for (index_t i = 0; i < lanes; ++i) simd::store(target + (c + i) * panel_width + r, block[i]);
      } else {
        simd::transpose_pairs(pairs);
#pragma GCC unroll 8
        for (index_t i = 0; i < lanes; i += 2) simd::store(target + (c + i) / 2 * panel_width + r, pairs[i / 2]);
      }
    }
  }
}

}  // namespace detail

/// Panel `p` of a weight, and its inputs [k, k + width) as `transpose_block` has them. Other kinds of panels have
/// functions of the same names.
template <class W>
W const* panel_at(weight_view<cpu_backend, W> w, index_t p) {
  return w.data + p * panel_size<W>(w.inputs);
}
template <class W, class Factor>
void transpose_panel(weight_view<cpu_backend, W> w, index_t p, index_t k, index_t width, Factor* target) {
  W const* const from = panel_at(w, p);
  detail::prefetch_block(from + panel_size<W>(w.inputs) + k * panel_width);
  detail::transpose_block(from, k, width, target);
}

/// y = x Wᵀ, or added to y. Blocks of rows, packed once, stay in the second-level cache while the panels pass by.
/// \param w  a weight_view, or what a product has in its place
template <class Product, class Weight>
void multiply_by_panels(cpu_threads& threads, Product const& product, view<float const, 2> x, Weight const& w,
                        view<float, 2> y, bool add) {
  using factor = typename Product::factor;
  index_t const rows = x.extent(0), columns = panels(w.outputs), depth = w.inputs;
  if (rows == 0) return;
  constexpr index_t unit = Product::row_unit;
  index_t const units = (rows + unit - 1) / unit, most = Product::block_rows(depth) / unit;
  index_t const needed = (units + most - 1) / most, team = threads.threads();
  // As many blocks as keep all threads busy to the end, else as many pieces of a block.
  index_t const blocks = needed >= team ? (needed + team - 1) / team * team : needed,
                pieces = blocks >= team ? 1 : detail::pieces_of(columns, blocks, team),
                block_rows = std::min(rows, (units + blocks - 1) / blocks * unit);
  index_t const worth = rows * depth * w.outputs / least_products;
  threads.take_turns(blocks * pieces, worth, Product::packed_size(block_rows, depth),
                     [&](auto const& next, float* scratch) {
                       auto worker = product.begin();
                       factor* const packed = reinterpret_cast<factor*>(scratch);
                       index_t packed_block = -1, first = 0, count = 0;
                       for (index_t i; (i = next()) < blocks * pieces;) {
                         if (index_t const block = i / pieces; block != packed_block) {
                           first = units * block / blocks * unit;
                           count = std::min(rows, units * (block + 1) / blocks * unit) - first;
                           Product::pack(x.row(first), depth, count, depth, packed);
                           packed_block = block;
                         }
                         index_t const piece = i % pieces;
                         for (index_t p = columns * piece / pieces; p < columns * (piece + 1) / pieces; ++p) {
                           index_t const o = p * panel_width;
                           worker.multiply(count, packed, panel_at(w, p), depth, y.row(first) + o, w.outputs,
                                           std::min(panel_width, w.outputs - o), add ? into::add : into::overwrite);
                         }
                       }
                     });
}

/// dx = dy W, or added to dx. A panel of 32 inputs, [output][32], is built by transposing; then it is the forward
/// product over outputs.
template <class Product, class Weight>
void multiply_by_transposed_panels(cpu_threads& threads, Product const& product, view<float const, 2> dy,
                                   Weight const& w, view<float, 2> dx, bool add) {
  using factor = typename Product::factor;
  index_t const strips = panels(w.inputs), block = std::min(output_block, panels(w.outputs) * panel_width);
  factor* const packed = reinterpret_cast<factor*>(
      threads.shared_scratch(Product::packed_size(std::min(dy.extent(0), input_row_block), w.outputs) +
                             (w.outputs / block + 1) * simd::lanes));
  index_t const units = (dy.extent(0) + Product::row_unit - 1) / Product::row_unit,
                parts = (dy.extent(0) + input_row_block - 1) / input_row_block;
  static_assert(input_row_block % Product::row_unit == 0);
  for (index_t part = 0; part < parts; ++part) {
    index_t const row = units * part / parts * Product::row_unit,
                  rows = std::min(dy.extent(0), units * (part + 1) / parts * Product::row_unit) - row;
    auto const packed_block = [&](index_t o) { return packed + Product::packed_at(rows, o); };
    threads.split((w.outputs + block - 1) / block, atmanrl::detail::row_grain(rows * block),
                  [&](index_t begin, index_t end) {
                    for (index_t o = begin * block; o < std::min(end * block, w.outputs); o += block)
                      Product::pack(dy.row(row) + o, w.outputs, rows, std::min(block, w.outputs - o), packed_block(o));
                  });
    // A thread takes a few strips, so that a block of dy stays in the second-level cache while they pass by.
    index_t const worth = rows * w.outputs * w.inputs / least_products,
                  members = std::min(worth, index_t{threads.threads()}),
                  groups = members > 1 ? detail::pieces_of(strips, 1, members) : 1;
    threads.take_turns(groups, worth, block * panel_width, [&](auto const& next, float* scratch) {
      auto worker = product.begin();
      factor* const panel = reinterpret_cast<factor*>(scratch);
      for (index_t g; (g = next()) < groups;) {
        for (index_t o = 0; o < w.outputs; o += block) {
          index_t const depth = std::min(block, w.outputs - o);
          for (index_t s = strips * g / groups; s < strips * (g + 1) / groups; ++s) {
            index_t const k = s * panel_width, width = std::min(panel_width, w.inputs - k);
            for (index_t p = o / panel_width; p * panel_width < o + depth; ++p)
              transpose_panel(w, p, k, width, panel + factors<factor>(p * panel_width - o) * panel_width);
            worker.multiply(rows, packed_block(o), panel, depth, dx.row(row) + k, w.inputs, width,
                            add || o > 0 ? into::resume : into::overwrite);
          }
        }
      }
    });
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
