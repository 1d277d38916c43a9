#pragma once
// Rollouts for mask training: owning token lists, ragged parts, prompts that are shared and prompts that are not.
#include <atmanrl/saliency/mask_training.hpp>

#include "nn/small_model.hpp"

namespace atmanrl_test {

struct owned_item {
  std::vector<int> prompt, cot, delimiter, answer;
  operator saliency_item() const { return {prompt, cot, delimiter, answer}; }
  std::vector<int> all() const {
    std::vector<int> ids = prompt;
    for (auto const* part : {&cot, &delimiter, &answer}) ids.insert(ids.end(), part->begin(), part->end());
    return ids;
  }
};

inline owned_item make_item(unsigned prompt_seed, std::size_t prompt, std::size_t cot, std::size_t delimiter,
                            std::size_t answer, unsigned seed, index_t vocab) {
  return {random_tokens(prompt, vocab, prompt_seed), random_tokens(cot, vocab, 100 + seed),
          random_tokens(delimiter, vocab, 200 + seed), random_tokens(answer, vocab, 300 + seed)};
}

/// |δ| and N of 1, 2 and 3; the first, third and fifth share a prompt.
inline std::vector<owned_item> ragged_items(index_t vocab) {
  return {make_item(1, 3, 4, 1, 2, 1, vocab), make_item(2, 2, 1, 2, 1, 2, vocab), make_item(1, 3, 6, 3, 3, 3, vocab),
          make_item(3, 1, 3, 1, 1, 4, vocab), make_item(1, 3, 2, 2, 1, 5, vocab)};
}

inline std::vector<saliency_item> views_of(std::vector<owned_item> const& items) {
  return {items.begin(), items.end()};
}

/// One forward pass over prompt, CoT, delimiter and answer of a single item as one sequence, under the mask.
/// \param last_row_too  whether the row of the last answer token is computed and may see the mask, although nothing is
///                      scored after it
template <class T>
struct full_path {
  T ce{};
  std::vector<double> gradient;  ///< of the mean cross-entropy, summed over key-value heads
  std::vector<T> logits;         ///< (answer tokens, vocabulary)

  full_path(llama<reference_backend, T>& model, owned_item const& item, mask_shape shape, mask_rows rows, double scale,
            std::vector<T> const& values, bool last_row_too = false)
      : full_path(model, item, options_of(shape, rows, scale), values, last_row_too) {}

  template <class Mask, class Objective>
  full_path(llama<reference_backend, T>& model, owned_item const& item, mask_options_of<Mask, Objective> const& o,
            std::vector<T> const& values, bool last_row_too = false) {
    auto& backend = model.backend();
    std::vector<int> ids = item.all();
    owned_item longer = item;
    if (last_row_too) longer.answer.push_back(1);
    saliency_item const seen = longer;
    mask_extent const extent = o.family().lay_out(seen, o.training().rows, model.config(), 0);
    typename Mask::template policy<reference_backend> policy;
    o.family().assign(policy, backend, std::span(&seen, 1), std::span(&extent, 1), model.config());
    kv_cache<reference_backend, T> cache(backend, model.config(), index_t(ids.size()));
    forward_pass<reference_backend, T> pass(backend);
    ragged_batch batch;
    std::size_t const computed = ids.size() - (last_row_too ? 0 : 1);
    batch.add(cache.add_sequence(index_t(ids.size())), std::span(ids).first(computed), 0);
    auto const at = as(values, {index_t(values.size())});
    model.forward(cache, batch, pass, {.mode = gradient_mode::activations}, edited{policy, at});
    std::vector<scored_token> scored;
    for (std::size_t t = ids.size() - item.answer.size(); t < ids.size(); ++t) scored.push_back({int(t) - 1, ids[t]});
    std::vector<int> rows;
    for (scored_token const& s : scored) rows.push_back(s.row);
    tensor<reference_backend, T, 2> z(backend, {0, 0});
    model.logits(pass, rows, z);
    logits = z.to_host();
    model.log_probs(pass, scored);
    for (T const x : pass.log_p()) ce -= x / real_t<T>(item.answer.size());
    if constexpr (std::is_same_v<T, double>) {
      std::vector<double> const d(scored.size(), -1.0 / double(item.answer.size()));
      index_t const heads = model.config().kv_heads, n = index_t(values.size());
      std::vector<double> per_head(std::size_t(heads * n));
      model.backward(cache, pass, {.log_p = d}, {.edit = as(per_head, {heads, n})}, edited{policy, at});
      gradient.resize(std::size_t(n));
      for (index_t i = 0; i < heads * n; ++i) gradient[std::size_t(i % n)] += per_head[std::size_t(i)];
    }
  }

  static mask_options options_of(mask_shape shape, mask_rows rows, double scale) {
    mask_options o;
    o.shape = shape;
    o.rows = rows;
    o.scale = scale;
    return o;
  }

  static mask_extent extent_of(owned_item const& item, mask_shape shape, mask_rows rows, bool last_row_too = false,
                               int copies = 1) {
    int const begin = int(item.prompt.size()), end = begin + int(item.cot.size());
    return make_mask_extent(shape, rows, begin, end, int(item.all().size()) + (last_row_too ? 1 : 0), 0, copies);
  }
};

inline std::string combination(mask_shape shape, mask_rows rows) {
  return std::string(shape == mask_shape::pair ? "pair" : "column") +
         (rows == mask_rows::all_later ? ", all_later" : ", answer_rows");
}

template <class F>
void for_each_kind(F&& f) {
  for (mask_shape const shape : {mask_shape::pair, mask_shape::column})
    for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) f(shape, rows);
}

}  // namespace atmanrl_test
