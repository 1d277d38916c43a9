#pragma once

/// \file
/// Parameter gradients of answers after forced chains of thought, seen through an edit of the attention or without
/// one: what a reward needs that is a function of such answers' probabilities and is to be climbed itself.

#include <atmanrl/saliency/variants.hpp>

#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// An item's answer, its weight in the sum that is differentiated, and what is knocked out of its chain meanwhile.
struct weighted_answer {
  std::size_t item = 0;
  double weight = 0;
  std::vector<std::uint8_t> chosen = {};  ///< per token of the chain; empty: none
};

struct answer_gradient_options {
  index_t row_budget = 4096;  ///< rows of one forward and backward pass, bounds the memory for activations
  bool recompute = false;     ///< keep only the layers' inputs for the backward pass (forward_pass::set_recompute)
};

/// The edit of `weighted_answer`: the answer's rows do not see what is chosen, the chain's rows do.
struct knock_out_chosen {
  template <class Model>
  auto operator()(Model& model, std::span<saliency_item const> items,
                  std::span<weighted_answer const* const> answers) const {
    std::vector<key_selection> selections;
    for (weighted_answer const* const a : answers) {
      saliency_item const& m = items[a->item];
      int const begin = int(m.prompt.size()), end = begin + int(m.cot.size());
      selections.push_back({.key_begin = begin, .key_end = end, .first_row = end, .chosen = a->chosen});
      if (a->chosen.empty()) selections.back().chosen.assign(m.cot.size(), 0);
    }
    using policy_type = attention::knockout<typename Model::backend_type>;
    struct edit_of_batch {
      policy_type policy;
      auto edit() const { return edited{policy}; }
    };
    return edit_of_batch{policy_type(model.backend(), std::span<key_selection const>(selections))};
  }
};

/// Adds sum_k weight_k d log p(answer_k) / d parameters to `gradient`, log p being the sum over the answer's tokens.
/// Answers of weight 0 cost nothing.
/// \tparam Answer      has `item` and `weight`, and what `make_edit` asks for
/// \param gradient     flat, in the order of the model's trainable layout
/// \param make_edit    (model, items, answers of one batch) -> an object whose `edit()` gives `edited{...}`; answer i
///                     of the batch has sequence tag i, prompts have tag -1
/// \throws usage_error when an item has an empty part, numeric_error when a log-probability is not finite
template <LanguageModel Model, class Answer, class MakeEdit = knock_out_chosen>
void add_answer_gradient(Model& model, std::span<saliency_item const> items, std::span<Answer const> answers,
                         view_on<typename Model::backend_type, typename Model::scalar, 1> gradient,
                         answer_gradient_options const& options = {}, MakeEdit const& make_edit = {}) {
  using T = typename Model::scalar;
  std::vector<Answer const*> active;
  for (Answer const& a : answers) {
    expects<usage_error>(a.item < items.size(), "an answer is that of item {} of {}", a.item, items.size());
    detail::expects_whole_item(items[a.item]);
    if (a.weight != 0) active.push_back(&a);
  }
  for (std::size_t first = 0, next = 0; first < active.size(); first = next) {
    // All in one call: gradients do not flow through rows of earlier calls. Neighbours share a prompt.
    prefix_tree_batch tree;
    std::vector<T> d;
    for (; next < active.size(); ++next) {
      saliency_item const& m = items[active[next]->item];
      index_t const rows = index_t(m.prompt.size() + m.cot.size() + m.delimiter.size() + m.answer.size());
      if (next > first && tree.cache_rows() + rows > options.row_budget) break;
      int const root = tree.root(m.prompt, prefix_tree_batch::shared::with_last, 0, -1);
      tree.score(root, {m.cot, m.delimiter}, m.answer, int(next - first));
      d.insert(d.end(), m.answer.size(), T(active[next]->weight));
    }
    auto const seen = make_edit(model, items, std::span<Answer const* const>(active).subspan(first, next - first));
    auto const space = model.borrow_pass(tree.cache_rows(), options.recompute);
    auto& [cache, pass] = *space;
    tree.open(model, cache, pass);
    model.forward(cache, tree.batch(), pass, {.mode = gradient_mode::parameters}, seen.edit());
    model.log_probs(pass, tree.scored());
    for (T const x : pass.log_p())
      expects<numeric_error>(std::isfinite(double(real_part(x))), "the log-probability of a forced answer is {}",
                             double(real_part(x)));
    model.backward(cache, pass, {.log_p = std::span<T const>(d)}, {.parameters = gradient}, seen.edit());
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI
