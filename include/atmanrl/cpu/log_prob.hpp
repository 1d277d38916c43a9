#pragma once

/// \file
/// Log-softmax over chunks of the vocabulary on the CPU; one row is one thread's.

#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/log_prob.hpp>

#include <algorithm>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::log_prob<cpu_backend> {
  static constexpr logit_blocks blocks = cached_logit_blocks;

  template <class T>
  static void start(cpu_threads& threads, view<softmax_state<T>, 1> states) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(states.extent(0), atmanrl::detail::worth_a_thread,
                  [&](index_t first, index_t last) { std::fill(states.row(first), states.row(last), empty_state); });
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

  /// log p(target) and the entropy of one row of `ids` logits, to the bits of `accumulate` of its chunks and `finish`.
  static void score_row(float const* row, index_t ids, float inv_temperature, index_t target, float& log_p,
                        float& entropy) {
    softmax_state<float> s = empty_state;
    for (index_t j = 0; j < ids; j += blocks.ids)
      add_chunk(row + j, std::min(blocks.ids, ids - j), inv_temperature, target - j, s);
    float const lse = log_sum_exp(s);
    log_p = s.target - lse;
    entropy = entropy_of(s, lse);
  }

  template <class T>
  static void finish(cpu_threads& threads, view<softmax_state<T> const, 1> states, view<T, 1> log_p, view<T, 1> lse,
                     view<T, 1> entropy) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(states.extent(0), atmanrl::detail::worth_a_thread, [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) {
        auto const& s = states(r);
        lse(r) = log_sum_exp(s);
        log_p(r) = s.target - lse(r);
        if (!entropy.empty()) entropy(r) = entropy_of(s, lse(r));
      }
    });
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
  static constexpr softmax_state<float> empty_state{-std::numeric_limits<float>::infinity(), 0, 0, 0};
  static float log_sum_exp(softmax_state<float> const& s) { return std::log(s.sum) + s.largest; }
  static float entropy_of(softmax_state<float> const& s, float lse) { return lse - s.weighted / s.sum; }

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

}  // namespace atmanrl::inline ATMANRL_ABI
