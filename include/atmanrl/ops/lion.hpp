#pragma once

/// \file
/// Lion (Chen et al. 2023, arXiv:2302.06675, algorithm 2): the step is the sign of a momentum, so every parameter moves
/// by the learning rate.

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>

namespace atmanrl::inline ATMANRL_ABI {

struct lion_options {
  double learning_rate = 1e-7;
  double beta1 = 0.9, beta2 = 0.99;
  double weight_decay = 0;
};

namespace kernels {

/// A backend provides the operation by specialising this template.
template <class B>
struct lion {
  static_assert(detail::always_false<B>,
                "atmanrl: no lion kernel for this backend; specialise atmanrl::kernels::lion<B>");
};

template <>
struct lion<reference_backend> {
  // p = p - lr (sign(β1 m + (1-β1) g) + λ p),  m = β2 m + (1-β2) g;  sign(0) = 0
  template <class T>
  static void step(reference_backend&, view<T, 1> p, view<T const, 1> g, view<T, 1> m, lion_options const& o) {
    for (index_t i = 0; i < p.size(); ++i) {
      T const c = T(o.beta1) * m(i) + T(1 - o.beta1) * g(i);
      T const sign = T(c > 0) - T(c < 0);
      p(i) = p(i) - T(o.learning_rate) * (T(o.weight_decay) * p(i) + sign);
      m(i) = T(o.beta2) * m(i) + T(1 - o.beta2) * g(i);
    }
  }
};

}  // namespace kernels

/// One Lion update of a flat parameter array.
/// \param p  (n) parameters, updated
/// \param g  (n) gradient
/// \param m  (n) momentum, updated; zero before the first step
template <Backend B, class T>
void lion_step(B& backend, view<T, 1, typename B::memory_space> p, std::type_identity_t<view_on<B, T const, 1>> g,
               std::type_identity_t<view_on<B, T, 1>> m, lion_options const& options) {
  expects<shape_error>(g.shape() == p.shape() && m.shape() == p.shape(),
                       "lion: parameters {}, gradient {}, momentum {}", p.shape(), g.shape(), m.shape());
  kernels::lion<B>::step(backend, p, g, m, options);
}

}  // namespace atmanrl::inline ATMANRL_ABI
