#pragma once

/// \file
/// Small attention problems on a prefix tree, for any scalar, and a second, naive way to compute their outputs.

#include <atmanrl/ops/attention.hpp>
#include <atmanrl/testing/derivatives.hpp>

#include <algorithm>
#include <functional>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// A sequence of the tree: its own rows of earlier calls, then its new rows.
struct node {
  int parent;  ///< index of the parent, which stands before it, or -1
  int cached;  ///< own rows that are in the cache already
  int rows;    ///< new rows, in the batch
  int tag;
};

/// The tree's plan, laid out as a kv_cache may do it: cached rows of all nodes first, then the batch in order.
struct tree_problem {
  std::vector<node> nodes;
  attention_extents extents;
  std::vector<attention_sequence> sequences;
  std::vector<attention_segment> segments;
  std::vector<int> trees, cache_rows;
  std::vector<int> first_position;  ///< of each node's own rows
  index_t rows = 0, cached_rows = 0;
  int longest = 0;
  std::vector<double> qkv, cached_keys, cached_values, dout;

  tree_problem(std::vector<node> const& tree, index_t heads, index_t kv_heads, index_t head_dim, int layer = 0)
      : nodes(tree), extents{layer, heads, kv_heads, head_dim} {
    std::vector<int> cached_at, batch_at;
    for (node const& n : nodes) {
      cached_at.push_back(int(cached_rows));
      batch_at.push_back(int(rows));
      first_position.push_back(n.parent < 0 ? 0 : end_of(n.parent));
      cached_rows += n.cached;
      rows += n.rows;
    }
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (nodes[i].parent < 0) trees.push_back(int(i));
      std::vector<int> path;
      for (int n = int(i); n >= 0; n = nodes[std::size_t(n)].parent) path.insert(path.begin(), n);
      int const first_segment = int(segments.size());
      for (int const n : path) {
        node const& a = nodes[std::size_t(n)];
        int const at = first_position[std::size_t(n)], batch = batch_at[std::size_t(n)];
        if (a.cached > 0) segments.push_back({cached_at[std::size_t(n)], at, a.cached, -1});
        if (a.rows > 0) segments.push_back({int(cached_rows) + batch, at + a.cached, a.rows, batch});
      }
      int const first = first_position[i] + nodes[i].cached;
      sequences.push_back(
          {batch_at[i], nodes[i].rows, first, first_segment, int(segments.size()) - first_segment, nodes[i].tag});
      longest = std::max(longest, end_of(int(i)));
    }
    trees.push_back(int(nodes.size()));
    for (index_t r = 0; r < rows; ++r) cache_rows.push_back(int(cached_rows + r));
    qkv = random_values(rows * (heads + 2 * kv_heads) * head_dim, 101);
    cached_keys = random_values(cached_rows * kv_heads * head_dim, 102);
    cached_values = random_values(cached_rows * kv_heads * head_dim, 103);
    dout = random_values(rows * heads * head_dim, 104);
  }

  int end_of(int n) const {
    return first_position[std::size_t(n)] + nodes[std::size_t(n)].cached + nodes[std::size_t(n)].rows;
  }

  /// Most sequences that see new rows of their tree's first one, as attention_plan wants it.
  int root_viewers() const {
    std::vector<int> viewers(nodes.size(), 0);
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      std::size_t root = i;
      while (nodes[root].parent >= 0) root = std::size_t(nodes[root].parent);
      viewers[root] += nodes[root].rows > 0;
    }
    return std::max(1, *std::max_element(viewers.begin(), viewers.end()));
  }

  /// attention_plan::longest_root
  int longest_root() const {
    int longest = 0;
    for (std::size_t t = 0; t + 1 < trees.size(); ++t)
      longest = std::max(longest, sequences[std::size_t(trees[t])].rows);
    return longest;
  }

  attention_plan<> plan() const { return {std::span(sequences), std::span(segments), std::span(trees), longest}; }

  std::array<index_t, 3> qkv_shape() const { return {rows, extents.heads + 2 * extents.kv_heads, extents.head_dim}; }
  std::array<index_t, 3> cache_shape() const { return {cached_rows + rows, extents.kv_heads, extents.head_dim}; }
  std::array<index_t, 3> out_shape() const { return {rows, extents.heads, extents.head_dim}; }

  template <class T, class K = T>
  struct output {
    std::vector<K> keys, values;
    std::vector<T> out, lse;
  };

  /// The op under test: append, then attend.
  template <class T, class Params, class B = reference_backend>
  output<T> forward(std::vector<T> const& x, Params params, std::vector<T> const& parameters = {},
                    B&& backend = {}) const {
    return forward_in<T>(x, params, parameters, backend);
  }
  /// The same over a cache that stores `K`.
  template <class K, class T, class Params, class B = reference_backend>
  output<T, K> forward_in(std::vector<T> const& x, Params params, std::vector<T> const& parameters = {},
                          B&& backend = {}) const {
    output<T, K> o{stored<K, T>(cached_keys), stored<K, T>(cached_values), std::vector<T>(dout.size()),
                   std::vector<T>(std::size_t(rows * extents.heads))};
    o.keys.resize(std::size_t(cached_rows + rows) * std::size_t(extents.kv_heads * extents.head_dim));
    o.values.resize(o.keys.size());
    view<K, 3> const keys(o.keys.data(), cache_shape()), values(o.values.data(), cache_shape());
    view<T const, 3> const in(x.data(), qkv_shape());
    append_keys_and_values(backend, extents, in, std::span(cache_rows), keys, values);
    attention_forward(backend, extents, in, keys, values, plan(), params, parameters.data(),
                      view<T, 3>(o.out.data(), out_shape()), as(o.lse, {rows, extents.heads}));
    return o;
  }

  template <class T>
  struct gradients {
    std::vector<T> dqkv, dparameters;  ///< parameters: summed over key-value heads
  };

  template <class T, class Params, class B = reference_backend>
  gradients<T> backward(std::vector<T> const& x, Params params, std::vector<T> const& parameters = {},
                        B&& backend = {}) const {
    return backward_in<T>(x, params, parameters, backend);
  }
  template <class K, class T, class Params, class B = reference_backend>
  gradients<T> backward_in(std::vector<T> const& x, Params params, std::vector<T> const& parameters = {},
                           B&& backend = {}) const {
    output<T, K> const o = forward_in<K>(x, params, parameters, backend);
    index_t const count = index_t(parameters.size());
    gradients<T> g{std::vector<T>(x.size(), T(3)), std::vector<T>(parameters.size())};
    std::vector<T> by_head(std::size_t(extents.kv_heads * count));
    std::vector<T> const upstream = converted<T>(dout);
    attention_backward(backend, extents, view<T const, 3>(x.data(), qkv_shape()),
                       view<K const, 3>(o.keys.data(), cache_shape()), view<K const, 3>(o.values.data(), cache_shape()),
                       plan(), params, parameters.data(), view<T const, 3>(o.out.data(), out_shape()),
                       as(o.lse, {rows, extents.heads}), view<T const, 3>(upstream.data(), out_shape()),
                       view<T, 3>(g.dqkv.data(), qkv_shape()), as(by_head, {extents.kv_heads, count}));
    for (index_t h = 0; h < extents.kv_heads; ++h)
      for (index_t i = 0; i < count; ++i) g.dparameters[std::size_t(i)] += by_head[std::size_t(h * count + i)];
    return g;
  }

  template <class K, class T>
  static std::vector<K> stored(std::vector<double> const& x) {
    std::vector<K> out;
    for (double const v : x) out.push_back(K(T(v)));
    return out;
  }

  /// `x` with its keys and values, and the cached ones, rounded to bfloat16.
  std::vector<float> round_keys_and_values(std::vector<float> x) {
    for (index_t r = 0; r < rows; ++r)
      for (index_t i = extents.heads * extents.head_dim; i < (extents.heads + 2 * extents.kv_heads) * extents.head_dim;
           ++i) {
        float& v = x[std::size_t(r * (extents.heads + 2 * extents.kv_heads) * extents.head_dim + i)];
        v = bf16(v);
      }
    for (auto* const cached : {&cached_keys, &cached_values})
      for (double& v : *cached) v = bf16(float(v));
    return x;
  }

  /// (node, row of the batch or of the cache) that holds a position as node n sees it.
  struct place {
    bool cached;
    index_t row;
  };
  place find(int n, int position) const {
    while (position < first_position[std::size_t(n)]) n = nodes[std::size_t(n)].parent;
    int offset = position - first_position[std::size_t(n)];
    index_t cached = 0, batch = 0;
    for (int i = 0; i < n; ++i) cached += nodes[std::size_t(i)].cached, batch += nodes[std::size_t(i)].rows;
    if (offset < nodes[std::size_t(n)].cached) return {true, cached + offset};
    return {false, batch + offset - nodes[std::size_t(n)].cached};
  }

  /// The same outputs from the definition, position by position: S, then edit(row of scores, head, node, query),
  /// softmax, P V.
  std::vector<double> naive(
      std::function<void(std::vector<double>&, int head, int node, int query)> const& edit) const {
    std::vector<double> out;
    index_t const d = extents.head_dim, width = extents.heads + 2 * extents.kv_heads;
    auto const key_or_value = [&](int n, int position, index_t kv, index_t c, bool value) {
      place const p = find(n, position);
      if (p.cached) return (value ? cached_values : cached_keys)[std::size_t((p.row * extents.kv_heads + kv) * d + c)];
      return qkv[std::size_t((p.row * width + extents.heads + (value ? extents.kv_heads : 0) + kv) * d + c)];
    };
    for (int n = 0; n < int(nodes.size()); ++n) {
      for (int query = end_of(n) - nodes[std::size_t(n)].rows; query < end_of(n); ++query) {
        index_t const row = find(n, query).row;
        for (int h = 0; h < int(extents.heads); ++h) {
          index_t const kv = h / (extents.heads / extents.kv_heads);
          std::vector<double> p(std::size_t(query) + 1);
          for (int v = 0; v <= query; ++v) {
            for (index_t c = 0; c < d; ++c)
              p[std::size_t(v)] += qkv[std::size_t((row * width + h) * d + c)] * key_or_value(n, v, kv, c, false);
            p[std::size_t(v)] /= std::sqrt(double(d));
          }
          edit(p, h, n, query);
          double sum = 0;
          for (double& s : p) sum += s = std::exp(s);
          for (index_t c = 0; c < d; ++c) {
            double o = 0;
            for (int v = 0; v <= query; ++v) o += p[std::size_t(v)] / sum * key_or_value(n, v, kv, c, true);
            out.push_back(o);
          }
        }
      }
    }
    return out;
  }
};

/// A prompt with two children, a grandchild, and a second tree; some rows come from earlier calls; one node is empty.
inline std::vector<node> ragged_trees() {
  return {{-1, 2, 3, 0}, {0, 0, 4, 1}, {0, 3, 2, 2}, {2, 0, 1, 3}, {-1, 0, 5, 4}, {4, 0, 0, 5}, {4, 1, 2, 6}};
}

/// A penalty on distance with a factor for each layer and head: an edit under which a model is trained or a mask found.
struct distance_factors {
  struct params_type {
    int heads;
    ATMANRL_HOST_DEVICE index_t parameter(score_site at) const { return at.layer * heads + at.head; }
    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, T factor, score_site at) const {
      return score - factor * decltype(real_part(T{}))(at.query - at.key);
    }
  };
  int layers, heads;
  params_type params() const { return {heads}; }
  index_t parameter_count() const { return layers * heads; }
};

}  // namespace atmanrl::inline ATMANRL_ABI::testing
