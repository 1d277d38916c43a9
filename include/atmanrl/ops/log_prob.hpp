#pragma once

/// \file
/// Language-model head and log-softmax, fused and in chunks of the vocabulary: the logits of a batch are never stored.
/// With z = logits / temperature:  log p(t) = z_t - lse(z),  H = lse(z) - sum_j p_j z_j.

#include <atmanrl/ops/elementwise.hpp>
#include <atmanrl/ops/matmul.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace atmanrl::inline ATMANRL_ABI {

/// How the logits of a batch are cut: so many rows of `h` and ids of the vocabulary at a time, which bounds the scratch
/// memory. Chunks of ids are fixed and merged in ascending order, so that a log-probability has the same bits wherever
/// it is computed.
struct logit_blocks {
  index_t rows, ids;
};
/// For caches of a processor.
inline constexpr logit_blocks cached_logit_blocks{256, 1024};
/// For devices on which a call costs microseconds: 32 MiB of floats, so that the passes over a block find it in a cache
/// of 40 MiB or more, as those of an A100, an H100 and an H200 are.
inline constexpr logit_blocks device_logit_blocks{256, 32768};

namespace kernels {

/// A backend provides the chunk kernels by specialising this template, and may say by a member `blocks` how logits are
/// cut.
template <class B>
struct log_prob {
  static_assert(detail::always_false<B>,
                "atmanrl: no log_prob kernel for this backend; specialise atmanrl::kernels::log_prob<B>");
};

/// Running state of one row, merged chunk by chunk (Milakov & Gimelshein 2018, arXiv:1805.02867).
template <class T>
struct softmax_state {
  real_t<T> largest;  ///< largest z so far
  T sum;              ///< sum of exp(z - largest)
  T weighted;         ///< sum of exp(z - largest) z
  T target;           ///< z of the target
};

template <>
struct log_prob<reference_backend> {
  template <class T>
  static void start(reference_backend&, view<softmax_state<T>, 1> states) {
    for (index_t r = 0; r < states.extent(0); ++r)
      states(r) = {-std::numeric_limits<real_t<T>>::infinity(), T{}, T{}, T{}};
  }

  template <class T>
  static void accumulate(reference_backend&, view<T const, 2> logits, real_t<T> inv_temperature, index_t first_id,
                         view<int const, 1> targets, view<softmax_state<T>, 1> states) {
    using std::exp;
    for (index_t r = 0; r < logits.extent(0); ++r) {
      auto& s = states(r);
      real_t<T> largest = s.largest;
      for (index_t j = 0; j < logits.extent(1); ++j)
        largest = std::max(largest, real_part(logits(r, j) * inv_temperature));
      T const shrink = exp(T(s.largest - largest));
      T sum{}, weighted{};
      for (index_t j = 0; j < logits.extent(1); ++j) {
        T const z = logits(r, j) * inv_temperature, e = exp(z - largest);
        sum += e;
        weighted += e * z;
        if (first_id + j == targets(r)) s.target = z;
      }
      s.sum = s.sum * shrink + sum;
      s.weighted = s.weighted * shrink + weighted;
      s.largest = largest;
    }
  }

  template <class T>
  static void finish(reference_backend&, view<softmax_state<T> const, 1> states, view<T, 1> log_p, view<T, 1> lse,
                     view<T, 1> entropy) {
    using std::log;
    for (index_t r = 0; r < states.extent(0); ++r) {
      auto const& s = states(r);
      lse(r) = log(s.sum) + s.largest;
      log_p(r) = s.target - lse(r);
      if (!entropy.empty()) entropy(r) = lse(r) - s.weighted / s.sum;
    }
  }

  // logits -> gradient of  sum_r dlog_p(r) log p(r) + dentropy(r) H(r):  dz_j = dlog_p (1[j=t] - p_j) - dentropy p_j
  // (log p_j + H).
  template <class T>
  static void backward(reference_backend&, view<T, 2> logits, real_t<T> inv_temperature, index_t first_id,
                       view<int const, 1> targets, view<T const, 1> lse, view<T const, 1> dlog_p,
                       view<T const, 1> entropy, view<T const, 1> dentropy) {
    using std::exp;
    for (index_t r = 0; r < logits.extent(0); ++r) {
      for (index_t j = 0; j < logits.extent(1); ++j) {
        T const log_pj = logits(r, j) * inv_temperature - lse(r), pj = exp(log_pj);
        T d = -dlog_p(r) * pj;
        if (first_id + j == targets(r)) d += dlog_p(r);
        if (!dentropy.empty()) d -= dentropy(r) * pj * (log_pj + entropy(r));
        logits(r, j) = d * inv_temperature;
      }
    }
  }
};

}  // namespace kernels

template <Backend B>
constexpr logit_blocks logit_blocks_of() {
  if constexpr (requires { kernels::log_prob<B>::blocks; })
    return kernels::log_prob<B>::blocks;
  else
    return cached_logit_blocks;
}

/// Scratch of the fused head, reused between calls.
/// \tparam F  what products with the head take (factor_t), as h is; T also where that is something else, for an h in T
template <Backend B, class T, class F = T>
struct log_prob_scratch {
  tensor<B, T, 2> logits;
  tensor<B, F, 2> dlogits;  // where F is not T
  tensor<B, kernels::softmax_state<T>, 1> states;
};

namespace detail {
/// Calls f(first row, rows, first id, ids) for the blocks of a (rows, vocabulary) matrix, row blocks outermost.
template <class F>
void for_each_logit_block(logit_blocks most, index_t rows, index_t vocabulary, F&& f) {
  for (index_t r = 0; r < rows; r += most.rows)
    for (index_t j = 0; j < vocabulary; j += most.ids)
      f(r, std::min(most.rows, rows - r), j, std::min(most.ids, vocabulary - j));
}
}  // namespace detail

/// log p(target) of each row under softmax(h headᵀ / temperature), and what the backward pass needs.
/// \param h        (rows, dim), after the final norm, in the scratch's F
/// \param head     (vocabulary, dim)
/// \param targets  (rows), each in [0, vocabulary); checked by the caller
/// \param log_p    (rows), overwritten
/// \param lse      (rows), overwritten with the log-sum-exp of the scaled logits
/// \param entropy  (rows), overwritten with the entropy in nats; empty when it is not wanted
/// \param bias     (vocabulary), added to the logits; empty: none
template <Backend B, class W, class T, class F>
void log_prob(B& backend, std::type_identity_t<view_on<B, F const, 2>> h, weight_view<B, W> head,
              std::type_identity_t<view_on<B, int const, 1>> targets, double temperature,
              log_prob_scratch<B, T, F>& scratch, view<T, 1, typename B::memory_space> log_p,
              std::type_identity_t<view_on<B, T, 1>> lse, std::type_identity_t<view_on<B, T, 1>> entropy = {},
              std::type_identity_t<view_on<B, T const, 1>> bias = {}) {
  index_t const rows = h.extent(0);
  expects<shape_error>(targets.extent(0) == rows && log_p.extent(0) == rows && lse.extent(0) == rows &&
                           (entropy.empty() || entropy.extent(0) == rows),
                       "log_prob: {} targets, log_p {}, lse {} for h {}", targets.extent(0), log_p.shape(), lse.shape(),
                       h.shape());
  expects<usage_error>(temperature > 0, "temperature is {}, but log-probabilities need one above 0", temperature);
  scratch.states.resize(backend, {rows});
  kernels::log_prob<B>::start(backend, scratch.states.view());
  detail::for_each_logit_block(
      logit_blocks_of<B>(), rows, head.outputs, [&](index_t r, index_t count, index_t id, index_t ids) {
        scratch.logits.resize(backend, {count, ids});
        matmul(backend, h.rows(r, count), head.rows(id, ids), scratch.logits.view());
        if (!bias.empty()) add_bias(backend, bias.rows(id, ids), scratch.logits.view());
        kernels::log_prob<B>::accumulate(backend, scratch.logits.cview(), real_t<T>(1 / temperature), id,
                                         targets.rows(r, count), scratch.states.view().rows(r, count));
      });
  kernels::log_prob<B>::finish(backend, scratch.states.cview(), log_p, lse, entropy);
}

/// Backward of `log_prob` for the loss  sum_r dlog_p(r) log_p(r) + dentropy(r) entropy(r); the logits are computed
/// again.
/// \param dh     (rows, dim), overwritten
/// \param dhead  (vocabulary, dim) row-major, added to; empty when it is not wanted
/// \param bias   that of the forward pass
template <Backend B, class W, class T, class F>
void log_prob_backward(B& backend, std::type_identity_t<view_on<B, F const, 2>> h, weight_view<B, W> head,
                       std::type_identity_t<view_on<B, int const, 1>> targets, double temperature,
                       log_prob_scratch<B, T, F>& scratch, std::type_identity_t<view_on<B, T const, 1>> lse,
                       std::type_identity_t<view_on<B, T const, 1>> dlog_p,
                       std::type_identity_t<view_on<B, T const, 1>> entropy,
                       std::type_identity_t<view_on<B, T const, 1>> dentropy, view<T, 2, typename B::memory_space> dh,
                       std::type_identity_t<view_on<B, T, 2>> dhead,
                       std::type_identity_t<view_on<B, T const, 1>> bias = {}) {
  index_t const rows = h.extent(0);
  expects<shape_error>(
      dh.shape() == h.shape() && targets.extent(0) == rows && lse.extent(0) == rows && dlog_p.extent(0) == rows &&
          (dentropy.empty() || (dentropy.extent(0) == rows && entropy.extent(0) == rows)),
      "log_prob_backward: dh {}, lse {}, dlog_p {} for h {}", dh.shape(), lse.shape(), dlog_p.shape(), h.shape());
  expects<shape_error>(dhead.empty() || (dhead.extent(0) == head.outputs && dhead.extent(1) == head.inputs),
                       "dhead {} for a head of ({}, {})", dhead.shape(), head.outputs, head.inputs);
  detail::for_each_logit_block(
      logit_blocks_of<B>(), rows, head.outputs, [&](index_t r, index_t count, index_t id, index_t ids) {
        auto const part = [&](auto v) { return v.empty() ? v : v.rows(r, count); };
        scratch.logits.resize(backend, {count, ids});
        matmul(backend, h.rows(r, count), head.rows(id, ids), scratch.logits.view());
        if (!bias.empty()) add_bias(backend, bias.rows(id, ids), scratch.logits.view());
        auto const turn_into = [&](auto... dlogits) {  // what was logits, in place where nothing else is named
          kernels::log_prob<B>::backward(backend, scratch.logits.view(), real_t<T>(1 / temperature), id, part(targets),
                                         part(lse), part(dlog_p), part(entropy), part(dentropy), dlogits...);
        };
        auto const multiply = [&](auto dlogits) {
          matmul_backward_input(backend, dlogits, head.rows(id, ids), dh.rows(r, count),
                                id == 0 ? store::overwrite : store::add);
          if (!dhead.empty()) matmul_backward_weight<B, T>(backend, dlogits, h.rows(r, count), dhead.rows(id, ids));
        };
        if constexpr (std::same_as<F, T>) {
          turn_into();
          multiply(scratch.logits.cview());
        } else {
          scratch.dlogits.resize(backend, scratch.logits.shape());
          turn_into(scratch.dlogits.view());
          multiply(scratch.dlogits.cview());
        }
      });
}

}  // namespace atmanrl::inline ATMANRL_ABI
