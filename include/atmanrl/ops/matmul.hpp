#pragma once

/// \file
/// Products with a weight: y = x Wᵀ and its two backward products. A weight is kept once, in whatever layout the
/// backend reads fastest (rows as written for plain loops, packed panels on the CPU); all three products read that one
/// copy.

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>
#include <atmanrl/core/view.hpp>

namespace atmanrl {

namespace kernels {

/// A backend provides weights and their products by specialising this template; see cpu/matmul.hpp.
template <class B>
struct matmul {
  static_assert(detail::always_false<B>,
                "atmanrl: no matmul kernel for this backend; specialise atmanrl::kernels::matmul<B>");
};

}  // namespace kernels

/// A weight (outputs, inputs) in the layout of backend `B`, stored as `W`; not owning.
template <Backend B, class W>
struct weight_view {
  W* data = nullptr;
  index_t outputs = 0, inputs = 0;

  /// Outputs [first, first + count); `first` must be a multiple of the backend's output granularity.
  weight_view rows(index_t first, index_t count) const {
    expects<shape_error>(
        first >= 0 && first % kernels::matmul<B>::output_granularity == 0 && count >= 0 && first + count <= outputs,
        "rows [{}, {}) of a weight of {} outputs: the first must be a multiple of {}", first, first + count, outputs,
        kernels::matmul<B>::output_granularity);
    return {data + kernels::matmul<B>::template storage_size<W>(first, inputs), count, inputs};
  }
};

/// Owning form of `weight_view`.
template <Backend B, class W>
class weight {
 public:
  using scalar = compute_t<W>;

  weight() = default;
  weight(B& backend, index_t outputs, index_t inputs)
      : storage_(tensor<B, W, 1>::zeros(backend, {kernels::matmul<B>::template storage_size<W>(outputs, inputs)})),
        outputs_(outputs),
        inputs_(inputs) {}

  weight_view<B, W> view() const { return {const_cast<W*>(storage_.data()), outputs_, inputs_}; }
  index_t outputs() const { return outputs_; }
  index_t inputs() const { return inputs_; }

  /// Rounds row-major rows into the weight, as its rows [first, first + rows.extent(0)); any `first`.
  void assign_rows(B& backend, index_t first, view_on<B, scalar const, 2> rows) {
    expects<shape_error>(rows.extent(1) == inputs_ && first >= 0 && first + rows.extent(0) <= outputs_,
                         "rows [{}, {}) of {} columns do not fit a weight of ({}, {})", first, first + rows.extent(0),
                         rows.extent(1), outputs_, inputs_);
    kernels::matmul<B>::assign_rows(backend, view(), first, rows);
  }
  /// Writes rows [first, first + rows.extent(0)) in row-major order, widened exactly.
  void read_rows(B& backend, index_t first, view_on<B, scalar, 2> rows) const {
    expects<shape_error>(rows.extent(1) == inputs_ && first >= 0 && first + rows.extent(0) <= outputs_,
                         "rows [{}, {}) of {} columns do not fit a weight of ({}, {})", first, first + rows.extent(0),
                         rows.extent(1), outputs_, inputs_);
    kernels::matmul<B>::read_rows(backend, view(), first, rows);
  }

 private:
  tensor<B, W, 1> storage_;
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

/// What a product does to its output.
enum class store { overwrite, add };

/// y = x Wᵀ, or y += x Wᵀ. An element's bits do not depend on how many rows x has (the bit rule).
/// \param x  (rows, inputs)
/// \param w  (outputs, inputs)
/// \param y  (rows, outputs)
/// \throws shape_error when extents disagree
template <Backend B, class W, class T>
void matmul(B& backend, std::type_identity_t<view_on<B, T const, 2>> x, weight_view<B, W> w,
            view<T, 2, typename B::memory_space> y, store how = store::overwrite) {
  expects<shape_error>(x.extent(1) == w.inputs && y.extent(0) == x.extent(0) && y.extent(1) == w.outputs,
                       "y {} = x {} times a weight of ({}, {}) does not fit", y.shape(), x.shape(), w.outputs,
                       w.inputs);
  kernels::matmul<B>::forward(backend, x, w, y, how == store::add);
}

/// dx = dy W, or dx += dy W.
/// \param dy (rows, outputs)
/// \param dx (rows, inputs)
template <Backend B, class W, class T>
void matmul_backward_input(B& backend, std::type_identity_t<view_on<B, T const, 2>> dy, weight_view<B, W> w,
                           view<T, 2, typename B::memory_space> dx, store how = store::overwrite) {
  expects<shape_error>(dy.extent(1) == w.outputs && dx.extent(0) == dy.extent(0) && dx.extent(1) == w.inputs,
                       "dx {} = dy {} times a weight of ({}, {}) does not fit", dx.shape(), dy.shape(), w.outputs,
                       w.inputs);
  kernels::matmul<B>::backward_input(backend, dy, w, dx, how == store::add);
}

/// dW += dyᵀ x, row-major in the layout of the parameter, not of the packed weight.
/// \param dy (rows, outputs)
/// \param x  (rows, inputs)
/// \param dw (outputs, inputs)
template <Backend B, class T>
void matmul_backward_weight(B& backend, std::type_identity_t<view_on<B, T const, 2>> dy,
                            std::type_identity_t<view_on<B, T const, 2>> x, view<T, 2, typename B::memory_space> dw) {
  expects<shape_error>(dy.extent(0) == x.extent(0) && dw.extent(0) == dy.extent(1) && dw.extent(1) == x.extent(1),
                       "dw {} = transposed dy {} times x {} does not fit", dw.shape(), dy.shape(), x.shape());
  kernels::matmul<B>::backward_weight(backend, dy, x, dw);
}

}  // namespace atmanrl
