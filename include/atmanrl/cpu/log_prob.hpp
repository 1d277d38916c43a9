#pragma once

/// \file
/// Log-softmax over chunks of the vocabulary on the CPU; one row is one thread's.

#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/log_prob.hpp>

#include <span>

namespace atmanrl {

template <>
struct kernels::log_prob<cpu_backend> {
  static constexpr logit_blocks blocks = cached_logit_blocks;

  template <class T>
  static void start(cpu_threads&, view<softmax_state<T>, 1> states) {
    atmanrl::detail::computes_in_float<T>();
    for (index_t r = 0; r < states.extent(0); ++r) states(r) = {-std::numeric_limits<float>::infinity(), 0, 0, 0};
  }

  template <class T>
  static void accumulate(cpu_threads& threads, view<T const, 2> logits, real_t<T> inv_temperature, index_t first_id,
                         view<int const, 1> targets, view<softmax_state<T>, 1> states) {
    atmanrl::detail::computes_in_float<T>();
    index_t const ids = logits.extent(1);
    threads.split(logits.extent(0), atmanrl::detail::row_grain(4 * ids), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r)
        add_chunk(logits.row(r), ids, inv_temperature, targets(r) - first_id, states(r));
    });
  }

  /// `accumulate` of every chunk of whole rows: for target i those of logits row rows[i].
  template <class T>
  static void accumulate_rows(cpu_threads& threads, view<T const, 2> logits, std::span<int const> rows,
                              real_t<T> inv_temperature, view<int const, 1> targets, view<softmax_state<T>, 1> states) {
    atmanrl::detail::computes_in_float<T>();
    index_t const ids = logits.extent(1);
    threads.split(targets.extent(0), atmanrl::detail::row_grain(4 * ids), [&](index_t first, index_t last) {
      for (index_t i = first; i < last; ++i)
        for (index_t j = 0; j < ids; j += blocks.ids)
          add_chunk(logits.row(rows[std::size_t(i)]) + j, std::min(blocks.ids, ids - j), inv_temperature,
                    targets(i) - j, states(i));
    });
  }

  template <class T>
  static void finish(cpu_threads&, view<softmax_state<T> const, 1> states, view<T, 1> log_p, view<T, 1> lse,
                     view<T, 1> entropy) {
    atmanrl::detail::computes_in_float<T>();
    for (index_t r = 0; r < states.extent(0); ++r) {
      auto const& s = states(r);
      lse(r) = std::log(s.sum) + s.largest;
      log_p(r) = s.target - lse(r);
      if (!entropy.empty()) entropy(r) = lse(r) - s.weighted / s.sum;
    }
  }

  // logits -> gradient of  sum_r dlog_p(r) log p(r) + dentropy(r) H(r):  dz_j = dlog_p (1[j=t] - p_j) - dentropy p_j
  // (log p_j + H).
  template <class T>
  static void backward(cpu_threads& threads, view<T, 2> logits, real_t<T> inv_temperature, index_t first_id,
                       view<int const, 1> targets, view<T const, 1> lse, view<T const, 1> dlog_p,
                       view<T const, 1> entropy, view<T const, 1> dentropy) {
    atmanrl::detail::computes_in_float<T>();
    index_t const ids = logits.extent(1);
    threads.split(logits.extent(0), atmanrl::detail::row_grain(4 * ids), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) {
        float* const row = logits.row(r);
        // -p_j (dlog_p + dentropy (log p_j + H)), times 1 / temperature
        float const slope = dentropy.empty() ? 0.0f : dentropy(r);
        float const constant = dlog_p(r) + (dentropy.empty() ? 0.0f : slope * entropy(r));
        cpu::for_each_vector(ids, [&](index_t j, index_t n) {
          simd::floats const log_p =
              simd::fma(simd::load_first(row + j, n), simd::broadcast(inv_temperature), simd::broadcast(-lse(r)));
          simd::floats const d = simd::fma(log_p, simd::broadcast(slope), simd::broadcast(constant));
          simd::store_first(row + j, simd::exp(log_p) * d * -inv_temperature, n);
        });
        index_t const target = targets(r) - first_id;
        if (target >= 0 && target < ids) row[target] += dlog_p(r) * inv_temperature;
      }
    });
  }

 private:
  // Logits of `ids` consecutive ids, the target counted from the first of them.
  static void add_chunk(float const* row, index_t ids, float inv_temperature, index_t target, softmax_state<float>& s) {
    simd::floats const lowest = simd::broadcast(-std::numeric_limits<float>::infinity());
    simd::floats most = lowest;
    cpu::for_each_vector(ids, [&](index_t j, index_t n) {
      most = simd::max(most, simd::first_lanes(simd::load_first(row + j, n) * inv_temperature, n, lowest));
    });
    float const largest = std::max(s.largest, simd::max_lane(most));
    simd::floats sum{}, weighted{};
    cpu::for_each_vector(ids, [&](index_t j, index_t n) {
      simd::floats const z = simd::load_first(row + j, n) * inv_temperature;
      simd::floats const e = simd::first_lanes(simd::exp(z - largest), n, simd::floats{});
      sum += e;
      weighted = simd::fma(e, z, weighted);
    });
    float const shrink = std::exp(s.largest - largest);
    s.sum = s.sum * shrink + simd::sum(sum);
    s.weighted = s.weighted * shrink + simd::sum(weighted);
    s.largest = largest;
    if (target >= 0 && target < ids) s.target = row[target] * inv_temperature;
  }
};

}  // namespace atmanrl
