#pragma once

/// \file
/// Edits of scores on the CPU. A policy writes arithmetic on one score. Where its parameters lie one after the other, a
/// row is worked on in groups of a vector's length, in loops that the compiler turns into vector instructions; a row's
/// last group is filled up, so that every score meets the same instructions.

#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/simd.hpp>
#include <atmanrl/ops/attention.hpp>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// The keys of [first, last) whose scores the edit may change.
template <class Params>
key_range edited_keys(Params const& params, score_site at, index_t first, index_t last) {
  if constexpr (atmanrl::detail::names_its_keys<Params>) {
    key_range const r = params.keys(at);
    int const begin = std::max(r.first, int(first)), end = std::min(r.last, int(last));
    return begin < end ? key_range{begin, end} : key_range{int(first), int(first)};
  } else {
    return {int(first), int(last)};
  }
}

namespace detail {

using lane_array = float[simd::lanes];

/// The parameter of the range's first key, or -1 where the edit leaves the row alone.
template <class Params>
index_t first_parameter(Params const& params, score_site at, key_range range) {
  at.key = range.first;
  return range.first < range.last ? params.parameter(at) : -1;
}

// `count` keys from at.key on. The lanes after them see the last key's site, and nobody their result.
template <class Params>
inline void edit_lanes(Params const& params, score_site at, index_t count, float* scores, float const* values) {
  lane_array score, value;
  simd::store(score, simd::load_first(scores, count));
  simd::store(value, simd::load_first(values, count));
  for (int i = 0; i < simd::lanes; ++i) {
    score_site site = at;
    site.key += std::min(i, int(count) - 1);
    score[i] = params(score[i], value[i], site);
  }
  simd::store_first(scores, simd::load(score), count);
}

template <class Params>
inline void edit_lanes_with_slopes(Params const& params, score_site at, index_t count, float* scores,
                                   float const* values, float* slopes, float* value_slopes) {
  lane_array score, value, slope, value_slope;
  simd::store(score, simd::load_first(scores, count));
  simd::store(value, simd::load_first(values, count));
  for (int i = 0; i < simd::lanes; ++i) {
    score_site site = at;
    site.key += std::min(i, int(count) - 1);
    slope[i] = params(dual<float>{score[i], 1}, dual<float>{value[i], 0}, site).derivative;
    value_slope[i] = params(dual<float>{score[i], 0}, dual<float>{value[i], 1}, site).derivative;
    score[i] = params(score[i], value[i], site);
  }
  simd::store_first(scores, simd::load(score), count);
  simd::store_first(slopes, simd::load(slope), count);
  simd::store_first(value_slopes, simd::load(value_slope), count);
}

}  // namespace detail

/// Edits one row of scores, the keys [0, seen).
template <class Params>
void edit_scores(Params const& params, score_site at, float* scores, index_t seen, float const* parameters) {
  key_range const range = edited_keys(params, at, 0, seen);
  if constexpr (atmanrl::detail::numbers_keys_in_order<Params>) {
    index_t const first = detail::first_parameter(params, at, range);
    if (first < 0) return;
    for_each_vector(range.last - range.first, [&](index_t i, index_t count) {
      at.key = range.first + int(i);
      detail::edit_lanes(params, at, count, scores + at.key, parameters + first + i);
    });
  } else {
    float row_min = 0;
    if constexpr (requires { params.for_row_min(row_min, at); }) {
      row_min = std::numeric_limits<float>::infinity();
      for (at.key = 0; at.key < seen; ++at.key)
        row_min = std::min(row_min, kernels::score_for_row_min(params, scores[at.key], at));
    } else if constexpr (kernels::has_row_min<Params>) {
      simd::floats least = simd::broadcast(std::numeric_limits<float>::infinity());
      for_each_vector(seen, [&](index_t k, index_t c) {
        least = simd::min(least, simd::first_lanes(simd::load_first(scores + k, c), c, least));
      });
      row_min = simd::min_lane(least);
    }
    for (at.key = range.first; at.key < range.last; ++at.key)
      scores[at.key] = kernels::edited_score(params, scores[at.key], at, parameters, row_min);
  }
}

/// Edits the scores of `range` and writes their derivatives by the raw score and by the parameter.
/// \param scores, slopes, value_slopes  of the range's keys, the first one's at the front
template <class Params>
void edit_scores_with_slopes(Params const& params, score_site at, key_range range, float* scores, float* slopes,
                             float* value_slopes, float const* parameters) {
  if constexpr (atmanrl::detail::numbers_keys_in_order<Params>) {
    index_t const first = detail::first_parameter(params, at, range);
    if (first < 0) return std::fill(slopes, slopes + std::max(0, range.last - range.first), 1.0f);
    for_each_vector(range.last - range.first, [&](index_t i, index_t count) {
      at.key = range.first + int(i);
      detail::edit_lanes_with_slopes(params, at, count, scores + i, parameters + first + i, slopes + i,
                                     value_slopes + i);
    });
  } else {
    for (at.key = range.first; at.key < range.last; ++at.key) {
      index_t const i = at.key - range.first;
      auto const slope = kernels::edited_score_derivative(params, scores[i], at, parameters);
      slopes[i] = slope.score;
      value_slopes[i] = slope.value;
      scores[i] = slope.edited;
    }
  }
}

/// Adds to the gradient of each parameter of the row what its score hands it.
/// \param d_scores, value_slopes  of the range's keys, the first one's at the front
template <class Params>
void add_parameter_gradient(Params const& params, score_site at, key_range range, float const* d_scores,
                            float const* value_slopes, float* d_parameters) {
  if constexpr (atmanrl::detail::numbers_keys_in_order<Params>) {
    index_t const first = detail::first_parameter(params, at, range);
    if (first < 0) return;
    for_each_vector(range.last - range.first, [&](index_t i, index_t count) {
      float* const to = d_parameters + first + i;
      simd::store_first(to,
                        simd::fma(simd::load_first(d_scores + i, count), simd::load_first(value_slopes + i, count),
                                  simd::load_first(to, count)),
                        count);
    });
  } else {
    for (at.key = range.first; at.key < range.last; ++at.key) {
      index_t const parameter = params.parameter(at), i = at.key - range.first;
      if (parameter >= 0) d_parameters[parameter] += d_scores[i] * value_slopes[i];
    }
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
