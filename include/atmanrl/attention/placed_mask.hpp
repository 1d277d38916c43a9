#pragma once

/// \file
/// Where a mask over a chain of thought lies: which scores of which sequences have a value of their own (arXiv:
/// 2604.16158, section 3.2),
///     allowed(w,v) = [v in CoT][w >= v][w in rows][w <= last scored row]    w the query, v the key,
/// one value for each allowed pair or for each token, shared by all layers and heads or not. Masks derive from
/// `placed_mask` and add the line of arithmetic that says what a value does to its score.

#include <atmanrl/attention/policy.hpp>
#include <atmanrl/backend/tensor.hpp>

#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// One parameter per allowed (query, key) pair, as in eq. 1 and 3, or one per CoT token, as in the paper's figures.
enum class mask_shape { pair, column };

/// Which queries see the mask: all later ones (CoT, delimiter, answer), or only delimiter and answer.
enum class mask_rows { all_later, answer_rows };

/// Whether layers and heads share one H: all do, one for each layer, or one for each layer and head.
enum class mask_sharing { all, per_layer, per_head };

/// Where the mask of one sequence lies. All positions are absolute positions in the sequence.
struct mask_extent {
  int cot_begin = 0, cot_end = 0;    ///< the CoT tokens are the positions [cot_begin, cot_end)
  int first_row = 0, last_row = -1;  ///< the queries that see the mask, both ends included
  index_t offset = 0, count = 0;     ///< its parameters are [offset, offset + count) of the batch's parameters
  int copies = 1;                    ///< separate H that lie one after the other: per layer, or per layer and head

  /// Number of allowed entries (w, v) of one H, whatever the shape.
  ATMANRL_HOST_DEVICE constexpr index_t entries() const { return row_offset(last_row + 1); }

  /// Parameters of one H.
  ATMANRL_HOST_DEVICE constexpr index_t parameters(mask_shape shape) const {
    return shape == mask_shape::pair ? entries() : cot_end - cot_begin;
  }

  /// Allowed entries of the rows before `row`; entries are numbered row by row.
  ATMANRL_HOST_DEVICE constexpr index_t row_offset(int row) const {
    index_t const tokens = cot_end - cot_begin;
    if (first_row >= cot_end) return index_t(row - first_row) * tokens;
    index_t const i = row - cot_begin;  // row i of the CoT sees its i+1 first tokens
    return i <= tokens ? i * (i + 1) / 2 : tokens * (tokens + 1) / 2 + (i - tokens) * tokens;
  }
};

/// Extent for a sequence that reads  [0, cot_begin) prompt | [cot_begin, cot_end) CoT | delimiter | answer [.., total).
/// The row of the last answer token predicts nothing that is scored, so it is not allowed.
inline mask_extent make_mask_extent(mask_shape shape, mask_rows rows, int cot_begin, int cot_end, int total,
                                    index_t offset, int copies = 1) {
  expects<shape_error>(
      0 <= cot_begin && cot_begin <= cot_end && cot_end < total,
      "a mask over CoT tokens [{}, {}) needs delimiter and answer after them, but the sequence has {} tokens",
      cot_begin, cot_end, total);
  mask_extent e{.cot_begin = cot_begin,
                .cot_end = cot_end,
                .first_row = rows == mask_rows::all_later ? cot_begin : cot_end,
                .last_row = total - 2,
                .offset = offset,
                .copies = copies};
  e.count = copies * e.parameters(shape);
  return e;
}

/// In which layers and heads of a model a mask acts, and how many separate H that takes.
struct mask_sites {
  mask_sharing sharing = mask_sharing::all;
  std::vector<int> layers = {};         ///< layers that see the mask, ascending; empty: all
  index_t model_layers = 0, heads = 0;  ///< of the model; needed unless all layers share one H

  /// Number of separate H.
  int copies() const {
    index_t const edited = layers.empty() ? model_layers : index_t(layers.size());
    return sharing == mask_sharing::all ? 1 : int(sharing == mask_sharing::per_layer ? edited : edited * heads);
  }
};

namespace attention {

/// The places of the masks of a batch of sequences; sequence tag i uses extent i, negative tags and those beyond the
/// extents see no mask. A mask derives from it, its params_type from this one's, and adds
/// `template <class T> ATMANRL_HOST_DEVICE T operator()(T score, T value, score_site) const`.
template <Backend B>
class placed_mask {
 public:
  struct params_type {
    static constexpr bool separate_sequences = true, separate_keys = true, consecutive_parameters = true;
    mask_extent const* extents;
    int sequences;
    mask_shape shape;
    int const* first_copy;    ///< (layers) first H of each layer, -1 where the layer sees no mask; null: all layers use
                              ///< the only one
    int layers, heads_apart;  ///< heads_apart is 1 where head h of a layer uses H first_copy + h, else 0

    bool separate_queries() const { return shape == mask_shape::pair; }
    ATMANRL_HOST_DEVICE index_t parameter(score_site at) const {
      if (at.sequence < 0 || at.sequence >= sequences) return -1;
      mask_extent const e = extents[at.sequence];
      if (at.query < e.first_row || at.query > e.last_row || at.key < e.cot_begin || at.key >= e.cot_end) return -1;
      index_t const column = at.key - e.cot_begin;
      index_t const own = e.offset + (shape == mask_shape::column ? column : e.row_offset(at.query) + column);
      if (!first_copy) return own;
      int const copy = layer_copy(at.layer);
      return copy < 0 ? -1 : own + (copy + heads_apart * at.head) * e.parameters(shape);
    }
    ATMANRL_HOST_DEVICE key_range keys(score_site at) const {
      if (at.sequence < 0 || at.sequence >= sequences || layer_copy(at.layer) < 0) return {0, 0};
      mask_extent const e = extents[at.sequence];
      if (at.query < e.first_row || at.query > e.last_row) return {0, 0};
      return {e.cot_begin, at.query + 1 < e.cot_end ? at.query + 1 : e.cot_end};
    }

   private:
    ATMANRL_HOST_DEVICE int layer_copy(int layer) const {
      if (!first_copy) return 0;
      return layer < layers ? first_copy[layer] : -1;
    }
  };

  /// Other masks in the memory of these.
  /// \throws shape_error when extents do not fit the parameters or the number of separate H, usage_error for layers
  ///         that the model does not have
  void assign(B& backend, mask_shape shape, std::span<mask_extent const> extents, mask_sites const& sites) {
    shape_ = shape;
    heads_apart_ = sites.sharing == mask_sharing::per_head;
    parameters_ = 0;
    extents_.resize(backend, {index_t(extents.size())});
    extents_.assign(extents);
    first_copy_.resize(backend, {0});
    for (mask_extent const& e : extents) parameters_ += e.count;
    for (mask_extent const& e : extents) {
      expects<shape_error>(e.copies == sites.copies(), "a mask with {} separate H where the layers and heads need {}",
                           e.copies, sites.copies());
      index_t const needed = e.copies * e.parameters(shape);
      expects<shape_error>(e.count == needed && e.offset >= 0 && e.offset + e.count <= parameters_,
                           "a mask with the parameters [{}, {}) of {} needs {} of them", e.offset, e.offset + e.count,
                           parameters_, needed);
    }
    if (sites.sharing == mask_sharing::all && sites.layers.empty()) return;
    std::vector<int> first(std::size_t(sites.model_layers), sites.layers.empty() ? 0 : -1);
    int next = 0, previous = -1;
    auto const give = [&](int layer) {
      expects<usage_error>(
          layer > previous && layer < int(sites.model_layers),
          "mask layer {} stands after layer {} for a model of {} layers: name each once, in ascending order", layer,
          previous, sites.model_layers);
      previous = layer;
      first[std::size_t(layer)] = next;
      next += sites.sharing == mask_sharing::all ? 0 : sites.sharing == mask_sharing::per_layer ? 1 : int(sites.heads);
    };
    for (int const layer : sites.layers) give(layer);
    for (int layer = 0; sites.layers.empty() && layer < int(sites.model_layers); ++layer) give(layer);
    first_copy_.resize({index_t(first.size())});
    first_copy_.assign(first);
  }

  params_type params() const {
    return {.extents = extents_.data(),
            .sequences = int(extents_.extent(0)),
            .shape = shape_,
            .first_copy = first_copy_.size() ? first_copy_.data() : nullptr,
            .layers = int(first_copy_.extent(0)),
            .heads_apart = heads_apart_};
  }
  index_t parameter_count() const { return parameters_; }

 private:
  mask_shape shape_ = mask_shape::pair;
  bool heads_apart_ = false;
  index_t parameters_ = 0;
  tensor<B, mask_extent, 1> extents_;
  tensor<B, int, 1> first_copy_;
};

}  // namespace attention
}  // namespace atmanrl::inline ATMANRL_ABI
