#pragma once

/// \file
/// How attention's work is cut into blocks, and what the parts of a cut leave in the scratch until they are added up.
/// Everything that it depends on is known to the host, so it serves estimates of memory as well.

#include <atmanrl/cuda/attention_inputs.cuh>
#include <atmanrl/cuda/launch.cuh>

#include <algorithm>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// Of a plan whose batch has so many rows.
template <class Space>
attention_pass_size size_of(attention_plan<Space> const& plan, index_t rows) {
  index_t const most_rows = plan.most_rows > 0 ? plan.most_rows : rows;
  return {.rows = rows,
          .sequences = plan.sequences.extent(0),
          .most_rows = most_rows,
          .longest = plan.longest,
          .trees = plan.trees.extent(0) - 1,
          .longest_root = plan.longest_root > 0 ? plan.longest_root : most_rows,
          .root_viewers = plan.root_viewers};
}

/// Where a sequence's queries fit one tile, the keys are split, down to two of their tiles, as far as blocks are
/// wanted.
/// \param alike  as far as it goes, so that where a row's keys are cut depends on no other row. Parts that a longer row
///               asks for hold none of its keys and weigh nothing when parts are merged.
inline query_cut cut_of(attention_extents const& e, attention_pass_size const& p, int tile_rows, bool alike = false) {
  int const tiles = int(blocks_for(p.most_rows * e.group(), tile_rows));
  if (tiles > 1) return {tiles, 1, int(p.longest)};
  int const longest = int(keys_to_cut(p.longest));
  constexpr int least = 64, wanted = 1024;
  int const most_parts = std::max(1, wanted / int(std::clamp<index_t>(p.sequences * e.kv_heads, 1, wanted)));
  int const keys = alike ? least : least * int(blocks_for(blocks_for(longest, least), most_parts));
  return {1, int(blocks_for(longest, keys)), keys};
}

/// Blocks that share the viewers of a tree's first sequence.
inline int viewer_parts(attention_pass_size const& p) {
  constexpr index_t most = 16;
  return int(std::clamp<index_t>(p.root_viewers, 1, most));
}

/// Numbers that the forward pass leaves: each part's softmax and its log-sum-exp.
inline index_t forward_scratch(attention_extents const& e, attention_pass_size const& p, query_cut const& cut) {
  return cut.parts == 1 ? 0 : cut.parts * p.rows * e.heads * (e.head_dim + 1);
}

/// Numbers of the backward pass. After the corrections, in the same memory, first the parts' dQ, later their dK and
/// dV.
struct backward_scratch {
  backward_scratch(attention_extents const& e, attention_pass_size const& p, query_cut const& cut)
      : corrections((p.rows * e.heads + 3) / 4 * 4),
        query_sums(cut.parts == 1 ? 0 : cut.parts * p.rows * e.heads * e.head_dim),
        viewer_sums((viewer_parts(p) - 1) * p.trees * p.longest_root * 2 * e.kv_heads * e.head_dim) {}
  index_t corrections, query_sums, viewer_sums;
  index_t all() const { return corrections + std::max(query_sums, viewer_sums); }
};

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
