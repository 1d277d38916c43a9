#pragma once

/// \file
/// What one forward pass leaves behind: the plan of who attended to what, the results, and the state that the model
/// keeps for its backward pass. Reused from step to step, it stops allocating after the largest one.

#include <atmanrl/backend/uploaded.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/nn/ragged_batch.hpp>
#include <atmanrl/ops/advance.hpp>
#include <atmanrl/ops/attention.hpp>

#include <algorithm>
#include <memory>
#include <span>
#include <typeindex>
#include <typeinfo>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

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

  /// Whether passes that want gradients keep only each layer's input and compute the rest again in the backward pass
  /// (Chen et al. 2016, arXiv:1604.06174): less memory by about the number of layers, the same bits, one more forward
  /// pass of time.
  void set_recompute(bool recompute) { recompute_ = recompute; }
  bool recompute() const { return recompute_; }
  index_t rows() const { return rows_; }

  /// log p, entropy (nats, when asked for) of the pairs of the last call of log_probs.
  std::vector<T> log_p() const { return results_.log_p.to_host(); }
  std::vector<T> entropy() const { return results_.entropy.to_host(); }

  /// (rows, hidden) the embedded tokens, of a pass that kept its activations or its layers' inputs.
  view_on<B, T const, 2> input() const {
    expects<shape_error>(mode_ != gradient_mode::none, "the forward pass did not keep its activations");
    return results_.input;
  }

  // ---- for those who write models ----------------------------------------------------------------------------------

  /// What a model leaves for the pass's readers.
  struct results_type {
    tensor<B, T, 1> log_p, entropy;  ///< (scored)
    view_on<B, T const, 2> input{};  ///< (rows, hidden)
  };
  results_type& results() { return results_; }

  /// Memory of the model's own, made at the first call and kept: one object of each type.
  template <class State>
  State& state() {
    for (auto& [type, object] : states_)
      if (type == typeid(State)) return *static_cast<State*>(object.get());
    states_.emplace_back(typeid(State), std::make_shared<State>());
    return *static_cast<State*>(states_.back().second.get());
  }
  template <class State>
  State const& state() const {
    for (auto& [type, object] : states_)
      if (type == typeid(State)) return *static_cast<State const*>(object.get());
    fail<shape_error>("the forward pass was not made by this model");
  }

  view_on<B, int const, 1> ids() const { return ids_.cview(); }                ///< (rows) tokens
  view_on<B, int const, 1> positions() const { return positions_.cview(); }    ///< (rows) absolute positions
  view_on<B, int const, 1> cache_rows() const { return cache_rows_.cview(); }  ///< (rows) where keys and values go
  attention_plan<typename B::memory_space> const& attention() const { return plan_; }

  /// Where the rows are, for a backend that moves them (ops/advance.hpp); the next `plan` lays all of it out anew.
  row_places<typename B::memory_space> movable_places() {
    return {ids_.taken_over(), positions_.taken_over(), cache_rows_.taken_over(), sequences_.taken_over(),
            segments_.taken_over()};
  }
  /// Says that rows which were moved see no more keys than that.
  void set_longest(index_t longest) { plan_.longest = int(longest); }

  /// Lays the batch out over the cache: finds every row's place and ancestors, groups sequences by tree. The cache
  /// stays as it is: its sequences grow when their rows have been computed.
  void plan(kv_cache<B, T> const& cache, ragged_batch const& batch, gradient_mode mode) {
    std::vector<int> positions, cache_rows;
    std::vector<int> entry_of;  // batch entry of a cache sequence, or -1
    auto const entry = [&](int id) { return std::size_t(id) < entry_of.size() ? entry_of[std::size_t(id)] : -1; };
    auto const length_after = [&](int id) {
      return cache.length(id) + (entry(id) < 0 ? 0 : batch.entries()[std::size_t(entry(id))].rows);
    };
    for (std::size_t i = 0; i < batch.entries().size(); ++i) {
      auto const& e = batch.entries()[i];
      cache.check_room(e.sequence, e.rows);
      if (entry_of.size() <= std::size_t(e.sequence)) entry_of.resize(std::size_t(e.sequence) + 1, -1);
      entry_of[std::size_t(e.sequence)] = int(i);
    }
    std::vector<attention_segment> segments;
    std::vector<attention_sequence> sequences;
    std::vector<int> roots;
    std::vector<std::size_t> depths;
    int longest = 0, most_rows = 0;
    for (auto const& e : batch.entries()) {
      auto const& own = cache.at(e.sequence);
      int const first_position = int(cache.length(e.sequence));
      for (int r = 0; r < e.rows; ++r) {
        positions.push_back(first_position + r);
        cache_rows.push_back(int(own.first_row + first_position - own.inherited) + r);
      }
      longest = std::max(longest, first_position + e.rows);
      most_rows = std::max(most_rows, e.rows);

      // From the sequence up to its root, each with the end of what the sequence sees of it.
      std::vector<int> path{e.sequence};
      std::vector<index_t> ends{length_after(e.sequence)};
      while (cache.at(path.back()).parent >= 0) {
        ends.push_back(std::min(ends.back(), cache.at(path.back()).inherited));
        path.push_back(cache.at(path.back()).parent);
      }
      attention_sequence s{.batch_row = e.first_row,
                           .rows = e.rows,
                           .first_position = first_position,
                           .first_segment = int(segments.size()),
                           .segments = 0,
                           .tag = e.tag};
      for (std::size_t depth = path.size(); depth-- > 0;) {
        int const id = path[depth];
        auto const& node = cache.at(id);
        index_t const begin = node.inherited, end = ends[depth];
        if (end <= begin) continue;  // a descendant goes on from before this one begins
        expects<shape_error>(length_after(id) >= end, "sequence {} sees {} positions of sequence {}, which holds {}",
                             e.sequence, end, id, length_after(id));
        int const in_batch = entry(id);
        index_t const fresh = std::min(end, cache.length(id));
        expects<shape_error>(
            mode != gradient_mode::parameters || fresh <= begin,
            "parameter gradients need all {} positions of sequence {} in the call, {} were there before", end - begin,
            id, fresh - begin);
        if (fresh > begin) segments.push_back({int(node.first_row), int(begin), int(fresh - begin), -1});
        if (end > fresh) {
          segments.push_back({int(node.first_row + fresh - begin), int(fresh), int(end - fresh),
                              batch.entries()[std::size_t(in_batch)].first_row + int(fresh - cache.length(id))});
        }
      }
      s.segments = int(segments.size()) - s.first_segment;
      sequences.push_back(s);
      roots.push_back(path.back());
      depths.push_back(path.size());
    }
    // Sequences of one tree side by side, trees in the order of their first sequence; within a tree parents before
    // their children, siblings in the batch's order.
    std::vector<int> tree_of_root;
    std::vector<std::size_t> tree(sequences.size()), order(sequences.size());
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      auto const known = std::find(tree_of_root.begin(), tree_of_root.end(), roots[i]);
      tree[i] = std::size_t(known - tree_of_root.begin());
      if (known == tree_of_root.end()) tree_of_root.push_back(roots[i]);
      order[i] = i;
    }
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return std::pair(tree[a], depths[a]) < std::pair(tree[b], depths[b]);
    });
    std::vector<attention_sequence> ordered;
    std::vector<int> trees;
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (i == 0 || tree[order[i]] != tree[order[i - 1]]) trees.push_back(int(i));
      ordered.push_back(sequences[order[i]]);
    }
    trees.push_back(int(order.size()));

    mode_ = mode;
    rows_ = batch.rows();
    positions_.assign(*backend_, positions);
    cache_rows_.assign(*backend_, cache_rows);
    ids_.assign(*backend_, batch.tokens());
    segments_.assign(*backend_, segments);
    sequences_.assign(*backend_, ordered);
    trees_.assign(*backend_, trees);
    plan_ = {.sequences = sequences_.cview(),
             .segments = segments_.cview(),
             .trees = trees_.cview(),
             .longest = longest,
             .most_rows = most_rows,
             .root_viewers = most_root_viewers(ordered, segments, trees),
             .longest_root = longest_root(ordered, trees)};
  }

 private:
  /// attention_plan::root_viewers
  static int most_root_viewers(std::vector<attention_sequence> const& sequences,
                               std::vector<attention_segment> const& segments, std::vector<int> const& trees) {
    int most = 1;
    for (std::size_t t = 0; t + 1 < trees.size(); ++t) {
      int const root = sequences[std::size_t(trees[t])].batch_row;
      most = std::max(most, int(std::count_if(sequences.begin() + trees[t], sequences.begin() + trees[t + 1],
                                              [&](attention_sequence const& s) {
                                                auto const first = segments.begin() + s.first_segment;
                                                return std::any_of(first, first + s.segments,
                                                                   [&](auto const& g) { return g.batch_row == root; });
                                              })));
    }
    return most;
  }

  /// attention_plan::longest_root
  static int longest_root(std::vector<attention_sequence> const& sequences, std::vector<int> const& trees) {
    int longest = 0;
    for (std::size_t t = 0; t + 1 < trees.size(); ++t)
      longest = std::max(longest, sequences[std::size_t(trees[t])].rows);
    return longest;
  }

  B* backend_;
  gradient_mode mode_ = gradient_mode::none;
  bool recompute_ = false;
  index_t rows_ = 0;

  uploaded<B, int> ids_, positions_, cache_rows_;
  uploaded<B, attention_segment> segments_;
  uploaded<B, attention_sequence> sequences_;
  uploaded<B, int> trees_;
  attention_plan<typename B::memory_space> plan_;
  results_type results_;
  std::vector<std::pair<std::type_index, std::shared_ptr<void>>> states_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
