#pragma once

/// \file
/// One unedited forward pass of whole rollouts that keeps its activations, for estimators that read them.

#include <atmanrl/nn/prefix_tree_batch.hpp>
#include <atmanrl/saliency/estimators/estimator.hpp>

#include <cmath>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Prompts are computed once each and keep nothing; the rows of chain, delimiter and answer of all items are one pass.
template <LanguageModel Model>
class answer_pass {
 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

  /// Rows of an item: `chain` rows of the chain of thought, then those of delimiter and answer; the answer's tokens are
  /// scored after the last `answer` of them, the last token's own row is not computed.
  struct item_rows {
    int first, rows;    ///< [first, first + rows) of the batch
    int prompt;         ///< absolute position of the first of them
    int chain, answer;  ///< how many

    /// The row after which the answer's first token is scored, counted from `first`.
    int first_scored() const { return rows - answer; }
  };

  /// \param recompute  keep only the layers' inputs (forward_pass::set_recompute)
  /// \throws usage_error when an item has an empty prompt, chain, delimiter or answer
  answer_pass(Model& model, std::span<saliency_item const> items, bool recompute = false)
      : model_(&model), tree_(lay_out(items)), space_(model.borrow_pass(tree_.cache_rows(), recompute)) {
    tree_.open(model, cache_, pass_);
    model.forward(cache_, tree_.batch(), pass_, {.mode = gradient_mode::activations});
    model.log_probs(pass_, tree_.scored());
  }

  std::vector<item_rows> const& items() const { return items_; }

  /// Mean cross-entropy of each item's answer, nats per token.
  std::vector<double> cross_entropies() const {
    std::vector<double> ce;
    auto const log_p = pass_.log_p();
    std::size_t at = 0;
    for (item_rows const& i : items_) {
      double sum = 0;
      for (int t = 0; t < i.answer; ++t) sum -= double(log_p[at++]);
      expects<numeric_error>(std::isfinite(sum), "the cross-entropy of item {} is {}", ce.size(), sum / i.answer);
      ce.push_back(sum / i.answer);
    }
    return ce;
  }

  /// The attention of one layer, averaged over heads: a row of `attention_keys` values for each batch row, by absolute
  /// position.
  std::vector<T> attention(index_t layer) {
    model_->mean_attention(cache_, pass_, layer, attention_);
    return attention_.to_host();
  }
  index_t attention_keys() const { return attention_.extent(1); }

  /// The tokens' embeddings, a row of `hidden` values for each batch row; and the gradient of the sum of the items'
  /// cross-entropies with respect to them.
  std::vector<T> input() const {
    auto const x = pass_.input();
    std::vector<T> out(std::size_t(x.size()));
    model_->backend().copy_to_host(out.data(), x.data(), out.size() * sizeof(T));
    return out;
  }
  std::vector<T> input_gradient() {
    std::vector<T> dlog_p;
    for (item_rows const& i : items_) dlog_p.insert(dlog_p.end(), std::size_t(i.answer), T(-1.0 / i.answer));
    tensor<B, T, 2> dx(model_->backend(), pass_.input().shape());
    model_->backward(cache_, pass_, {.log_p = dlog_p}, {.input = dx.view()});
    return dx.to_host();
  }

 private:
  prefix_tree_batch lay_out(std::span<saliency_item const> items) {
    prefix_tree_batch tree(2);
    for (saliency_item const& item : items) {
      detail::expects_whole_item(item);
      int const id = tree.score(tree.root(item.prompt, prefix_tree_batch::shared::with_any), {item.cot, item.delimiter},
                                item.answer);
      int const prompt = int(item.prompt.size()), first = tree.first_row(id);
      items_.push_back({first, tree.last_row(id) + 1 - first, prompt, int(item.cot.size()), int(item.answer.size())});
    }
    return tree;
  }

  Model* model_;
  std::vector<item_rows> items_;  // before the tree, whose layout fills them
  prefix_tree_batch tree_;
  borrowed<cache_and_pass<B, T>> space_;
  kv_cache<B, T>& cache_ = space_->cache;
  forward_pass<B, T>& pass_ = space_->pass;
  tensor<B, T, 2> attention_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
