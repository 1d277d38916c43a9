#pragma once

/// \file
/// The additive attention mask of AtManRL (arXiv:2604.16158, eq. 1):
///     B(w,v) = scale * min(H(w,v), clamp) * allowed(w,v),   S(w,v) = q_w.k_v / sqrt(d) + B(w,v)
/// with w the query, v the key, and allowed(w,v) = [v in CoT][w >= v][w in rows][w <= last scored row].

#include <atmanrl/attention/policy.hpp>
#include <atmanrl/backend/tensor.hpp>

#include <span>
#include <vector>

namespace atmanrl {

/// One parameter per allowed (query, key) pair, as in eq. 1 and 3, or one per CoT token, as in the paper's figures.
enum class mask_shape { pair, column };

/// Which queries see the mask: all later ones (CoT, delimiter, answer), or only delimiter and answer.
enum class mask_rows { all_later, answer_rows };

/// Where the mask of one sequence lies. All positions are absolute positions in the sequence.
struct mask_extent {
  int cot_begin = 0, cot_end = 0;      ///< the CoT tokens are the positions [cot_begin, cot_end)
  int first_row = 0, last_row = -1;    ///< the queries that see the mask, both ends included
  index_t offset = 0, count = 0;       ///< its parameters are [offset, offset + count) of the batch's parameters

  /// Number of allowed entries (w, v), whatever the shape.
  ATMANRL_HOST_DEVICE constexpr index_t entries() const { return row_offset(last_row + 1); }

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
inline mask_extent make_mask_extent(mask_shape shape, mask_rows rows, int cot_begin, int cot_end, int total, index_t offset) {
  expects<shape_error>(0 <= cot_begin && cot_begin <= cot_end && cot_end < total,
                       "a mask over CoT tokens [{}, {}) needs delimiter and answer behind them, but the sequence has {} tokens",
                       cot_begin, cot_end, total);
  mask_extent e{.cot_begin = cot_begin, .cot_end = cot_end, .first_row = rows == mask_rows::all_later ? cot_begin : cot_end,
                .last_row = total - 2, .offset = offset};
  e.count = shape == mask_shape::pair ? e.entries() : cot_end - cot_begin;
  return e;
}

namespace attention {

/// The masks of a batch of sequences; sequence tag i uses extent i, negative tags and those beyond the extents see no mask.
template <Backend B>
class learned_mask {
 public:
  struct params_type {
    mask_extent const* extents;
    int sequences;
    mask_shape shape;
    float scale, clamp;

    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, T value, score_site) const {
      return score + clamp_above(value, clamp) * real_t_of<T>(scale);
    }
    ATMANRL_HOST_DEVICE index_t parameter(score_site at) const {
      if (at.sequence < 0 || at.sequence >= sequences) return -1;
      mask_extent const e = extents[at.sequence];
      if (at.query < e.first_row || at.query > e.last_row || at.key < e.cot_begin || at.key >= e.cot_end) return -1;
      index_t const column = at.key - e.cot_begin;
      return e.offset + (shape == mask_shape::column ? column : e.row_offset(at.query) + column);
    }
    ATMANRL_HOST_DEVICE key_range keys(score_site at) const {
      if (at.sequence < 0 || at.sequence >= sequences) return {0, 0};
      mask_extent const e = extents[at.sequence];
      if (at.query < e.first_row || at.query > e.last_row) return {0, 0};
      return {e.cot_begin, at.query + 1 < e.cot_end ? at.query + 1 : e.cot_end};
    }

   private:
    // float for float and dual<float>, double for double, dual<double> and complex<double>
    template <class T>
    using real_t_of = decltype(real_part(T{}));
  };

  learned_mask(B& backend, mask_shape shape, std::span<mask_extent const> extents, float scale = 10, float clamp = 0)
      : shape_(shape), scale_(scale), clamp_(clamp), extents_(backend, {index_t(extents.size())}) {
    extents_.assign(extents);
    for (mask_extent const& e : extents) parameters_ += e.count;
    for (mask_extent const& e : extents) {
      index_t const needed = shape == mask_shape::pair ? e.entries() : e.cot_end - e.cot_begin;
      expects<shape_error>(e.count == needed && e.offset >= 0 && e.offset + e.count <= parameters_,
                           "a mask with the parameters [{}, {}) of {} needs {} of them", e.offset, e.offset + e.count, parameters_, needed);
    }
  }

  params_type params() const {
    return {.extents = extents_.data(), .sequences = int(extents_.extent(0)), .shape = shape_, .scale = scale_, .clamp = clamp_};
  }
  index_t parameter_count() const { return parameters_; }

 private:
  mask_shape shape_;
  float scale_, clamp_;
  index_t parameters_ = 0;
  tensor<B, mask_extent, 1> extents_;
};

}  // namespace attention
}  // namespace atmanrl
