#pragma once

/// \file
/// Sampling from softmax(logits / temperature), optionally cut to the k largest, to the smallest set of probability top_p
/// (Holtzman et al. 2020, arXiv:1904.09751) and to tokens of at least min_p times the largest probability (Nguyen et al.
/// 2024, arXiv:2407.01082). Temperature 0 is greedy. What the trainer learns from are the log-probabilities before any cut.

#include <atmanrl/rl/samplers/greedy.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace atmanrl::samplers {

/// Draws by inverting the cumulative distribution, tokens in order of id (uncut) or of falling probability (cut).
struct multinomial {
  int top_k = 0;      ///< 0: all
  double top_p = 1;   ///< 1: all
  double min_p = 0;   ///< 0: all

  int operator()(std::span<float const> logits, double temperature, double u) const {
    if (temperature == 0) return greedy{}(logits, 0, u);
    float const largest = *std::max_element(logits.begin(), logits.end());
    float const scale = float(1 / temperature);
    std::vector<float> p(logits.size());
    for (std::size_t i = 0; i < p.size(); ++i) p[i] = std::exp((logits[i] - largest) * scale);
    std::vector<int> order;
    if (top_k > 0 || top_p < 1 || min_p > 0) {
      order.resize(p.size());
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
    }
    std::size_t const n = order.empty() ? p.size() : order.size();
    auto const id = [&](std::size_t i) { return order.empty() ? int(i) : order[i]; };
    double total = 0;
    for (std::size_t i = 0; i < n; ++i) total += double(p[std::size_t(id(i))]);
    double below = 0;
    int last = id(0);  // rounding may leave u * total a little above the last sum
    for (std::size_t i = 0; i < n; ++i) {
      float const mine = p[std::size_t(id(i))];
      if (mine == 0) continue;
      last = id(i);
      below += double(mine);
      if (u * total < below) break;
    }
    return last;
  }
};
static_assert(Sampler<multinomial>);

}  // namespace atmanrl::samplers
