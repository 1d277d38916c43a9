#pragma once

/// \file
/// What one forward pass leaves behind: the plan of who attended to what, the activations that its gradient mode asks
/// for, and the head's results. Reused from step to step, it stops allocating after the largest one.

#include <atmanrl/nn/decoder_layer.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/nn/ragged_batch.hpp>
#include <atmanrl/ops/log_prob.hpp>

#include <algorithm>
#include <span>
#include <vector>

namespace atmanrl {

/// What a forward pass must keep: nothing (sampling), what activation gradients need (mask training), or what parameter
/// gradients need (training), for which all ancestors' rows must be in the same call.
enum class gradient_mode { none, activations, parameters };

/// A log-probability that is wanted: that of `target` after batch row `row`. A prompt's last row may appear with many
/// targets.
struct scored_token {
  int row, target;
};

template <Backend B, class T>
class forward_pass {
 public:
  explicit forward_pass(B& backend) : backend_(&backend) {}

  gradient_mode mode() const { return mode_; }
  index_t rows() const { return rows_; }

  /// log p, entropy (nats, when asked for) of the pairs of the last call of log_probs.
  std::vector<T> log_p() const { return log_p_.to_host(); }
  std::vector<T> entropy() const { return entropy_.to_host(); }

  /// Lays the batch out over the cache: reserves its rows, finds every row's ancestors, groups sequences by tree.
  void plan(kv_cache<B, T>& cache, ragged_batch const& batch, gradient_mode mode) {
    mode_ = mode;
    rows_ = batch.rows();
    std::vector<int> positions, cache_rows;
    std::vector<int> entry_of;  // batch entry of a cache sequence, or -1
    auto const entry = [&](int id) { return std::size_t(id) < entry_of.size() ? entry_of[std::size_t(id)] : -1; };
    std::vector<index_t> length_before;
    for (auto const& e : batch.entries()) {
      length_before.push_back(cache.length(e.sequence));
      cache.extend(e.sequence, e.rows);
      if (entry_of.size() <= std::size_t(e.sequence)) entry_of.resize(std::size_t(e.sequence) + 1, -1);
      entry_of[std::size_t(e.sequence)] = int(length_before.size()) - 1;
    }
    std::vector<attention_segment> segments;
    std::vector<attention_sequence> sequences;
    std::vector<int> roots;
    int longest = 0;
    for (std::size_t i = 0; i < batch.entries().size(); ++i) {
      auto const& e = batch.entries()[i];
      auto const& own = cache.at(e.sequence);
      int const first_position = int(length_before[i]);
      for (int r = 0; r < e.rows; ++r) {
        positions.push_back(first_position + r);
        cache_rows.push_back(int(own.first_row + first_position - own.inherited) + r);
      }
      longest = std::max(longest, first_position + e.rows);

      std::vector<int> path{e.sequence};
      while (cache.at(path.back()).parent >= 0) path.push_back(cache.at(path.back()).parent);
      attention_sequence s{.batch_row = e.first_row, .rows = e.rows, .first_position = first_position,
                           .first_segment = int(segments.size()), .segments = 0, .tag = e.tag};
      for (std::size_t depth = path.size(); depth-- > 0;) {
        int const id = path[depth];
        auto const& node = cache.at(id);
        index_t const begin = node.inherited;
        index_t const end = depth == 0 ? cache.length(id) : cache.at(path[depth - 1]).inherited;
        expects<shape_error>(cache.length(id) >= end, "sequence {} sees {} positions of sequence {}, which holds {}", e.sequence, end,
                             id, cache.length(id));
        int const in_batch = entry(id);
        index_t const fresh = in_batch < 0 ? end : std::min(end, length_before[std::size_t(in_batch)]);
        expects<shape_error>(mode != gradient_mode::parameters || fresh <= begin,
                             "parameter gradients need all {} positions of sequence {} in the call, {} were there before", end - begin, id, fresh - begin);
        if (fresh > begin) segments.push_back({int(node.first_row), int(begin), int(fresh - begin), -1});
        if (end > fresh) {
          index_t const from = std::max(begin, fresh);
          segments.push_back({int(node.first_row + from - begin), int(from), int(end - from),
                              batch.entries()[std::size_t(in_batch)].first_row + int(from - length_before[std::size_t(in_batch)])});
        }
      }
      s.segments = int(segments.size()) - s.first_segment;
      sequences.push_back(s);
      roots.push_back(path.back());
    }
    // Sequences of one tree side by side, trees in the order of their first sequence, order kept within a tree.
    std::vector<int> tree_of_root, tree(sequences.size());
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      auto const known = std::find(tree_of_root.begin(), tree_of_root.end(), roots[i]);
      tree[i] = int(known - tree_of_root.begin());
      if (known == tree_of_root.end()) tree_of_root.push_back(roots[i]);
    }
    std::vector<attention_sequence> ordered;
    std::vector<int> trees{0};
    for (int t = 0; t < int(tree_of_root.size()); ++t) {
      for (std::size_t i = 0; i < sequences.size(); ++i)
        if (tree[i] == t) ordered.push_back(sequences[i]);
      trees.push_back(int(ordered.size()));
    }
    upload(positions_, positions);
    upload(cache_rows_, cache_rows);
    upload(ids_, std::vector<int>(batch.tokens().begin(), batch.tokens().end()));
    upload(segments_, segments);
    upload(sequences_, ordered);
    upload(trees_, trees);
    plan_ = {sequences_.cview(), segments_.cview(), trees_.cview(), longest};
    last_position_ = longest - 1;
  }

  int last_position() const { return last_position_; }

 private:
  template <Backend, class>
  friend class llama;

  template <class U>
  void upload(tensor<B, U, 1>& to, std::vector<U> const& from) {
    to.resize(*backend_, {index_t(from.size())});
    to.assign(from);
  }

  B* backend_;
  gradient_mode mode_ = gradient_mode::none;
  index_t rows_ = 0;
  int last_position_ = -1;

  tensor<B, int, 1> ids_, positions_, cache_rows_;
  tensor<B, attention_segment, 1> segments_;
  tensor<B, attention_sequence, 1> sequences_;
  tensor<B, int, 1> trees_;
  attention_plan<typename B::memory_space> plan_;

  tensor<B, T, 2> x_;   // (rows, hidden) residual stream; its gradient in the backward pass is dx_
  tensor<B, T, 2> dx_;
  std::vector<layer_activations<B, T>> layers_;  // one for gradient_mode::none
  layer_workspace<B, T> workspace_;

  // Head: rows gathered for the scored tokens.
  double temperature_ = 1;
  tensor<B, int, 1> scored_rows_, targets_;
  tensor<B, T, 2> gathered_, normed_, dnormed_, dgathered_;  // (scored, hidden)
  tensor<B, T, 1> inv_rms_, log_p_, lse_, entropy_, dlog_p_, dentropy_;  // (scored)
  log_prob_scratch<B, T> head_scratch_;
};

}  // namespace atmanrl
