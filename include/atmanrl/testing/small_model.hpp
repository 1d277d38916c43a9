#pragma once

/// \file
/// Random models that are small enough for exact derivatives, and trees of sequences to run through them.

#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/testing/derivatives.hpp>

#include <cmath>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// Two layers with grouped-query attention; every extent differs from the others, so that a mix-up shows.
inline model_config small_config() {
  model_config c;
  c.layers = 2;
  c.hidden = 10;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 6;
  c.ffn = 7;
  c.vocab = 11;
  c.rope_theta = 100;
  c.rms_eps = 1e-5;
  c.tied_head = true;
  c.max_positions = 64;
  c.stop_ids = {0};
  return c;
}

/// The same with everything that a configuration can switch on.
inline model_config rich_config() {
  model_config c = small_config();
  c.tied_head = false;
  c.qkv_bias = true;
  c.rope_scaling.llama3 = true;
  c.rope_scaling.factor = 32;
  c.rope_scaling.original_max_positions = 64;
  return c;
}

/// Parameters of a random model: gains around 1, matrices of a size that gives logits worth a softmax.
inline std::vector<double> random_parameters(parameter_layout const& layout, unsigned seed = 1, double size = 1) {
  std::vector<double> flat = random_values(layout.size(), seed);
  for (parameter_info const& p : layout.all()) {
    bool const gain = p.role == parameter_role::gain,
               of_tokens = p.role == parameter_role::embedding || p.role == parameter_role::head;
    for (index_t i = p.offset; i < p.offset + p.size(); ++i) {
      double& x = flat[std::size_t(i)];
      if (gain)
        x = 1 + 0.2 * x;
      else if (p.is_vector())
        x *= 0.3;
      else
        x *= (of_tokens ? 0.8 : 1 / std::sqrt(double(p.columns))) * size;
    }
  }
  return flat;
}

inline std::vector<int> random_tokens(std::size_t count, index_t vocab, unsigned seed) {
  random_stream draw(seed, 5);
  std::vector<int> ids(count);
  for (int& id : ids) id = draw.between(1, int(vocab) - 1);
  return ids;
}

/// A sequence of a tree: what it appends to the first `visible` positions of its parent.
struct branch {
  int parent;  ///< index of the parent or -1
  int visible;
  std::vector<int> tokens;
};

/// Three trees with ragged branches, one of them three deep and forked in the middle of its parent.
inline std::vector<branch> ragged_tree(index_t vocab) {
  auto const ids = [&](std::size_t n, unsigned seed) { return random_tokens(n, vocab, seed); };
  return {{-1, 0, ids(3, 1)}, {0, 3, ids(2, 2)},  {0, 3, ids(1, 3)}, {-1, 0, ids(1, 4)}, {1, 5, ids(4, 5)},
          {1, 4, ids(2, 6)},  {-1, 0, ids(7, 7)}, {6, 5, ids(3, 8)}, {4, 2, ids(2, 9)}};
}

/// All tokens of a branch from the root on.
inline std::vector<int> whole_sequence(std::vector<branch> const& tree, int i) {
  branch const& b = tree[std::size_t(i)];
  std::vector<int> all;
  if (b.parent >= 0) {
    all = whole_sequence(tree, b.parent);
    all.resize(std::size_t(b.visible));
  }
  all.insert(all.end(), b.tokens.begin(), b.tokens.end());
  return all;
}

/// Adds the branches of a tree to an empty cache, without rows. \returns their sequences
template <Backend B, class T>
std::vector<int> add_sequences(kv_cache<B, T>& cache, std::vector<branch> const& tree) {
  std::vector<int> ids;
  for (branch const& b : tree) {
    index_t const n = index_t(b.tokens.size());
    ids.push_back(b.parent < 0 ? cache.add_sequence(n) : cache.add_child(ids[std::size_t(b.parent)], b.visible, n));
  }
  return ids;
}

/// A batch of all branches over a fresh cache.
template <class B, class T>
struct laid_out {
  kv_cache<B, T> cache;
  ragged_batch batch;
  std::vector<int> ids, first_row;

  laid_out(B& backend, model_config const& config, std::vector<branch> const& tree, index_t extra_rows = 0,
           kv_storage storage = kv_storage::full)
      : cache(backend, config, rows(tree) + extra_rows, storage), ids(add_sequences(cache, tree)) {
    for (std::size_t i = 0; i < tree.size(); ++i) first_row.push_back(batch.add(ids[i], tree[i].tokens, int(i)));
  }
  static index_t rows(std::vector<branch> const& tree) {
    index_t n = 0;
    for (branch const& b : tree) n += index_t(b.tokens.size());
    return n;
  }
};

/// Every row of the batch with a target of its own, the first row with three.
inline std::vector<scored_token> score_all(int rows, index_t vocab) {
  std::vector<scored_token> s{{0, 3}, {0, 3}};
  for (int r = 0; r < rows; ++r) s.push_back({r, int((r * 7 + 2) % vocab)});
  return s;
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
