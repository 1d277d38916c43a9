#pragma once

/// \file
/// Rows by index: token embeddings out of a weight, and gathering or scattering rows of activations.

#include <atmanrl/ops/matmul.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace kernels {

/// A backend provides row look-ups by specialising this template.
template <class B>
struct embedding {
  static_assert(detail::always_false<B>,
                "atmanrl: no embedding kernel for this backend; specialise atmanrl::kernels::embedding<B>");
};

template <>
struct embedding<reference_backend> {
  template <class W, class T>
  static void forward(reference_backend&, view<int const, 1> ids, weight_view<reference_backend, W> table,
                      view<T, 2> y) {
    for (index_t r = 0; r < ids.extent(0); ++r)
      for (index_t c = 0; c < table.inputs; ++c) y(r, c) = T(table.data[ids(r) * table.inputs + c]);
  }
  template <class T>
  static void gather_rows(reference_backend&, view<T const, 2> x, view<int const, 1> rows, view<T, 2> y) {
    for (index_t r = 0; r < rows.extent(0); ++r)
      for (index_t c = 0; c < x.extent(1); ++c) y(r, c) = x(rows(r), c);
  }
  template <class T>
  static void add_rows(reference_backend&, view<T const, 2> dy, view<int const, 1> rows, view<T, 2> dx) {
    for (index_t r = 0; r < rows.extent(0); ++r)
      for (index_t c = 0; c < dx.extent(1); ++c) dx(rows(r), c) += dy(r, c);
  }
};

}  // namespace kernels

/// y(r, :) = table(ids(r), :). Ids are checked by the caller, which knows where they came from.
/// \param ids   (rows), each in [0, table.outputs)
/// \param table (vocabulary, dim)
/// \param y     (rows, dim)
template <Backend B, class W, class T>
void embed(B& backend, std::type_identity_t<view_on<B, int const, 1>> ids, weight_view<B, W> table,
           view<T, 2, typename B::memory_space> y) {
  expects<shape_error>(y.extent(0) == ids.extent(0) && y.extent(1) == table.inputs, "y {} for {} ids and rows of {}",
                       y.shape(), ids.extent(0), table.inputs);
  kernels::embedding<B>::forward(backend, ids, table, y);
}

/// y(r, :) = x(rows(r), :).
template <Backend B, class T>
void gather_rows(B& backend, std::type_identity_t<view_on<B, T const, 2>> x,
                 std::type_identity_t<view_on<B, int const, 1>> rows, view<T, 2, typename B::memory_space> y) {
  expects<shape_error>(y.extent(0) == rows.extent(0) && y.extent(1) == x.extent(1), "y {} for {} rows of x {}",
                       y.shape(), rows.extent(0), x.shape());
  kernels::embedding<B>::gather_rows(backend, x, rows, y);
}

/// dx(rows(r), :) += dy(r, :), in ascending order of r: the backward of `embed` (rows = ids) and of `gather_rows`.
template <Backend B, class T>
void add_rows(B& backend, std::type_identity_t<view_on<B, T const, 2>> dy,
              std::type_identity_t<view_on<B, int const, 1>> rows, view<T, 2, typename B::memory_space> dx) {
  expects<shape_error>(dy.extent(0) == rows.extent(0) && dy.extent(1) == dx.extent(1), "dy {} for {} rows of dx {}",
                       dy.shape(), rows.extent(0), dx.shape());
  kernels::embedding<B>::add_rows(backend, dy, rows, dx);
}

}  // namespace atmanrl::inline ATMANRL_ABI
