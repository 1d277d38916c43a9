#pragma once

/// \file
/// Gradient descent, with momentum in PyTorch's form (Sutskever et al. 2013; torch.optim.SGD without dampening), where
/// the decay is added to the gradient.

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>

namespace atmanrl::inline ATMANRL_ABI {

struct sgd_options {
  double learning_rate = 1e-3;
  double momentum = 0;
  double weight_decay = 0;
  bool nesterov = false;
};

namespace kernels {

/// A backend provides the operations by specialising this template.
template <class B>
struct sgd {
  static_assert(detail::always_false<B>,
                "atmanrl: no sgd kernel for this backend; specialise atmanrl::kernels::sgd<B>");
};

template <>
struct sgd<reference_backend> {
  // p = p - lr (g + λ p)
  template <class T>
  static void step(reference_backend&, view<T, 1> p, view<T const, 1> g, sgd_options const& o) {
    for (index_t i = 0; i < p.size(); ++i) p(i) = p(i) - T(o.learning_rate) * (T(o.weight_decay) * p(i) + g(i));
  }

  // d = g + λ p,  m = μ m + d,  p = p - lr m, or with Nesterov's step p - lr (d + μ m)
  template <class T>
  static void momentum_step(reference_backend&, view<T, 1> p, view<T const, 1> g, view<T, 1> m, sgd_options const& o) {
    for (index_t i = 0; i < p.size(); ++i) {
      T const d = T(o.weight_decay) * p(i) + g(i);
      m(i) = T(o.momentum) * m(i) + d;
      p(i) = p(i) - T(o.learning_rate) * (o.nesterov ? T(o.momentum) * m(i) + d : m(i));
    }
  }
};

}  // namespace kernels

/// One step of a flat parameter array along its gradient, without memory; `momentum` and `nesterov` are not read.
/// \param p  (n) parameters, updated
/// \param g  (n) gradient
template <Backend B, class T>
void sgd_step(B& backend, view<T, 1, typename B::memory_space> p, std::type_identity_t<view_on<B, T const, 1>> g,
              sgd_options const& options) {
  expects<shape_error>(g.shape() == p.shape(), "sgd: parameters {}, gradient {}", p.shape(), g.shape());
  kernels::sgd<B>::step(backend, p, g, options);
}

/// The same with momentum.
/// \param m  (n) momentum, updated; zero before the first step
template <Backend B, class T>
void sgd_step(B& backend, view<T, 1, typename B::memory_space> p, std::type_identity_t<view_on<B, T const, 1>> g,
              std::type_identity_t<view_on<B, T, 1>> m, sgd_options const& options) {
  expects<shape_error>(g.shape() == p.shape() && m.shape() == p.shape(), "sgd: parameters {}, gradient {}, momentum {}",
                       p.shape(), g.shape(), m.shape());
  kernels::sgd<B>::momentum_step(backend, p, g, m, options);
}

}  // namespace atmanrl::inline ATMANRL_ABI
