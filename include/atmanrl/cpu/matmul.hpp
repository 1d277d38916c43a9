#pragma once

/// \file
/// Products with a weight that is kept as panels of 32 outputs, [panel][input][32]: the forward product streams them as
/// they lie, and both directions read the one copy. bf16 panels interleave two inputs, [panel][input / 2][32][2]; their
/// elements meet activations that are rounded to bf16 on the way, two products in one instruction, where the build has
/// that instruction; else, or when cpu_options::exact_activations asks for it, they are widened exactly and multiplied
/// with float activations. The gradient of a weight is always computed from floats.

#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/matmul.hpp>

#include <limits>

namespace atmanrl {

template <>
struct kernels::matmul<cpu_backend> {
  static constexpr index_t output_granularity = cpu::panel_width;

  /// Outputs are padded with zeros to whole panels.
  template <class W>
  static constexpr index_t storage_size(index_t outputs, index_t inputs) {
    static_assert(std::is_same_v<W, float> || std::is_same_v<W, bf16>,
                  "atmanrl: cpu_backend keeps weights in float or bf16");
    return panels(outputs) * cpu::panel_size<W>(inputs);
  }

  template <class W, class T>
  static void assign_rows(cpu_threads& threads, weight_view<cpu_backend, W> w, index_t first, view<T const, 2> rows) {
    atmanrl::detail::computes_in_float<T>();
    for_each_panel(threads, w, first, rows.extent(0), [&](W* panel, index_t lane, index_t row, index_t count) {
      for (index_t k = 0; k < w.inputs; ++k)
        for (index_t i = 0; i < count; ++i) panel[place<W>(k, lane + i)] = W(rows(row + i, k));
    });
  }

  template <class W, class T>
  static void read_rows(cpu_threads& threads, weight_view<cpu_backend, W> w, index_t first, view<T, 2> rows) {
    atmanrl::detail::computes_in_float<T>();
    for_each_panel(threads, w, first, rows.extent(0), [&](W* panel, index_t lane, index_t row, index_t count) {
      for (index_t k = 0; k < w.inputs; ++k)
        for (index_t i = 0; i < count; ++i) rows(row + i, k) = float(panel[place<W>(k, lane + i)]);
    });
  }

  /// One row of the weight, widened exactly.
  template <class W>
  static void read_row(weight_view<cpu_backend, W> w, index_t row, float* to) {
    W const* const panel = w.data + row / cpu::panel_width * cpu::panel_size<W>(w.inputs);
    for (index_t k = 0; k < w.inputs; ++k) to[k] = float(panel[place<W>(k, row % cpu::panel_width)]);
  }

  template <class W, class T>
  static void forward(cpu_threads& threads, view<T const, 2> x, weight_view<cpu_backend, W> w, view<T, 2> y, bool add) {
    atmanrl::detail::computes_in_float<T>();
    if constexpr (has_pairs<W>)
      if (threads.bf16_pairs()) return multiply_by_panels<std::uint32_t>(threads, x, w, y, add);
    multiply_by_panels<float>(threads, x, w, y, add);
  }

  template <class W, class T>
  static void backward_input(cpu_threads& threads, view<T const, 2> dy, weight_view<cpu_backend, W> w, view<T, 2> dx,
                             bool add) {
    atmanrl::detail::computes_in_float<T>();
    if constexpr (has_pairs<W>)
      if (threads.bf16_pairs()) return multiply_by_transposed_panels<std::uint32_t>(threads, dy, w, dx, add);
    multiply_by_transposed_panels<float>(threads, dy, w, dx, add);
  }

  // Rows in ascending order into accumulators that begin with dw, so that micro-batches give the bits of the whole
  // batch.
  template <class T>
  static void backward_weight(cpu_threads& threads, view<T const, 2> dy, view<T const, 2> x, view<T, 2> dw) {
    atmanrl::detail::computes_in_float<T>();
    index_t const rows = x.extent(0), outputs = dw.extent(0), inputs = dw.extent(1);
    index_t const worth = std::min(rows, weight_row_block) * outputs * inputs / least_products,
                  members = std::min(worth, index_t{threads.threads()});
    index_t const needed = (outputs + output_group - 1) / output_group;
    index_t const groups = members > 1 ? (needed + members - 1) / members * members : needed;
    index_t const strips = panels(inputs);
    float* const packed_x = threads.shared_scratch(std::min(rows, weight_row_block) * strips * cpu::panel_width);
    cpu::for_each_part(rows, weight_row_block, [&](index_t row, index_t depth) {
      auto const strip = [&](index_t i) { return packed_x + i * depth * cpu::panel_width; };
      auto const width = [&](index_t i) { return std::min(cpu::panel_width, inputs - i * cpu::panel_width); };
      threads.split(strips, atmanrl::detail::row_grain(depth * cpu::panel_width), [&](index_t begin, index_t end) {
        for (index_t i = begin; i < end; ++i)
          cpu::copy_to_panel(x.row(row) + i * cpu::panel_width, inputs, depth, width(i), strip(i));
      });
      threads.take_turns(groups, worth, cpu::packed_size(output_group, depth), [&](auto const& next, float* packed_dy) {
        for (index_t g; (g = next()) < groups;) {
          index_t const o = outputs * g / groups, count = outputs * (g + 1) / groups - o;
          cpu::pack_columns(dy.row(row) + o, outputs, depth, count, packed_dy);
          for (index_t i = 0; i < strips; ++i)
            cpu::multiply_packed(count, packed_dy, cpu::float_panel{strip(i), cpu::panel_width}, depth,
                                 dw.row(o) + i * cpu::panel_width, inputs, width(i), cpu::into::resume);
        }
      });
    });
  }

  /// Bytes of scratch that the products of `rows` rows with weights of up to `outputs` and `inputs` take at most.
  static std::size_t scratch_bytes(index_t rows, index_t outputs, index_t inputs, int threads) {
    index_t const most =
        std::clamp(packed_floats / (inputs * cpu::tile_rows + 1), index_t{3}, index_t{8}) * cpu::tile_rows;
    index_t const shared = std::max(
        cpu::packed_size(std::min(rows, input_row_block), outputs) + (outputs / output_block + 1) * simd::lanes,
        std::min(rows, weight_row_block) * panels(inputs) * cpu::panel_width);
    index_t const own = std::max({cpu::packed_size(std::min(rows, most), inputs), output_block * cpu::panel_width,
                                  cpu::packed_size(output_group, weight_row_block)});
    return sizeof(float) * std::size_t(shared + threads * own);
  }

 private:
  static constexpr index_t packed_floats = index_t{1}
                                           << 17;  // of x that are packed at a time: half of a large second-level cache
  static constexpr index_t output_block = 1024;    // outputs of a transposed panel: 128 KiB
  static constexpr index_t input_row_block = 384;  // rows of dy that share a transposed panel
  static constexpr index_t output_group = 12 * cpu::tile_rows;  // outputs that a thread takes at a time
  static constexpr index_t weight_row_block = 256;  // rows of a packed strip of x: 32 KiB, as the first-level cache
  static constexpr index_t least_products = index_t{1} << 16;  // multiply-adds that are worth a thread
  static constexpr index_t turns = 4;  // pieces of a product that a thread takes at most, if all are equally fast

  static constexpr index_t panels(index_t outputs) { return (outputs + cpu::panel_width - 1) / cpu::panel_width; }

  // Pieces of each of `blocks` blocks of `columns` panels: the more, the less a slow thread holds up the others, but of
  // numbers that let `team` equal threads finish together.
  static index_t pieces_of(index_t columns, index_t blocks, index_t team) {
    index_t const ideal = (blocks * columns + team - 1) / team;  // panels of one thread
    index_t best = 1, least = std::numeric_limits<index_t>::max();
    for (index_t pieces = std::min(columns, turns * team / blocks); pieces > 0 && least > ideal; --pieces) {
      index_t const longest = (columns + pieces - 1) / pieces * ((blocks * pieces + team - 1) / team);
      if (longest < least) best = pieces, least = longest;
    }
    return best;
  }

  template <class W>
  static constexpr bool has_pairs = std::is_same_v<W, bf16>&& simd::has_dot_bf16;

  // y = x Wᵀ. Blocks of rows, packed once, stay in the second-level cache while the panels pass by.
  template <class Factor, class W>
  static void multiply_by_panels(cpu_threads& threads, view<float const, 2> x, weight_view<cpu_backend, W> w,
                                 view<float, 2> y, bool add) {
    index_t const rows = x.extent(0), columns = panels(w.outputs), depth = w.inputs;
    if (rows == 0) return;
    index_t const most =
        std::clamp(packed_floats / (depth * cpu::tile_rows + 1), index_t{3}, index_t{8}) * cpu::tile_rows;
    index_t const needed = (rows + most - 1) / most, team = threads.threads();
    // As many blocks as keep all threads busy to the end, else as many pieces of a block.
    index_t const blocks = needed >= team ? (needed + team - 1) / team * team : needed,
                  pieces = blocks >= team ? 1 : pieces_of(columns, blocks, team),
                  block_rows = (rows + blocks - 1) / blocks;
    index_t const worth = rows * depth * w.outputs / least_products;
    threads.take_turns(
        blocks * pieces, worth, cpu::packed_size(block_rows, depth), [&](auto const& next, float* scratch) {
          Factor* const packed = reinterpret_cast<Factor*>(scratch);
          index_t packed_block = -1, first = 0, count = 0;
          for (index_t i; (i = next()) < blocks * pieces;) {
            if (index_t const block = i / pieces; block != packed_block) {
              first = rows * block / blocks;
              count = rows * (block + 1) / blocks - first;
              cpu::pack_rows(x.row(first), depth, count, depth, packed);
              packed_block = block;
            }
            index_t const piece = i % pieces;
            for (index_t p = columns * piece / pieces; p < columns * (piece + 1) / pieces; ++p) {
              index_t const o = p * cpu::panel_width;
              cpu::multiply_packed(count, packed, cpu::panel_of<Factor>(w.data + p * cpu::panel_size<W>(depth)), depth,
                                   y.row(first) + o, w.outputs, std::min(cpu::panel_width, w.outputs - o),
                                   add ? cpu::into::add : cpu::into::overwrite);
            }
          }
        });
  }

  // dx = dy W. A panel of 32 inputs, [output][32], is built by transposing; then it is the forward product over
  // outputs.
  template <class Factor, class W>
  static void multiply_by_transposed_panels(cpu_threads& threads, view<float const, 2> dy,
                                            weight_view<cpu_backend, W> w, view<float, 2> dx, bool add) {
    index_t const strips = panels(w.inputs), block = std::min(output_block, panels(w.outputs) * cpu::panel_width);
    Factor* const packed = reinterpret_cast<Factor*>(threads.shared_scratch(
        cpu::packed_size(std::min(dy.extent(0), input_row_block), w.outputs) + (w.outputs / block + 1) * simd::lanes));
    cpu::for_each_part(dy.extent(0), input_row_block, [&](index_t row, index_t rows) {
      auto const packed_block = [&](index_t o) {
        return packed + rows * cpu::factors<Factor>(o) + o / block * simd::lanes;
      };
      threads.split(
          (w.outputs + block - 1) / block, atmanrl::detail::row_grain(rows * block), [&](index_t begin, index_t end) {
            for (index_t o = begin * block; o < std::min(end * block, w.outputs); o += block)
              cpu::pack_rows(dy.row(row) + o, w.outputs, rows, std::min(block, w.outputs - o), packed_block(o));
          });
      index_t const team = rows * w.outputs * w.inputs / least_products;
      threads.take_turns(strips, team, block * cpu::panel_width, [&](auto const& next, float* scratch) {
        Factor* const panel = reinterpret_cast<Factor*>(scratch);
        for (index_t s; (s = next()) < strips;) {
          index_t const k = s * cpu::panel_width, width = std::min(cpu::panel_width, w.inputs - k);
          for (index_t o = 0; o < w.outputs; o += block) {
            index_t const depth = std::min(block, w.outputs - o);
            for (index_t p = o / cpu::panel_width; p * cpu::panel_width < o + depth; ++p) {
              W const* const from = w.data + p * cpu::panel_size<W>(w.inputs);
              prefetch_block(from + cpu::panel_size<W>(w.inputs) + k * cpu::panel_width);
              transpose_block(from, k, width,
                              panel + cpu::factors<Factor>(p * cpu::panel_width - o) * cpu::panel_width);
            }
            cpu::multiply_packed(rows, packed_block(o), cpu::panel_of<Factor>(panel), depth, dx.row(row) + k, w.inputs,
                                 width, add || o > 0 ? cpu::into::resume : cpu::into::overwrite);
          }
        }
      });
    });
  }

  /// Where element (input, lane) of a panel lies.
  template <class W>
  static constexpr index_t place(index_t k, index_t lane) {
    if constexpr (std::is_same_v<W, bf16>)
      return (k / 2 * cpu::panel_width + lane) * 2 + k % 2;
    else
      return k * cpu::panel_width + lane;
  }

  /// f(panel, first lane, row, count) for the panels that hold outputs [first, first + count).
  template <class W, class F>
  static void for_each_panel(cpu_threads& threads, weight_view<cpu_backend, W> w, index_t first, index_t count,
                             F const& f) {
    index_t const begin = first / cpu::panel_width, end = panels(first + count);
    threads.split(end - begin, atmanrl::detail::row_grain(w.inputs * cpu::panel_width), [&](index_t a, index_t b) {
      for (index_t p = begin + a; p < begin + b; ++p) {
        index_t const from = std::max(first, p * cpu::panel_width),
                      to = std::min(first + count, (p + 1) * cpu::panel_width);
        f(w.data + p * cpu::panel_size<W>(w.inputs), from - p * cpu::panel_width, from - first, to - from);
      }
    });
  }

  /// The next panel's block lies too far away for the processor to foresee.
  template <class W>
  static void prefetch_block(W const* p) {
    constexpr index_t line = 64, bytes = cpu::panel_width * cpu::panel_width * index_t(sizeof(W));
    for (index_t i = 0; i < bytes; i += line) __builtin_prefetch(reinterpret_cast<char const*>(p) + i);
  }

  /// target[output][32] = the panel's inputs [k, k + width), zero behind them, for its 32 outputs; as pairs of outputs
  /// where the target holds pairs.
  static void transpose_block(float const* panel, index_t k, index_t width, float* target) {
    cpu::transpose_to_panel(panel + k * cpu::panel_width, cpu::panel_width, width, cpu::panel_width, target);
  }
  template <class Factor>
  static void transpose_block(bf16 const* panel, index_t k, index_t width, Factor* target) {
    using simd::lanes;
    auto const* const words = reinterpret_cast<std::uint32_t const*>(panel) + k / 2 * cpu::panel_width;
    for (index_t r = 0; r < cpu::panel_width; r += lanes) {
      for (index_t c = 0; c < cpu::panel_width; c += lanes) {
        simd::floats block[lanes];
#pragma GCC unroll 8
        for (index_t i = 0; i < lanes; i += 2) {
          simd::words const pair =
              r + i < width ? simd::load(words + (r + i) / 2 * cpu::panel_width + c) : simd::words{};
          block[i] = simd::even_bf16(pair);
          block[i + 1] = simd::odd_bf16(pair);
        }
        simd::transpose(block);
        if constexpr (std::is_same_v<Factor, float>) {
#pragma GCC unroll 16
          for (index_t i = 0; i < lanes; ++i) simd::store(target + (c + i) * cpu::panel_width + r, block[i]);
        } else {
#pragma GCC unroll 8
          for (index_t i = 0; i < lanes; i += 2)
            simd::store(target + (c + i) / 2 * cpu::panel_width + r, simd::to_bf16_pairs(block[i], block[i + 1]));
        }
      }
    }
  }
};

}  // namespace atmanrl
