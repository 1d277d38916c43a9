#pragma once

/// \file
/// KL(p_0 || p) between two distributions over a vocabulary, and its gradient
///     dKL/dz = p - p_0,      p = softmax(z), p_0 = softmax(z_0),
/// for rows of logits that stay where they are. A backend may have it; what needs it goes to the host elsewhere.

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI {

namespace kernels {

/// A backend provides the operation by specialising this template, or does without it.
template <class B>
struct divergence {};

template <>
struct divergence<reference_backend> {
  template <class T>
  static void kl_and_gradient(reference_backend&, view<T const, 2> z0, view<int const, 1> z0_rows,
                              view<int const, 1> targets, view<T const, 1> weights, view<T, 2> z, view<T, 1> kl,
                              view<T, 1> log_p) {
    using std::exp;
    index_t const ids = z.extent(1);
    for (index_t r = 0; r < z.extent(0); ++r) {
      T const* const row0 = z0.row(z0_rows(r));
      T* const row = z.row(r);
      T const lse0 = log_sum_exp(row0, ids), lse = log_sum_exp(row, ids);
      log_p(r) = row[targets(r)] - lse;
      kl(r) = T{};
      for (index_t j = 0; j < ids; ++j) {
        T const log_p0 = row0[j] - lse0, log_pj = row[j] - lse, p0 = exp(log_p0);
        kl(r) += p0 * (log_p0 - log_pj);
        row[j] = weights(r) * (exp(log_pj) - p0);
      }
    }
  }

 private:
  template <class T>
  static T log_sum_exp(T const* z, index_t ids) {
    using std::exp, std::log;
    real_t<T> largest = real_part(z[0]);
    for (index_t j = 1; j < ids; ++j) largest = std::max(largest, real_part(z[j]));
    T sum{};
    for (index_t j = 0; j < ids; ++j) sum += exp(z[j] - largest);
    return log(sum) + largest;
  }
};

}  // namespace kernels

/// A backend that computes divergences where the logits are.
template <class B, class T>
concept HasDivergence = requires(B& backend, view_on<B, T const, 2> z0, view_on<B, int const, 1> numbers,
                                 view_on<B, T const, 1> weights, view_on<B, T, 2> z, view_on<B, T, 1> per_row) {
  kernels::divergence<B>::kl_and_gradient(backend, z0, numbers, numbers, weights, z, per_row, per_row);
};

/// KL(p_0 || p) of each row in nats, and log p(target); z becomes the gradient of Σ_r weights(r) KL_r with respect to
/// it. Exactly 0, with a gradient of exactly 0, where both rows are the same.
/// \param z0       (rows of z_0, vocabulary)
/// \param z0_rows  (rows), which row of z0 belongs to each row of z; checked by the caller
/// \param targets  (rows), each in [0, vocabulary); checked by the caller
/// \param weights  (rows)
/// \param z        (rows, vocabulary), turned into the gradient
/// \param kl       (rows), overwritten
/// \param log_p    (rows), overwritten
template <class B, class T>
requires HasDivergence<B, T>
void divergence(B& backend, std::type_identity_t<view_on<B, T const, 2>> z0,
                std::type_identity_t<view_on<B, int const, 1>> z0_rows,
                std::type_identity_t<view_on<B, int const, 1>> targets,
                std::type_identity_t<view_on<B, T const, 1>> weights, view<T, 2, typename B::memory_space> z,
                std::type_identity_t<view_on<B, T, 1>> kl, std::type_identity_t<view_on<B, T, 1>> log_p) {
  index_t const rows = z.extent(0);
  expects<shape_error>(z0.extent(1) == z.extent(1) && z.extent(1) > 0 && z0_rows.extent(0) == rows &&
                           targets.extent(0) == rows && weights.extent(0) == rows && kl.extent(0) == rows &&
                           log_p.extent(0) == rows,
                       "divergence: z0 {}, {} rows of it, {} targets, {} weights, kl {}, log_p {} for z {}", z0.shape(),
                       z0_rows.extent(0), targets.extent(0), weights.extent(0), kl.shape(), log_p.shape(), z.shape());
  if (rows > 0) kernels::divergence<B>::kl_and_gradient(backend, z0, z0_rows, targets, weights, z, kl, log_p);
}

}  // namespace atmanrl::inline ATMANRL_ABI
