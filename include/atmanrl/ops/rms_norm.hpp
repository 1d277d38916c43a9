#pragma once

/// \file
/// Root-mean-square normalisation, y = g * x / rms(x)  (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4).

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>

#include <cmath>

namespace atmanrl::inline ATMANRL_ABI {

namespace kernels {

/// A backend provides the operation by specialising this template; see cpu/rms_norm.hpp.
template <class B>
struct rms_norm {
  static_assert(detail::always_false<B>,
                "atmanrl: no rms_norm kernel for this backend; specialise atmanrl::kernels::rms_norm<B>");
};

template <>
struct rms_norm<reference_backend> {
  template <class T>
  static void forward(reference_backend&, view<T const, 2> x, view<T const, 1> gain, real_t<T> eps, view<T, 2> y,
                      view<T, 1> inv_rms) {
    using std::sqrt;
    index_t const rows = x.extent(0), dim = x.extent(1);
    for (index_t r = 0; r < rows; ++r) {
      T sum{};
      for (index_t c = 0; c < dim; ++c) sum += x(r, c) * x(r, c);
      inv_rms(r) = T(1) / sqrt(sum / T(real_t<T>(dim)) + T(eps));
      for (index_t c = 0; c < dim; ++c) y(r, c) = gain(c) * (x(r, c) * inv_rms(r));
    }
  }

  // y again from the saved inv_rms: activations that are cheap to rebuild are not kept.
  template <class T>
  static void recompute(reference_backend&, view<T const, 2> x, view<T const, 1> gain, view<T const, 1> inv_rms,
                        view<T, 2> y) {
    for (index_t r = 0; r < x.extent(0); ++r)
      for (index_t c = 0; c < x.extent(1); ++c) y(r, c) = gain(c) * (x(r, c) * inv_rms(r));
  }

  // With r = inv_rms and s = sum_k g_k dy_k x_k:  dx_c += r (g_c dy_c - x_c r^2 s / dim),  dg_c += dy_c x_c r.
  template <class T>
  static void backward(reference_backend&, view<T const, 2> x, view<T const, 1> gain, view<T const, 1> inv_rms,
                       view<T const, 2> dy, view<T, 2> dx, view<T, 1> dgain) {
    index_t const rows = x.extent(0), dim = x.extent(1);
    for (index_t t = 0; t < rows; ++t) {
      T const r = inv_rms(t);
      T s{};
      for (index_t c = 0; c < dim; ++c) s += gain(c) * dy(t, c) * x(t, c);
      for (index_t c = 0; c < dim; ++c) {
        dx(t, c) += r * (gain(c) * dy(t, c) - x(t, c) * r * r * s / T(real_t<T>(dim)));
        if (!dgain.empty()) dgain(c) += dy(t, c) * x(t, c) * r;
      }
    }
  }
};

}  // namespace kernels

namespace detail {
template <class X, class Gain, class Y, class R>
void expects_norm(X const& x, Gain const& gain, Y const& y, R const& inv_rms) {
  expects<shape_error>(gain.extent(0) == x.extent(1), "gain has {} elements but x is {}", gain.extent(0), x.shape());
  expects<shape_error>(y.shape() == x.shape(), "y is {} but x is {}", y.shape(), x.shape());
  expects<shape_error>(inv_rms.extent(0) == x.extent(0), "inv_rms has {} elements but x is {}", inv_rms.extent(0),
                       x.shape());
}
}  // namespace detail

/// Normalises each row of `x` and scales it by `gain`.
/// \param x        (rows, dim)
/// \param gain     (dim)
/// \param eps      added to the mean square before the root; Llama 3 uses 1e-5
/// \param y        (rows, dim), overwritten; may be the same memory as `x`
/// \param inv_rms  (rows), overwritten; the backward pass needs it
/// \throws shape_error when an extent disagrees
template <Backend B, class T>
void rms_norm(B& backend, std::type_identity_t<view_on<B, T const, 2>> x,
              std::type_identity_t<view_on<B, T const, 1>> gain, real_t<T> eps, view<T, 2, typename B::memory_space> y,
              std::type_identity_t<view_on<B, T, 1>> inv_rms) {
  detail::expects_norm(x, gain, y, inv_rms);
  kernels::rms_norm<B>::forward(backend, x, gain, eps, y, inv_rms);
}

/// The same with a y that products take (factor_t), and with a copy of x.
/// \param y     (rows, dim), overwritten: scalars or factors
/// \param copy  (rows, dim), overwritten with x; empty when it is not wanted
template <Backend B, class T, class Y>
void rms_norm(B& backend, std::type_identity_t<view_on<B, T const, 2>> x,
              std::type_identity_t<view_on<B, T const, 1>> gain, std::type_identity_t<real_t<T>> eps,
              view<Y, 2, typename B::memory_space> y, view<T, 1, typename B::memory_space> inv_rms,
              std::type_identity_t<view_on<B, T, 2>> copy) {
  detail::expects_norm(x, gain, y, inv_rms);
  expects<shape_error>(copy.empty() || copy.shape() == x.shape(), "a copy {} of x {}", copy.shape(), x.shape());
  if constexpr (requires { kernels::rms_norm<B>::forward(backend, x, gain, eps, y, inv_rms, copy); }) {
    kernels::rms_norm<B>::forward(backend, x, gain, eps, y, inv_rms, copy);
  } else {
    if (!copy.empty()) backend.copy(copy.data(), x.data(), std::size_t(x.size()) * sizeof(T));
    kernels::rms_norm<B>::forward(backend, x, gain, eps, y, inv_rms);
  }
}

/// Rebuilds y of `rms_norm` from x and the saved inv_rms, to the same bits.
/// \param y  (rows, dim), overwritten: scalars or factors
template <Backend B, class R, class Y, class T = std::remove_const_t<R>>
void rms_norm_recompute(B& backend, std::type_identity_t<view_on<B, T const, 2>> x,
                        std::type_identity_t<view_on<B, T const, 1>> gain, view<R, 1, typename B::memory_space> inv_rms,
                        view<Y, 2, typename B::memory_space> y) {
  expects<shape_error>(y.shape() == x.shape() && gain.extent(0) == x.extent(1) && inv_rms.extent(0) == x.extent(0),
                       "y {}, gain {}, inv_rms {} for x {}", y.shape(), gain.shape(), inv_rms.shape(), x.shape());
  kernels::rms_norm<B>::recompute(backend, x, gain, view_on<B, T const, 1>(inv_rms), y);
}

namespace detail {
template <class X, class Gain, class R, class DY, class DX, class DGain>
void expects_norm_backward(X const& x, Gain const& gain, R const& inv_rms, DY const& dy, DX const& dx,
                           DGain const& dgain) {
  expects<shape_error>(dy.shape() == x.shape() && dx.shape() == x.shape(), "dy {} and dx {} for x {}", dy.shape(),
                       dx.shape(), x.shape());
  expects<shape_error>(gain.extent(0) == x.extent(1) && inv_rms.extent(0) == x.extent(0) &&
                           (dgain.empty() || dgain.shape() == gain.shape()),
                       "gain {}, dgain {}, inv_rms {} for x {}", gain.shape(), dgain.shape(), inv_rms.shape(),
                       x.shape());
}
}  // namespace detail

/// dx += the gradient with respect to x, dgain += that with respect to the gain.
/// \param dy    (rows, dim)
/// \param dx    (rows, dim), added to: the residual stream's gradient is already there
/// \param dgain (dim), added to; empty when it is not wanted
template <Backend B, class T>
void rms_norm_backward(B& backend, std::type_identity_t<view_on<B, T const, 2>> x,
                       std::type_identity_t<view_on<B, T const, 1>> gain,
                       std::type_identity_t<view_on<B, T const, 1>> inv_rms,
                       std::type_identity_t<view_on<B, T const, 2>> dy, view<T, 2, typename B::memory_space> dx,
                       std::type_identity_t<view_on<B, T, 1>> dgain) {
  detail::expects_norm_backward(x, gain, inv_rms, dy, dx, dgain);
  kernels::rms_norm<B>::backward(backend, x, gain, inv_rms, dy, dx, dgain);
}

/// The same where products take factors that are no scalars: dx is written once more, as such a factor.
/// \param factor  (rows, dim), overwritten with dx; empty when it is not wanted
template <Backend B, class T, class F>
void rms_norm_backward(B& backend, std::type_identity_t<view_on<B, T const, 2>> x,
                       std::type_identity_t<view_on<B, T const, 1>> gain,
                       std::type_identity_t<view_on<B, T const, 1>> inv_rms,
                       std::type_identity_t<view_on<B, T const, 2>> dy, view<T, 2, typename B::memory_space> dx,
                       std::type_identity_t<view_on<B, T, 1>> dgain, view<F, 2, typename B::memory_space> factor) {
  detail::expects_norm_backward(x, gain, inv_rms, dy, dx, dgain);
  expects<shape_error>(factor.empty() || factor.shape() == dx.shape(), "a factor {} for dx {}", factor.shape(),
                       dx.shape());
  kernels::rms_norm<B>::backward(backend, x, gain, inv_rms, dy, dx, dgain, factor);
}

}  // namespace atmanrl::inline ATMANRL_ABI
