#pragma once

/// \file
/// Sampling from softmax(logits / temperature), optionally cut to the k largest, to the smallest set of probability
/// top_p (Holtzman et al. 2020, arXiv:1904.09751) and to tokens of at least min_p times the largest probability (Nguyen
/// et al. 2024, arXiv:2407.01082). Temperature 0 is greedy. What the trainer learns from are the log-probabilities
/// before any cut.

#include <atmanrl/rl/samplers/greedy.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace atmanrl::samplers {

/// Draws by inverting the cumulative distribution, tokens in order of id (uncut) or of falling probability (cut).
struct multinomial {
  int top_k = 0;     ///< 0: all
  double top_p = 1;  ///< 1: all
  double min_p = 0;  ///< 0: all

  int operator()(std::span<float const> logits, double temperature, double u) const {
    if (temperature == 0) return greedy{}(logits, 0, u);
    std::vector<float> p = weights(logits, float(1 / temperature));
    if (top_k == 0 && top_p >= 1 && min_p <= 0) return draw(p, u);
    std::vector<int> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    // Equal probabilities keep the order of their ids, so that the cut does not depend on the sort.
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return p[std::size_t(a)] > p[std::size_t(b)]; });
    if (top_k > 0 && std::size_t(top_k) < order.size()) order.resize(std::size_t(top_k));
    if (top_p < 1) {
      double total = 0, kept = 0;
      for (int const i : order) total += double(p[std::size_t(i)]);
      std::size_t n = 0;
      while (n < order.size() && (n == 0 || kept < top_p * total)) kept += double(p[std::size_t(order[n++])]);
      order.resize(n);
    }
    if (min_p > 0) {  // the largest has the weight 1
      auto const below = [&](int i) { return double(p[std::size_t(i)]) < min_p; };
      order.erase(std::find_if(order.begin() + 1, order.end(), below), order.end());
    }
    std::vector<float> kept;
    for (int const i : order) kept.push_back(p[std::size_t(i)]);
    return order[std::size_t(draw(kept, u))];
  }

 private:
  // Numbers that the compiler handles at once, and that have a sum of their own.
  static constexpr std::size_t lane = 16, block = 16 * lane;

  // exp((logit - largest) scale) of every token, to a few units in the last place; 0 below e^-87. The library's own
  // functions take one number at a time, and a vocabulary has tens of thousands.
  static std::vector<float> weights(std::span<float const> logits, float scale) {
    std::size_t const n = logits.size();
    float most[lane];
    std::fill_n(most, lane, logits[0]);
    std::size_t i = 0;
    for (; i + lane <= n; i += lane)
      for (std::size_t j = 0; j < lane; ++j) most[j] = logits[i + j] > most[j] ? logits[i + j] : most[j];
    float largest = *std::max_element(most, most + lane);
    for (; i < n; ++i) largest = std::max(largest, logits[i]);
    std::vector<float> p((n + lane - 1) / lane * lane);
    for (std::size_t k = 0; k < n; ++k) p[k] = (logits[k] - largest) * scale;
    for (std::size_t k = 0; k < p.size(); k += lane) exp(p.data() + k);
    p.resize(n);
    return p;
  }

  // x = n ln 2 + r with |r| <= ln(2)/2; adding and subtracting 1.5 * 2^23 rounds to a whole number. Taylor's series.
  static void exp(float* x) {
    for (std::size_t j = 0; j < lane; ++j) {
      float const y = x[j] > -87.0f ? x[j] : -87.0f;
      float const shifted = y * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
      float const r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
      float e = 1.0f / 5040;
      e = e * r + 1.0f / 720;
      e = e * r + 1.0f / 120;
      e = e * r + 1.0f / 24;
      e = e * r + 1.0f / 6;
      e = e * r + 0.5f;
      e = e * r + 1.0f;
      e = e * r + 1.0f;
      std::int32_t const power = (std::bit_cast<std::int32_t>(shifted) - 0x4b400000 + 127) << 23;
      float const value = e * std::bit_cast<float>(power);
      x[j] = x[j] > -87.0f ? value : 0.0f;
    }
  }

  // The first i with u sum(p) < p[0] + ... + p[i]: block by block, then within one.
  static int draw(std::vector<float> const& p, double u) {
    std::vector<double> sums;
    double total = 0;
    for (std::size_t i = 0; i < p.size(); i += block) {
      std::size_t const end = std::min(p.size(), i + block);
      float part[lane] = {};
      std::size_t k = i;
      for (; k + lane <= end; k += lane)
        for (std::size_t j = 0; j < lane; ++j) part[j] += p[k + j];
      double sum = 0;
      for (float const x : part) sum += double(x);
      for (; k < end; ++k) sum += double(p[k]);
      sums.push_back(sum);
      total += sum;
    }
    double below = 0;
    std::size_t b = 0;
    while (b + 1 < sums.size() && below + sums[b] <= u * total) below += sums[b++];
    std::size_t last = p.size();
    for (std::size_t i = b * block; i < p.size(); ++i) {
      if (p[i] == 0) continue;
      last = i;
      below += double(p[i]);
      if (u * total < below) break;
    }
    // Rounding may leave u * total a little above the last sum: then it is the last token that has a probability.
    if (last == p.size())
      for (last = p.size() - 1; last > 0 && p[last] == 0;) --last;
    return int(last);
  }
};
static_assert(Sampler<multinomial>);

}  // namespace atmanrl::samplers
