#pragma once

/// \file
/// Norms of the residual stream: a block's `norm`. What they make of it is scalars, `Y` = T, or what products take
/// (factor_t).

#include <atmanrl/backend/uploaded.hpp>
#include <atmanrl/nn/parts/part.hpp>
#include <atmanrl/ops/rms_norm.hpp>

namespace atmanrl::inline ATMANRL_ABI::nn {

/// y = g x / rms(x)  (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4).
struct rms_norm {
  template <Backend B, class T>
  struct saved {
    tensor<B, T, 1> inv_rms;  // (rows)
  };
  /// Numbers that a row of the forward pass leaves in `saved`.
  static index_t saved_numbers(model_config const&) { return 1; }
  /// \param size  width of a row
  static void parameters(parameter_list& list, parameter_names name, index_t size) {
    list.gain(name.hugging_face, name.gguf, size);
  }

  /// \param x, y  (rows, width); y is overwritten
  /// \param copy  (rows, width), overwritten with x where it is not empty
  template <Backend B, class T, class Y>
  static void forward(part_call<B, T> const& c, view_on<B, T const, 2> x, view_on<B, Y, 2> y, saved<B, T>& s,
                      view_on<B, T, 2> copy = {}) {
    s.inv_rms.resize(c.backend(), {x.extent(0)});
    atmanrl::rms_norm(c.backend(), x, c.gain(0), real_t<T>(c.config.rms_eps), y, s.inv_rms.view(), copy);
  }
  /// y again, to the same bits.
  template <Backend B, class T, class Y>
  static void recompute(part_call<B, T> const& c, view_on<B, T const, 2> x, view_on<B, Y, 2> y, saved<B, T> const& s) {
    rms_norm_recompute(c.backend(), x, c.gain(0), s.inv_rms.cview(), y);
  }
  /// \param dx      (rows, width), added to
  /// \param factor  none, or one of the same extents: overwritten with the new dx as products take it
  template <Backend B, class T, class... F>
  static void backward(part_call<B, T> const& c, view_on<B, T const, 2> x, view_on<B, T const, 2> dy,
                       view_on<B, T, 2> dx, saved<B, T> const& s, view_on<B, F, 2>... factor) {
    rms_norm_backward(c.backend(), x, c.gain(0), s.inv_rms.cview(), dy, dx, c.gain_gradient(0), factor...);
  }
};

/// y = (1 + g) x / rms(x)  (Gemma, arXiv:2403.08295): g is zero where the norm does nothing but normalise.
struct rms_norm_1p {
  template <Backend B, class T>
  struct saved {
    tensor<B, T, 1> inv_rms;  // (rows)
    tensor<B, T, 1> gain;     // (width) 1 + g
    uploaded<B, T> ones;      // (width)
  };
  static index_t saved_numbers(model_config const&) { return 1; }
  /// Gemma's GGUF files hold 1 + g (llama.cpp's converter adds it).
  static void parameters(parameter_list& list, parameter_names name, index_t size) {
    list.gain(name.hugging_face, name.gguf, size, 1);
  }

  template <Backend B, class T, class Y>
  static void forward(part_call<B, T> const& c, view_on<B, T const, 2> x, view_on<B, Y, 2> y, saved<B, T>& s,
                      view_on<B, T, 2> copy = {}) {
    index_t const width = x.extent(1);
    s.inv_rms.resize(c.backend(), {x.extent(0)});
    s.gain.resize(c.backend(), {width});
    s.ones.assign(c.backend(), std::vector<T>(std::size_t(width), T(1)));
    c.backend().copy(s.gain.data(), s.ones.cview().data(), std::size_t(width) * sizeof(T));
    add_to<B, T>(c.backend(), {c.gain(0).data(), {1, width}}, {s.gain.data(), {1, width}});
    atmanrl::rms_norm(c.backend(), x, s.gain.cview(), real_t<T>(c.config.rms_eps), y, s.inv_rms.view(), copy);
  }
  template <Backend B, class T, class Y>
  static void recompute(part_call<B, T> const& c, view_on<B, T const, 2> x, view_on<B, Y, 2> y, saved<B, T> const& s) {
    rms_norm_recompute(c.backend(), x, s.gain.cview(), s.inv_rms.cview(), y);
  }
  template <Backend B, class T, class... F>
  static void backward(part_call<B, T> const& c, view_on<B, T const, 2> x, view_on<B, T const, 2> dy,
                       view_on<B, T, 2> dx, saved<B, T> const& s, view_on<B, F, 2>... factor) {
    rms_norm_backward(c.backend(), x, s.gain.cview(), s.inv_rms.cview(), dy, dx, c.gain_gradient(0), factor...);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::nn
