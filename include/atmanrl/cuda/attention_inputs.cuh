#pragma once

/// \file
/// What every attention kernel reads, and its way through the plan: queries are pairs (row, head of the group) of one
/// sequence and one key-value head, numbered row by row; keys are found by their absolute position.

#include <atmanrl/cuda/attention_matrix_tile.cuh>
#include <atmanrl/ops/attention.hpp>

#include <cstdint>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// Query heads of a key-value head. Every access of a tile divides by it, so the host turns that into a multiplication,
/// exact for dividends from 0 to 2^32 / group.
class group_size {
 public:
  explicit group_size(index_t heads)
      : heads_(int(heads)),
        reciprocal_(heads > 1 ? unsigned(((std::uint64_t{1} << 32) + unsigned(heads) - 1) / unsigned(heads)) : 0) {}
  ATMANRL_HOST_DEVICE operator int() const { return heads_; }
  friend __device__ int operator/(int pairs, group_size g) {
    return g.reciprocal_ == 0 ? pairs : int(std::uint64_t(unsigned(pairs)) * g.reciprocal_ >> 32);
  }

 private:
  int heads_;
  unsigned reciprocal_;
};

/// \tparam K  storage of keys and values: T, or bf16
template <class T, class K>
struct attention_inputs {
  int layer, heads, kv_heads;
  group_size group;
  T scale;
  view<T const, 3, device_space> qkv;           ///< (rows, heads + 2 kv_heads, head_dim)
  view<K const, 3, device_space> keys, values;  ///< (cache rows, kv_heads, head_dim)
  view<attention_sequence const, 1, device_space> sequences;
  view<attention_segment const, 1, device_space> segments;
  view<int const, 1, device_space> trees;
  int most_rows;  ///< no sequence has more new rows

  /// End of the tree that sequence `i` is in: no sequence from there on sees its rows.
  __device__ int end_of_tree(int i) const { return trees(tree_after(i)); }
  /// Whether sequence `i` is the first of its tree.
  __device__ bool is_root(int i) const { return trees(tree_after(i) - 1) == i; }

 private:
  __device__ int tree_after(int i) const {
    int low = 0, high = int(trees.extent(0)) - 1;  // trees(low) <= i < trees(high)
    while (high - low > 1) {
      int const middle = (low + high) / 2;
      if (trees(middle) <= i)
        low = middle;
      else
        high = middle;
    }
    return high;
  }
};

template <class T, class K>
attention_inputs<T, K> inputs_of(attention_extents const& e, view<T const, 3, device_space> qkv,
                                 view<K const, 3, device_space> keys, view<K const, 3, device_space> values,
                                 attention_plan<device_space> const& plan) {
  return {.layer = e.layer,
          .heads = int(e.heads),
          .kv_heads = int(e.kv_heads),
          .group = group_size(e.group()),
          .scale = T(e.scale()),
          .qkv = qkv,
          .keys = keys,
          .values = values,
          .sequences = plan.sequences,
          .segments = plan.segments,
          .trees = plan.trees,
          .most_rows = plan.most_rows > 0 ? plan.most_rows : int(qkv.extent(0))};
}

/// How the grid of a kernel by queries is cut: block x = (sequence * tiles + tile) * parts + part, block y = key-value
/// head.
struct query_cut {
  int tiles;      ///< tiles of queries per sequence, at most
  int parts;      ///< parts of the keys; 1: a row is one block's work
  int part_keys;  ///< keys of a part

  __device__ int part() const { return int(blockIdx.x) % parts; }
  /// The last tile sees the most keys, so it starts first.
  __device__ int tile() const { return tiles - 1 - int(blockIdx.x) / parts % tiles; }
  __device__ int sequence() const { return int(blockIdx.x) / parts / tiles; }
  /// The part's keys of rows up to this position.
  __device__ key_range keys(int last_position) const {
    int const first = part() * part_keys, end = last_position + 1;
    return {first, parts > 1 && first + part_keys < end ? first + part_keys : end};
  }
};

/// One query: its row of the batch, its head, its absolute position.
struct query_place {
  int row, head, position;
  __device__ query_place(attention_sequence const& s, group_size group, int kv_head, int pair) {
    int const r = pair / group;
    row = s.batch_row + r;
    head = kv_head * group + pair - r * group;
    position = s.first_position + r;
  }
};

/// The keys of a query that the policy may change; outside them no code of the policy runs.
template <class Params>
__device__ __forceinline__ key_range edited_keys(Params const& params, score_site at) {
  if constexpr (atmanrl::detail::names_its_keys<Params>)
    return params.keys(at);
  else
    return {0, at.query + 1};
}

/// What a tile of queries is asked for with every tile of keys, in shared memory, because registers hold the sums.
template <class T, int Count>
struct query_notes {
  index_t parameter[Count];                    ///< of the key `first`, where the policy numbers keys in order; -1: none
  T lse[Count], correction[Count];             ///< written by the backward kernels
  int position[Count];                         ///< -1 beyond the last query: no key is seen from there
  int head[Count], first[Count], last[Count];  ///< the policy may change the keys [first, last)

  /// Notes the queries [pair, pair + Count) of the sequence, of which `pairs` are there.
  template <class Tile, class K, class Params>
  __device__ void write(attention_inputs<T, K> const& in, Params const& params, attention_sequence const& s,
                        int kv_head, int pair, int pairs) {
    for (int r = int(threadIdx.x); r < Count; r += Tile::threads)
      note(r, in, params, s, query_place(s, in.group, kv_head, pair + r), r < pairs);
  }
  /// Notes one query, or that it is not there.
  template <class K, class Params>
  __device__ void note(int r, attention_inputs<T, K> const& in, Params const& params, attention_sequence const& s,
                       query_place const& place, bool real) {
    position[r] = real ? place.position : -1;
    head[r] = place.head;
    // The policy is asked about queries that are there and keys that they see alone.
    key_range const edited =
        real ? edited_keys(params, {in.layer, place.head, s.tag, place.position, 0}) : key_range{0, 0};
    first[r] = edited.first > 0 ? edited.first : 0;
    last[r] = edited.last <= position[r] ? edited.last : position[r] + 1;
    if constexpr (atmanrl::detail::numbers_keys_in_order<Params>)
      parameter[r] =
          first[r] < last[r] ? params.parameter({in.layer, place.head, s.tag, place.position, first[r]}) : -1;
  }
  /// Notes what the forward pass and the kernel by queries left.
  template <class Tile, class K>
  __device__ void write_sums(attention_inputs<T, K> const& in, attention_sequence const& s, int kv_head, int pair,
                             int pairs, view<T const, 2, device_space> all_lse, T const* all_corrections) {
    for (int r = int(threadIdx.x); r < Count; r += Tile::threads) {
      query_place const place(s, in.group, kv_head, pair + r);
      lse[r] = r < pairs ? all_lse(place.row, place.head) : T(0);
      correction[r] = r < pairs ? all_corrections[index_t(place.row) * in.heads + place.head] : T(0);
    }
  }

  __device__ score_site site(int r, int layer, int tag, int key) const {
    return {layer, head[r], tag, position[r], key};
  }
  /// The score of a key that the policy may change, edited.
  template <class Params>
  __device__ T edited_score(int r, int layer, int tag, int key, Params const& params, T const* parameters, T score,
                            T row_min) const {
    if constexpr (atmanrl::detail::numbers_keys_in_order<Params>)
      return kernels::score_edited_by(parameter_of(r, key), params, score, site(r, layer, tag, key), parameters);
    else
      return kernels::edited_score(params, score, site(r, layer, tag, key), parameters, row_min);
  }
  template <class Params>
  __device__ kernels::score_derivative<T> edited_score_derivative(int r, int layer, int tag, int key,
                                                                  Params const& params, T const* parameters,
                                                                  T score) const {
    if constexpr (atmanrl::detail::numbers_keys_in_order<Params>)
      return kernels::derivative_of_edit_by(parameter_of(r, key), params, score, site(r, layer, tag, key), parameters);
    else
      return kernels::edited_score_derivative(params, score, site(r, layer, tag, key), parameters);
  }
  __device__ index_t parameter_of(int r, int key) const {
    return parameter[r] < 0 ? -1 : parameter[r] + (key - first[r]);
  }
  __device__ bool edits(int r, int key) const { return key >= first[r] && key < last[r]; }
};

/// Finds the cache rows of a sequence's keys by position; positions must ascend from call to call.
class key_cursor {
 public:
  template <class T, class K>
  __device__ key_cursor(attention_inputs<T, K> const& in, attention_sequence const& s)
      : next_(in.segments.data() + s.first_segment) {}

  __device__ __forceinline__ int cache_row(int position) {
    while (position >= end_) {
      end_ = next_->first_position + next_->length;
      shift_ = next_->cache_row - next_->first_position;
      ++next_;
    }
    return position + shift_;
  }

 private:
  attention_segment const* next_;
  int end_ = 0, shift_ = 0;
};

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
