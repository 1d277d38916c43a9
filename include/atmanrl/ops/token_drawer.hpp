#pragma once

/// \file
/// One token from one row of logits on the host, by inverting the cumulative distribution: what the built-in samplers
/// are (rl/samplers/), and what backends that compute on the host draw with.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// What the built-in samplers do (rl/samplers/multinomial.hpp), as numbers.
struct sample_form {
  bool greedy = false;  ///< the largest logit, the lowest id among equals; temperature 0 asks for the same
  int top_k = 0;        ///< 0: all
  double top_p = 1;     ///< 1: all
  double min_p = 0;     ///< 0: all
};

/// Draws from one row after the other and keeps its memory: rows of one length allocate once.
class token_drawer {
 public:
  /// \param u  in [0, 1): tokens stand in the order of id (uncut) or of falling probability (cut)
  int operator()(std::span<float const> logits, double temperature, sample_form const& form, double u) {
    if (form.greedy || temperature == 0) return int(std::max_element(logits.begin(), logits.end()) - logits.begin());
    weigh(logits, float(1 / temperature));
    if (form.top_k == 0 && form.top_p >= 1 && form.min_p <= 0) return draw(weights_, u);
    cut(form);
    kept_.clear();
    for (int const i : order_) kept_.push_back(weights_[std::size_t(i)]);
    return order_[std::size_t(draw(kept_, u))];
  }

 private:
  // Numbers that the compiler handles at once, and that have a sum of their own.
  static constexpr std::size_t lane = 16, block = 16 * lane;

  // exp((logit - largest) scale) of every token, to a few units in the last place; 0 below e^-87. The library's own
  // functions take one number at a time, and a vocabulary has tens of thousands.
  void weigh(std::span<float const> logits, float scale) {
    std::size_t const n = logits.size();
    float most[lane];
    std::fill_n(most, lane, logits[0]);
    std::size_t i = 0;
    for (; i + lane <= n; i += lane)
      for (std::size_t j = 0; j < lane; ++j) most[j] = logits[i + j] > most[j] ? logits[i + j] : most[j];
    float largest = *std::max_element(most, most + lane);
    for (; i < n; ++i) largest = std::max(largest, logits[i]);
    weights_.resize((n + lane - 1) / lane * lane);
    float* const p = weights_.data();
    for (std::size_t k = 0; k < n; ++k) p[k] = (logits[k] - largest) * scale;
    for (std::size_t k = 0; k < weights_.size(); k += lane) exp(p + k);
    weights_.resize(n);
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

  // Leaves in order_ the tokens that may be drawn, the most probable first.
  void cut(sample_form const& form) {
    auto const p = [&](int i) { return weights_[std::size_t(i)]; };
    order_.resize(weights_.size());
    std::iota(order_.begin(), order_.end(), 0);
    // Equal probabilities keep the order of their ids, so that the cut does not depend on the sort.
    auto const before = [&](int a, int b) { return p(a) > p(b) || (p(a) == p(b) && a < b); };
    if (form.top_k > 0 && std::size_t(form.top_k) < order_.size()) {
      std::partial_sort(order_.begin(), order_.begin() + form.top_k, order_.end(), before);
      order_.resize(std::size_t(form.top_k));
    } else {
      std::sort(order_.begin(), order_.end(), before);
    }
    if (form.top_p < 1) {
      double total = 0, kept = 0;
      for (int const i : order_) total += double(p(i));
      std::size_t n = 0;
      while (n < order_.size() && (n == 0 || kept < form.top_p * total)) kept += double(p(order_[n++]));
      order_.resize(n);
    }
    if (form.min_p > 0) {  // the largest has the weight 1
      auto const below = [&](int i) { return double(p(i)) < form.min_p; };
      order_.erase(std::find_if(order_.begin() + 1, order_.end(), below), order_.end());
    }
  }

  // The first i with u sum(p) < p[0] + ... + p[i]: block by block, then within one.
  int draw(std::vector<float> const& p, double u) {
    sums_.clear();
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
      sums_.push_back(sum);
      total += sum;
    }
    double below = 0;
    std::size_t b = 0;
    while (b + 1 < sums_.size() && below + sums_[b] <= u * total) below += sums_[b++];
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

  std::vector<float> weights_, kept_;
  std::vector<int> order_;
  std::vector<double> sums_;  // of blocks
};

}  // namespace atmanrl::inline ATMANRL_ABI
