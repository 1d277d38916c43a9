#pragma once

/// \file
/// KL(p_0 || p_H) of packed answers where their logits are (docs/method.md, (M6)): of a step only two numbers for each
/// answer token go to the host, when it asks.

#include <atmanrl/backend/uploaded.hpp>
#include <atmanrl/ops/divergence.hpp>
#include <atmanrl/saliency/saliency_item.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Rows are answer tokens, item by item.
template <Backend B, class T>
class answer_divergence {
 public:
  /// Keeps the logits of the model without masks, (answer tokens of all items, vocabulary).
  void keep(B& backend, tensor<B, T, 2> const& logits) {
    unmasked_.resize(backend, logits.shape());
    backend.copy(unmasked_.data(), logits.data(), std::size_t(logits.size()) * sizeof(T));
  }

  /// Turns logits under masks into the gradient of the sum of the active items' mean divergences.
  /// \param logits  (answer tokens of the active items, vocabulary)
  void kl_and_gradient(B& backend, std::span<saliency_item const> items, std::span<char const> active,
                       tensor<B, T, 2>& logits) {
    std::vector<int> rows, targets;
    std::vector<T> weights;
    int row = 0;
    for (std::size_t i = 0; i < items.size(); ++i)
      for (int const token : items[i].answer) {
        if (active[i]) {
          rows.push_back(row);
          targets.push_back(token);
          weights.push_back(T(1.0 / double(items[i].answer.size())));
        }
        ++row;
      }
    index_t const n = index_t(rows.size());
    rows_.assign(backend, rows);
    targets_.assign(backend, targets);
    weights_.assign(backend, weights);
    of_rows_.resize(backend, {2 * n});
    divergence(backend, unmasked_.cview(), rows_.cview(), targets_.cview(), weights_.cview(), logits.view(),
               of_rows_.view().rows(0, n), of_rows_.view().rows(n, n));
  }

  /// The active items' mean divergences and cross-entropies of the latest call, in nats per answer token; those of the
  /// others stay as they are.
  void read(std::span<saliency_item const> items, std::span<char const> active, std::span<double> divergences,
            std::span<double> cross_entropies) const {
    std::vector<T> const of_rows = of_rows_.to_host();
    std::size_t const log_p = of_rows.size() / 2;
    std::size_t row = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (!active[i]) continue;
      std::size_t const n = items[i].answer.size();
      double kl = 0, ce = 0;
      for (std::size_t t = 0; t < n; ++t, ++row) {
        kl += double(of_rows[row]);
        ce -= double(of_rows[log_p + row]);
      }
      divergences[i] = kl / double(n);
      cross_entropies[i] = ce / double(n);
    }
  }

 private:
  tensor<B, T, 2> unmasked_;
  uploaded<B, int> rows_, targets_;  // of unmasked_, and ids
  uploaded<B, T> weights_;
  tensor<B, T, 1> of_rows_;  // divergences, then log-probabilities
};

}  // namespace atmanrl::inline ATMANRL_ABI
