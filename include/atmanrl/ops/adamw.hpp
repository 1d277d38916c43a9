#pragma once

/// \file
/// AdamW with decoupled weight decay before the update (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2, with
/// the decay as PyTorch applies it: lr * weight_decay * parameter).

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>

#include <cmath>
#include <span>

namespace atmanrl::inline ATMANRL_ABI {

/// Elements [first, first + count) of an array.
struct element_range {
  index_t first, count;
};

/// Where a model stores elements [first, first + count) of its flat parameter array: rounded to bf16, or as they are.
template <class T>
struct stored_range {
  index_t first, count;
  bf16* rounded;  ///< `count` elements, or null, and then
  T* exact;       ///< as many
};

struct adamw_options {
  double learning_rate = 1e-6;
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

namespace kernels {

/// A backend provides the operation by specialising this template.
template <class B>
struct adamw {
  static_assert(detail::always_false<B>,
                "atmanrl: no adamw kernel for this backend; specialise atmanrl::kernels::adamw<B>");
};

/// What one update needs of the options and of the step number, computed once in double.
struct adamw_coefficients {
  double decay, beta1, beta2, step_size, inv_sqrt_correction2, eps;

  adamw_coefficients(adamw_options const& o, std::uint64_t step)
      : decay(1 - o.learning_rate * o.weight_decay),
        beta1(o.beta1),
        beta2(o.beta2),
        step_size(o.learning_rate / (1 - std::pow(o.beta1, double(step)))),
        inv_sqrt_correction2(1 / std::sqrt(1 - std::pow(o.beta2, double(step)))),
        eps(o.eps) {}
};

template <>
struct adamw<reference_backend> {
  // m = β1 m + (1-β1) g,  v = β2 v + (1-β2) g²,  p = p (1 - lr wd) - lr/(1-β1^t) m / (sqrt(v)/sqrt(1-β2^t) + eps)
  template <class T>
  static void step(reference_backend&, view<T, 1> p, view<T const, 1> g, view<T, 1> m, view<T, 1> v,
                   adamw_coefficients c) {
    for (index_t i = 0; i < p.size(); ++i) {
      m(i) = T(c.beta1) * m(i) + T(1 - c.beta1) * g(i);
      v(i) = T(c.beta2) * v(i) + T(1 - c.beta2) * (g(i) * g(i));
      p(i) = p(i) * T(c.decay) - T(c.step_size) * m(i) / (std::sqrt(v(i)) * T(c.inv_sqrt_correction2) + T(c.eps));
    }
  }
};

}  // namespace kernels

/// Whether a backend has one kernel for a step whose results go to where a model stores them.
template <class B, class T>
concept StoresSteps = requires(B& backend, view_on<B, T, 1> p, view_on<B, T const, 1> g,
                               std::span<stored_range<T> const> ranges, kernels::adamw_coefficients c) {
  kernels::adamw<B>::step_and_store(backend, p, g, p, p, T(1), ranges, c);
};

/// One AdamW update of a flat parameter array.
/// \param p     (n) parameters, updated
/// \param g     (n) gradient
/// \param m, v  (n) first and second moments, updated; zero before the first step
/// \param step  1 for the first update
template <Backend B, class T>
void adamw_step(B& backend, view<T, 1, typename B::memory_space> p, std::type_identity_t<view_on<B, T const, 1>> g,
                std::type_identity_t<view_on<B, T, 1>> m, std::type_identity_t<view_on<B, T, 1>> v,
                adamw_options const& options, std::uint64_t step) {
  expects<shape_error>(g.shape() == p.shape() && m.shape() == p.shape() && v.shape() == p.shape(),
                       "adamw: parameters {}, gradient {}, moments {} and {}", p.shape(), g.shape(), m.shape(),
                       v.shape());
  expects<shape_error>(step >= 1, "adamw: steps count from 1, not {}", step);
  kernels::adamw<B>::step(backend, p, g, m, v, kernels::adamw_coefficients(options, step));
}

/// The same with a gradient that is scaled on the way, and with the new parameters written to where a model stores
/// them: 30 bytes a parameter that is stored as bf16, to the bits of scaling, updating and rounding one after the
/// other. \param g       (n), as it is before it is scaled, and afterwards \param ranges  of the whole array, in
/// ascending order
template <Backend B, class T>
requires StoresSteps<B, T>
void adamw_step_and_store(B& backend, view<T, 1, typename B::memory_space> p,
                          std::type_identity_t<view_on<B, T const, 1>> g, std::type_identity_t<view_on<B, T, 1>> m,
                          std::type_identity_t<view_on<B, T, 1>> v, std::type_identity_t<T> gradient_scale,
                          std::span<stored_range<T> const> ranges, adamw_options const& options, std::uint64_t step) {
  expects<shape_error>(g.shape() == p.shape() && m.shape() == p.shape() && v.shape() == p.shape(),
                       "adamw: parameters {}, gradient {}, moments {} and {}", p.shape(), g.shape(), m.shape(),
                       v.shape());
  expects<shape_error>(step >= 1, "adamw: steps count from 1, not {}", step);
  index_t end = 0;
  for (stored_range<T> const& r : ranges) {
    expects<shape_error>(r.first == end && r.count >= 0, "adamw: a range [{}, {}) is stored after {}", r.first,
                         r.first + r.count, end);
    end += r.count;
  }
  expects<shape_error>(end == p.size(), "adamw: {} of {} parameters are stored", end, p.size());
  kernels::adamw<B>::step_and_store(backend, p, g, m, v, gradient_scale, ranges,
                                    kernels::adamw_coefficients(options, step));
}

/// The same for some ranges of the array alone, in ascending order; all else stays as it is. A backend with a kernel
/// for it does all of them in one pass.
template <Backend B, class T>
void adamw_step(B& backend, view<T, 1, typename B::memory_space> p, std::type_identity_t<view_on<B, T const, 1>> g,
                std::type_identity_t<view_on<B, T, 1>> m, std::type_identity_t<view_on<B, T, 1>> v,
                std::span<element_range const> ranges, adamw_options const& options, std::uint64_t step) {
  expects<shape_error>(g.shape() == p.shape() && m.shape() == p.shape() && v.shape() == p.shape(),
                       "adamw: parameters {}, gradient {}, moments {} and {}", p.shape(), g.shape(), m.shape(),
                       v.shape());
  expects<shape_error>(step >= 1, "adamw: steps count from 1, not {}", step);
  index_t end = 0;
  for (element_range const& r : ranges) {
    expects<shape_error>(r.first >= end && r.count >= 0 && r.first + r.count <= p.size(),
                         "adamw: a range [{}, {}) after {} of {} parameters", r.first, r.first + r.count, end,
                         p.size());
    end = r.first + r.count;
  }
  kernels::adamw_coefficients const c(options, step);
  if constexpr (requires { kernels::adamw<B>::step_ranges(backend, p, g, m, v, ranges, c); }) {
    kernels::adamw<B>::step_ranges(backend, p, g, m, v, ranges, c);
  } else {
    for (element_range const& r : ranges)
      kernels::adamw<B>::step(backend, p.rows(r.first, r.count), g.rows(r.first, r.count), m.rows(r.first, r.count),
                              v.rows(r.first, r.count), c);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI
