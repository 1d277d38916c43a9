#pragma once

/// \file
/// Products with a weight that is kept as panels of 32 outputs, [panel][input][32]: the forward product streams them as
/// they lie, and both directions read the one copy. A float weight may be stored as bf16 panels
/// (weight_storage::bf16), which interleave two inputs, [panel][input / 2][32][2]; their
/// elements meet activations that are rounded to bf16 on the way where there are fast instructions for such pairs;
/// else, or when cpu_options::exact_activations asks for it, they are widened exactly and multiplied with float
/// activations (cpu/bf16_products.hpp chooses). The gradient of a weight is computed from floats,
/// unless cpu_options::gradients asks for AMX. Float weights may be packed: panels of a quantised file's blocks
/// (cpu/packed_product.hpp), multiplied as the floats that they stand for, or as whole numbers where
/// cpu_options::int8_products asks for it.

#include <atmanrl/cpu/amx_gradient.hpp>
#include <atmanrl/cpu/amx_int8_product.hpp>
#include <atmanrl/cpu/packed_product.hpp>
#include <atmanrl/cpu/panel_products.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/matmul.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::matmul<cpu_backend> {
  static constexpr index_t output_granularity = cpu::panel_width;
  static constexpr bool keeps_blocks = true, keeps_bf16 = true;

  /// Outputs are padded with zeros to whole panels.
  template <class W>
  static constexpr index_t storage_size(index_t outputs, index_t inputs) {
    static_assert(std::is_same_v<W, float> || std::is_same_v<W, bf16>,
                  "atmanrl: cpu_backend keeps weights in float or bf16");
    return cpu::panels(outputs) * cpu::panel_size<W>(inputs);
  }

  template <class W, class T>
  static void assign_rows(cpu_threads& threads, weight_view<cpu_backend, W> w, index_t first, view<T const, 2> rows) {
    atmanrl::detail::computes_in_float<T>();
    if constexpr (std::is_same_v<W, float>)
      if (w.rounded) return assign_rows(threads, w.as_bf16(), first, rows);
    for_each_panel(threads, w, first, rows.extent(0), [&](index_t, W* panel, index_t lane, index_t row, index_t count) {
      for (index_t k = 0; k < w.inputs; ++k)
        for (index_t i = 0; i < count; ++i) panel[place<W>(k, lane + i)] = W(rows(row + i, k));
    });
  }

  template <class W, class T>
  static void read_rows(cpu_threads& threads, weight_view<cpu_backend, W> w, index_t first, view<T, 2> rows) {
    atmanrl::detail::computes_in_float<T>();
    if constexpr (std::is_same_v<W, float>)
      if (w.rounded) return read_rows(threads, w.as_bf16(), first, rows);
    for_each_panel(threads, w, first, rows.extent(0),
                   [&](index_t p, W* panel, index_t lane, index_t row, index_t count) {
                     if (w.packed && is_quantised(w.packed[p].type)) {
                       for (index_t i = 0; i < count; ++i)
                         cpu::read_packed_row(w.packed[p], lane + i, w.inputs, rows.row(row + i));
                       return;
                     }
                     for (index_t k = 0; k < w.inputs; ++k)
                       for (index_t i = 0; i < count; ++i) rows(row + i, k) = float(panel[place<W>(k, lane + i)]);
                   });
  }

  /// Rows as a quantised file has them; those whose panel is floats are decoded.
  template <class W>
  static void assign_blocks(cpu_threads& threads, weight_view<cpu_backend, W> w, index_t first, gguf_type type,
                            std::span<std::byte const> rows) {
    index_t const row_bytes = bytes_of(type, w.inputs);
    for_each_panel(threads, w, first, index_t(rows.size()) / row_bytes,
                   [&](index_t p, float* floats, index_t lane, index_t row, index_t count) {
                     std::byte const* const from = rows.data() + row * row_bytes;
                     if (is_quantised(w.packed[p].type))
                       return cpu::pack_blocks(type, from, row_bytes, count, lane, w.packed[p].bytes);
                     std::vector<float> decoded(std::size_t(w.inputs));
                     for (index_t i = 0; i < count; ++i) {
                       atmanrl::detail::dequantize(type, from + i * row_bytes, w.inputs, decoded.data());
                       for (index_t k = 0; k < w.inputs; ++k)
                         floats[place<float>(k, lane + i)] = decoded[std::size_t(k)];
                     }
                   });
  }

  /// One row of the weight, widened exactly.
  template <class W>
  static void read_row(weight_view<cpu_backend, W> w, index_t row, float* to) {
    if constexpr (std::is_same_v<W, float>)
      if (w.rounded) return read_row(w.as_bf16(), row, to);
    index_t const p = row / cpu::panel_width;
    if (w.packed && is_quantised(w.packed[p].type))
      return cpu::read_packed_row(w.packed[p], row % cpu::panel_width, w.inputs, to);
    W const* const panel = floats_of(w, p);
    for (index_t k = 0; k < w.inputs; ++k) to[k] = float(panel[place<W>(k, row % cpu::panel_width)]);
  }

  template <class W, class T>
  static void forward(cpu_threads& threads, view<T const, 2> x, weight_view<cpu_backend, W> w, view<T, 2> y, bool add) {
    atmanrl::detail::computes_in_float<T>();
    if constexpr (std::is_same_v<W, float>)
      if (w.packed) {
        auto const multiply = [&](auto const& product) {
          cpu::multiply_by_panels(threads, product, x, panels_of(w), y, add);
        };
        if (!threads.int8_products()) return multiply(cpu::packed_product{});
        if (threads.int8_instructions() == byte_products::vectors || x.extent(0) < cpu::amx_int8_product::least_rows)
          return multiply(cpu::int8_product{});
        return multiply(cpu::amx_int8_product{.twin = threads.int8_instructions() == byte_products::amx_twin});
      }
    with_product(threads, w, [&](auto const& product, auto stored) {
      cpu::multiply_by_panels(threads, product, x, stored, y, add);
    });
  }

  template <class W, class T>
  static void backward_input(cpu_threads& threads, view<T const, 2> dy, weight_view<cpu_backend, W> w, view<T, 2> dx,
                             bool add) {
    atmanrl::detail::computes_in_float<T>();
    if constexpr (std::is_same_v<W, float>)
      if (w.packed)
        return cpu::multiply_by_transposed_panels(threads, cpu::packed_product{}, dy, panels_of(w), dx, add);
    with_product(threads, w, [&](auto const& product, auto stored) {
      cpu::multiply_by_transposed_panels(threads, product, dy, stored, dx, add);
    });
  }

  // Rows in ascending order into accumulators that begin with dw, so that micro-batches give the bits of the whole
  // batch.
  template <class T>
  static void backward_weight(cpu_threads& threads, view<T const, 2> dy, view<T const, 2> x, view<T, 2> dw) {
    atmanrl::detail::computes_in_float<T>();
    switch (threads.gradients()) {
      case weight_gradients::split:
        return cpu::add_weight_gradient<cpu::amx::parts::split>(threads, amx_of(threads), dy, x, dw);
      case weight_gradients::rounded:
        return cpu::add_weight_gradient<cpu::amx::parts::rounded>(threads, amx_of(threads), dy, x, dw);
      case weight_gradients::floats:
        break;
    }
    index_t const rows = x.extent(0), outputs = dw.extent(0), inputs = dw.extent(1);
    index_t const worth = std::min(rows, weight_row_block) * outputs * inputs / cpu::least_products,
                  members = std::min(worth, index_t{threads.threads()});
    index_t const needed = (outputs + output_group - 1) / output_group;
    index_t const groups = members > 1 ? (needed + members - 1) / members * members : needed;
    index_t const strips = cpu::panels(inputs);
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

 private:
  static constexpr index_t output_group = 12 * cpu::tile_rows;  // outputs that a thread takes at a time
  static constexpr index_t weight_row_block = 256;  // rows of a packed strip of x: 32 KiB, as the first-level cache

  static cpu::amx_product amx_of(cpu_threads const& threads) {
    return {.twin = threads.products() == bf16_products::amx_twin};
  }

  /// Calls f(product, weight) with the product that the backend uses for such a weight, and a view of what it is stored
  /// as.
  template <class W, class F>
  static void with_product(cpu_threads const& threads, weight_view<cpu_backend, W> w, F const& f) {
    if constexpr (std::is_same_v<W, float>)
      if (w.rounded) return with_product(threads, w.as_bf16(), f);
    if constexpr (std::is_same_v<W, bf16>) {
      switch (threads.products()) {
        case bf16_products::amx:
        case bf16_products::amx_twin:
          return f(amx_of(threads), w);
        case bf16_products::bfmmla:
        case bf16_products::bfmmla_twin:
          return f(cpu::bfmmla_product{.twin = threads.products() == bf16_products::bfmmla_twin}, w);
        case bf16_products::pairs:
          if constexpr (simd::has_dot_bf16) return f(cpu::vector_product<std::uint32_t>{}, w);
          break;
        case bf16_products::floats:
        case bf16_products::by_processor:  // the backend has chosen
          break;
      }
    }
    f(cpu::vector_product<float>{}, w);
  }

  /// Where element (input, lane) of a panel lies.
  template <class W>
  static constexpr index_t place(index_t k, index_t lane) {
    if constexpr (std::is_same_v<W, bf16>)
      return (k / 2 * cpu::panel_width + lane) * 2 + k % 2;
    else
      return k * cpu::panel_width + lane;
  }

  template <class W>
  static cpu::packed_panels panels_of(weight_view<cpu_backend, W> w) {
    return {w.packed, w.outputs, w.inputs};
  }
  /// A panel that is no blocks.
  template <class W>
  static W* floats_of(weight_view<cpu_backend, W> w, index_t p) {
    if constexpr (std::is_same_v<W, float>)
      if (w.packed) return reinterpret_cast<float*>(w.packed[p].bytes);
    return w.data + p * cpu::panel_size<W>(w.inputs);
  }

  /// f(number of the panel, panel, first lane, row, count) for the panels that hold outputs [first, first + count).
  template <class W, class F>
  static void for_each_panel(cpu_threads& threads, weight_view<cpu_backend, W> w, index_t first, index_t count,
                             F const& f) {
    index_t const begin = first / cpu::panel_width, end = cpu::panels(first + count);
    threads.split(end - begin, atmanrl::detail::row_grain(w.inputs * cpu::panel_width), [&](index_t a, index_t b) {
      for (index_t p = begin + a; p < begin + b; ++p) {
        index_t const from = std::max(first, p * cpu::panel_width),
                      to = std::min(first + count, (p + 1) * cpu::panel_width);
        f(p, floats_of(w, p), from - p * cpu::panel_width, from - first, to - from);
      }
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
