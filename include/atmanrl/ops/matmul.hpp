#pragma once

/// \file
/// Products with a weight: y = x Wᵀ and its two backward products. A weight is kept once, in whatever layout the
/// backend reads fastest (rows as written for plain loops, packed panels on the CPU); all three products read that one
/// copy. What a float weight is stored as is its own state, not its type: floats, bfloat16, or the blocks of a
/// quantised file (ops/packed_rows.hpp), whose products have the bits that they have with the decoded weight.

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/ops/packed_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace kernels {

/// A backend provides weights and their products by specialising this template; see cpu/matmul.hpp.
template <class B>
struct matmul {
  static_assert(detail::always_false<B>,
                "atmanrl: no matmul kernel for this backend; specialise atmanrl::kernels::matmul<B>");
};

}  // namespace kernels

/// What the matrices of a model are stored as. A part of the function that it computes, but for `packed`.
enum class weight_storage {
  full,    ///< as the type that the model names: float, for instance
  bf16,    ///< rounded to bfloat16, under float on a backend that keeps that (KeepsBf16)
  packed,  ///< what a file holds quantised stays its blocks (KeepsBlocks), all else is `full`
};

/// Whether float weights of a backend may be stored as bfloat16. Its kernels::matmul then has kernels for weight views
/// of both, and those for floats look at weight_view::rounded. Where products take bfloat16 in both factors (factor_t)
/// it is a type instead, decoder<B, bf16>, because everything that writes a factor is compiled for it.
template <class B, class W>
concept KeepsBf16 = std::same_as<W, float> && requires {
  requires kernels::matmul<B>::keeps_bf16;
};

/// Whether float weights of a backend may stay the blocks of a quantised file. Its kernels::matmul then has `static
/// void assign_blocks(backend, weight_view, first, type, bytes)` beside `assign_rows`, and its kernels look at
/// weight_view::packed.
template <class B, class W>
concept KeepsBlocks = std::same_as<W, float> && requires {
  requires kernels::matmul<B>::keeps_blocks;
};

/// A weight (outputs, inputs) in the layout of backend `B`, stored as `W`; not owning.
template <Backend B, class W>
struct weight_view {
  W* data = nullptr;
  index_t outputs = 0, inputs = 0;
  packed_panel const* packed = nullptr;  ///< where the weight is packed, which has no `data`: its panels
  bf16* rounded = nullptr;               ///< in place of `data` where it is stored as bfloat16

  /// The same as a view of what it is stored as.
  weight_view<B, bf16> as_bf16() const { return {rounded, outputs, inputs}; }

  /// Outputs [first, first + count); `first` must be a multiple of the backend's output granularity.
  weight_view rows(index_t first, index_t count) const {
    expects<shape_error>(
        first >= 0 && first % kernels::matmul<B>::output_granularity == 0 && count >= 0 && first + count <= outputs,
        "rows [{}, {}) of a weight of {} outputs: the first must be a multiple of {}", first, first + count, outputs,
        kernels::matmul<B>::output_granularity);
    if (packed) return {nullptr, count, inputs, packed + first / kernels::matmul<B>::output_granularity};
    if constexpr (KeepsBf16<B, W>)
      if (rounded) return {nullptr, count, inputs, nullptr, as_bf16().rows(first, count).data};
    return {data + kernels::matmul<B>::template storage_size<W>(first, inputs), count, inputs};
  }
};

/// Owning form of `weight_view`.
template <Backend B, class W>
class weight {
 public:
  using scalar = compute_t<W>;

  weight() = default;
  /// One of zeros; a packed one has no memory yet, since a file says of which types its rows are: it is to be replaced.
  /// \throws usage_error when the backend does not store `W` so
  weight(B& backend, index_t outputs, index_t inputs, weight_storage how = weight_storage::full)
      : outputs_(outputs), inputs_(inputs) {
    if (how == weight_storage::full) {
      full_ = tensor<B, W, 1>::zeros(backend, {kernels::matmul<B>::template storage_size<W>(outputs, inputs)});
    } else if (how == weight_storage::bf16) {
      if constexpr (KeepsBf16<B, W>)
        rounded_ =
            tensor<B, bf16, 1>::zeros(backend, {kernels::matmul<B>::template storage_size<bf16>(outputs, inputs)});
      else
        fail<usage_error>("weights of this type on the {} backend are not stored as bfloat16", B::name);
    }
  }
  /// One of zeros whose rows stay blocks where their types are quantised; the others are floats, and so are panels
  /// that types share. Without a quantised type it is a weight like any other.
  /// \param rows  from the first to the last
  /// \throws usage_error when the backend keeps no blocks under `W`
  weight(B& backend, index_t inputs, std::span<typed_rows const> rows) : outputs_(rows_of(rows)), inputs_(inputs) {
    if (!has_quantised(rows)) {
      *this = weight(backend, outputs_, inputs);
    } else if constexpr (KeepsBlocks<B, W>) {
      packed_ = panels_of(rows, inputs);
      bytes_ = tensor<B, std::byte, 1>::zeros(backend, {index_t(bytes(rows, inputs))});
      std::byte* at = bytes_.data();
      for (packed_panel& p : packed_) {
        p.bytes = at;
        at += panel_bytes(p.type, inputs);
      }
    } else {
      fail<usage_error>(
          "weights of this storage on the {} backend cannot stay the blocks of a quantised file; load the model "
          "decoded",
          B::name);
    }
  }
  /// Bytes that a weight of such rows takes.
  static std::size_t bytes(std::span<typed_rows const> rows, index_t inputs) {
    if (!has_quantised(rows))
      return sizeof(W) * std::size_t(kernels::matmul<B>::template storage_size<W>(rows_of(rows), inputs));
    std::size_t all = 0;
    for (packed_panel const& p : panels_of(rows, inputs)) all += panel_bytes(p.type, inputs);
    return all;
  }

  weight_view<B, W> view() const {
    return {const_cast<W*>(full_.data()), outputs_, inputs_, packed_.empty() ? nullptr : packed_.data(),
            const_cast<bf16*>(rounded_.data())};
  }
  index_t outputs() const { return outputs_; }
  index_t inputs() const { return inputs_; }
  bool is_packed() const { return !packed_.empty(); }

  /// Rounds row-major rows into the weight, as its rows [first, first + rows.extent(0)); any `first`.
  /// \throws usage_error for rows that are quantised
  void assign_rows(B& backend, index_t first, view_on<B, scalar const, 2> rows) {
    check_rows(first, rows.extent(0), rows.extent(1));
    for_each_panel(first, rows.extent(0), [](packed_panel const& p) {
      expects<usage_error>(!is_quantised(p.type),
                           "a packed weight of {} cannot be changed: train adapters instead, or load the model decoded",
                           find_gguf_type(std::uint32_t(p.type))->name);
    });
    kernels::matmul<B>::assign_rows(backend, view(), first, rows);
  }
  /// Takes rows as a file has them, as rows [first, ...) of a packed weight, decoding them where their panel is floats.
  void assign_blocks(B& backend, index_t first, gguf_type type, std::span<std::byte const> rows) {
    index_t const row_bytes = std::max<index_t>(1, bytes_of(type, inputs_)), count = index_t(rows.size()) / row_bytes;
    check_rows(first, count, inputs_);
    expects<shape_error>(is_packed() && count * row_bytes == index_t(rows.size()),
                         "{} bytes are no rows of {} for a packed weight of {} inputs", rows.size(),
                         find_gguf_type(std::uint32_t(type))->name, inputs_);
    for_each_panel(first, count, [&](packed_panel const& p) {
      expects<shape_error>(!is_quantised(p.type) || p.type == type, "rows of {} among rows of {}",
                           find_gguf_type(std::uint32_t(type))->name, find_gguf_type(std::uint32_t(p.type))->name);
    });
    if constexpr (KeepsBlocks<B, W>) kernels::matmul<B>::assign_blocks(backend, view(), first, type, rows);
  }
  /// Writes rows [first, first + rows.extent(0)) in row-major order, widened exactly.
  void read_rows(B& backend, index_t first, view_on<B, scalar, 2> rows) const {
    check_rows(first, rows.extent(0), rows.extent(1));
    kernels::matmul<B>::read_rows(backend, view(), first, rows);
  }

 private:
  static constexpr index_t panel_rows = kernels::matmul<B>::output_granularity;

  static std::size_t panel_bytes(gguf_type type, index_t inputs) {
    return is_quantised(type)
               ? std::size_t(panel_rows * bytes_of(type, inputs))
               : sizeof(W) * std::size_t(kernels::matmul<B>::template storage_size<W>(panel_rows, inputs));
  }

  /// Their types; they have no bytes yet.
  static std::vector<packed_panel> panels_of(std::span<typed_rows const> rows, index_t inputs) {
    std::vector<packed_panel> panels;
    index_t first = 0;
    for (typed_rows const& each : rows) {
      expects<shape_error>(inputs % find_gguf_type(std::uint32_t(each.type))->block_elements == 0,
                           "rows of {} inputs are no whole blocks of {}", inputs,
                           find_gguf_type(std::uint32_t(each.type))->name);
      gguf_type const type = is_quantised(each.type) ? each.type : gguf_type::f32;
      for (index_t p = first / panel_rows; p * panel_rows < first + each.rows; ++p) {
        if (p == index_t(panels.size()))
          panels.push_back({type, nullptr});
        else if (panels[std::size_t(p)].type != type)
          panels[std::size_t(p)].type = gguf_type::f32;
      }
      first += each.rows;
    }
    return panels;
  }

  void check_rows(index_t first, index_t count, index_t columns) const {
    expects<shape_error>(columns == inputs_ && first >= 0 && first + count <= outputs_,
                         "rows [{}, {}) of {} columns do not fit a weight of ({}, {})", first, first + count, columns,
                         outputs_, inputs_);
  }
  template <class F>
  void for_each_panel(index_t first, index_t count, F const& f) const {
    if (!is_packed() || count == 0) return;
    for (index_t p = first / panel_rows; p * panel_rows < first + count; ++p) f(packed_[std::size_t(p)]);
  }

  tensor<B, W, 1> full_;
  tensor<B, bf16, 1> rounded_;        // of one stored as bfloat16
  tensor<B, std::byte, 1> bytes_;     // of a packed weight
  std::vector<packed_panel> packed_;  // the same in panels of `panel_rows` outputs
  index_t outputs_ = 0, inputs_ = 0;
};

namespace kernels {

/// Plain loops over row-major weights.
template <>
struct matmul<reference_backend> {
  static constexpr index_t output_granularity = 1;

  template <class W>
  static constexpr index_t storage_size(index_t outputs, index_t inputs) {
    return outputs * inputs;
  }

  template <class W, class T>
  static void assign_rows(reference_backend&, weight_view<reference_backend, W> w, index_t first,
                          view<T const, 2> rows) {
    for (index_t i = 0; i < rows.size(); ++i) w.data[first * w.inputs + i] = W(rows.data()[i]);
  }

  template <class W, class T>
  static void read_rows(reference_backend&, weight_view<reference_backend, W> w, index_t first, view<T, 2> rows) {
    for (index_t i = 0; i < rows.size(); ++i) rows.data()[i] = T(w.data[first * w.inputs + i]);
  }

  template <class W, class T>
  static void forward(reference_backend&, view<T const, 2> x, weight_view<reference_backend, W> w, view<T, 2> y,
                      bool add) {
    for (index_t r = 0; r < x.extent(0); ++r) {
      for (index_t o = 0; o < w.outputs; ++o) {
        T sum{};
        for (index_t k = 0; k < w.inputs; ++k) sum += x(r, k) * T(w.data[o * w.inputs + k]);
        y(r, o) = add ? y(r, o) + sum : sum;
      }
    }
  }

  template <class W, class T>
  static void backward_input(reference_backend&, view<T const, 2> dy, weight_view<reference_backend, W> w,
                             view<T, 2> dx, bool add) {
    for (index_t r = 0; r < dy.extent(0); ++r) {
      for (index_t k = 0; k < w.inputs; ++k) {
        T sum{};
        for (index_t o = 0; o < w.outputs; ++o) sum += dy(r, o) * T(w.data[o * w.inputs + k]);
        dx(r, k) = add ? dx(r, k) + sum : sum;
      }
    }
  }

  template <class T>
  static void backward_weight(reference_backend&, view<T const, 2> dy, view<T const, 2> x, view<T, 2> dw) {
    for (index_t o = 0; o < dw.extent(0); ++o) {
      for (index_t k = 0; k < dw.extent(1); ++k) {
        T sum{};
        for (index_t r = 0; r < x.extent(0); ++r) sum += dy(r, o) * x(r, k);
        dw(o, k) += sum;
      }
    }
  }
};

}  // namespace kernels

namespace detail {
template <class Products, class W>
concept NamesFactors = requires {
  typename Products::template factor<W>::type;
};
template <class B, class W>
struct factor_of {
  using type = compute_t<W>;
};
template <class B, class W>
requires NamesFactors<kernels::matmul<B>, W>
struct factor_of<B, W> {
  using type = typename kernels::matmul<B>::template factor<W>::type;
};
}  // namespace detail

/// What a backend multiplies weights that are stored as `W` with: their scalar, or what its kernels::matmul names as
/// `factor<W>::type`. Where that is another type, scalars are rounded to it in a pass in front of the product; whoever
/// computes a factor saves the pass by writing this type.
template <Backend B, class W>
using factor_t = typename detail::factor_of<B, W>::type;

/// What a product does to its output.
enum class store { overwrite, add };

namespace detail {
template <class X, class W, class Y>
void expects_product(X const& x, W const& w, Y const& y) {
  expects<shape_error>(x.extent(1) == w.inputs && y.extent(0) == x.extent(0) && y.extent(1) == w.outputs,
                       "y {} = x {} times a weight of ({}, {}) does not fit", y.shape(), x.shape(), w.outputs,
                       w.inputs);
}
template <class D, class W, class X>
void expects_input_product(D const& dy, W const& w, X const& dx) {
  expects<shape_error>(dy.extent(1) == w.outputs && dx.extent(0) == dy.extent(0) && dx.extent(1) == w.inputs,
                       "dx {} = dy {} times a weight of ({}, {}) does not fit", dx.shape(), dy.shape(), w.outputs,
                       w.inputs);
}
template <class D, class X, class W>
void expects_weight_product(D const& dy, X const& x, W const& dw) {
  expects<shape_error>(dy.extent(0) == x.extent(0) && dw.extent(0) == dy.extent(1) && dw.extent(1) == x.extent(1),
                       "dw {} = transposed dy {} times x {} does not fit", dw.shape(), dy.shape(), x.shape());
}
}  // namespace detail

/// y = x Wᵀ, or y += x Wᵀ. An element's bits do not depend on how many rows x has (the bit rule).
/// \param x  (rows, inputs)
/// \param w  (outputs, inputs)
/// \param y  (rows, outputs)
/// \throws shape_error when extents disagree
template <Backend B, class W, class T>
void matmul(B& backend, std::type_identity_t<view_on<B, T const, 2>> x, weight_view<B, W> w,
            view<T, 2, typename B::memory_space> y, store how = store::overwrite) {
  detail::expects_product(x, w, y);
  kernels::matmul<B>::forward(backend, x, w, y, how == store::add);
}
/// The same with an x that is a factor already, where those are no scalars; so of the other two products.
template <Backend B, class W, class T>
requires(!std::same_as<factor_t<B, W>, T>) void matmul(B& backend, view_on<B, factor_t<B, W> const, 2> x,
                                                       weight_view<B, W> w, view<T, 2, typename B::memory_space> y,
                                                       store how = store::overwrite) {
  detail::expects_product(x, w, y);
  kernels::matmul<B>::forward(backend, x, w, y, how == store::add);
}

/// dx = dy W, or dx += dy W.
/// \param dy (rows, outputs)
/// \param dx (rows, inputs)
template <Backend B, class W, class T>
void matmul_backward_input(B& backend, std::type_identity_t<view_on<B, T const, 2>> dy, weight_view<B, W> w,
                           view<T, 2, typename B::memory_space> dx, store how = store::overwrite) {
  detail::expects_input_product(dy, w, dx);
  kernels::matmul<B>::backward_input(backend, dy, w, dx, how == store::add);
}
template <Backend B, class W, class T>
requires(!std::same_as<factor_t<B, W>, T>) void matmul_backward_input(B& backend,
                                                                      view_on<B, factor_t<B, W> const, 2> dy,
                                                                      weight_view<B, W> w,
                                                                      view<T, 2, typename B::memory_space> dx,
                                                                      store how = store::overwrite) {
  detail::expects_input_product(dy, w, dx);
  kernels::matmul<B>::backward_input(backend, dy, w, dx, how == store::add);
}

/// y = s x Wᵀ in what products take (factor_t), for backends where those are no scalars; sums are scalars, and an
/// element is rounded once.
/// \param x  (rows, inputs)
/// \param y  (rows, outputs)
template <Backend B, class W>
void matmul_into_factor(B& backend, view_on<B, factor_t<B, W> const, 2> x, weight_view<B, W> w, real_t<compute_t<W>> s,
                        view_on<B, factor_t<B, W>, 2> y) {
  detail::expects_product(x, w, y);
  kernels::matmul<B>::forward_into_factor(backend, x, w, s, y);
}
/// dx = s dy W, likewise.
template <Backend B, class W>
void matmul_backward_input_into_factor(B& backend, view_on<B, factor_t<B, W> const, 2> dy, weight_view<B, W> w,
                                       real_t<compute_t<W>> s, view_on<B, factor_t<B, W>, 2> dx) {
  detail::expects_input_product(dy, w, dx);
  kernels::matmul<B>::backward_input_into_factor(backend, dy, w, s, dx);
}

/// dW += dyᵀ x, row-major in the layout of the parameter, not of the packed weight.
/// \param dy (rows, outputs)
/// \param x  (rows, inputs)
/// \param dw (outputs, inputs)
template <Backend B, class T>
void matmul_backward_weight(B& backend, std::type_identity_t<view_on<B, T const, 2>> dy,
                            std::type_identity_t<view_on<B, T const, 2>> x, view<T, 2, typename B::memory_space> dw) {
  detail::expects_weight_product(dy, x, dw);
  kernels::matmul<B>::backward_weight(backend, dy, x, dw);
}
/// Of two factors, as the other two products had them.
template <Backend B, class T, class F>
requires(!std::same_as<F, T>) void matmul_backward_weight(B& backend, view<F const, 2, typename B::memory_space> dy,
                                                          std::type_identity_t<view_on<B, F const, 2>> x,
                                                          view<T, 2, typename B::memory_space> dw) {
  detail::expects_weight_product(dy, x, dw);
  kernels::matmul<B>::backward_weight(backend, dy, x, dw);
}

}  // namespace atmanrl::inline ATMANRL_ABI
