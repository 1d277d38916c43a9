#pragma once

/// \file
/// Attention's operations and bytes, from the plan of a call: which queries see which keys, and whose scores are
/// edited.

#include <atmanrl/attention/placed_mask.hpp>
#include <atmanrl/counting/runtime.hpp>
#include <atmanrl/ops/attention.hpp>
#include <atmanrl/ops/mean_attention.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::kernels {

template <>
struct attention<counting::backend> {
  /// What one call looks at; the plan is one of the few arrays that are really there.
  struct visited {
    double fresh = 0, cached = 0;  // (query, key) pairs with keys of this call and of earlier ones
    double edited = 0;             // pairs whose score an attention policy changes
    double keys = 0;               // different keys
  };
  /// Scores of a row that an edit changes, each edit of a composition by itself; all where it does not name its keys.
  template <class Params>
  static double edited(Params const& params, score_site at) {
    if constexpr (requires { params.keys(at); }) {
      key_range const range = params.keys(at);
      return std::max(0, std::min(range.last, at.query + 1) - range.first);
    } else if constexpr (requires { params.a, params.b; }) {
      return edited(params.a, at) + edited(params.b, at);
    } else {
      return at.query + 1;
    }
  }
  template <class Params>
  static visited visit(attention_extents const& e, attention_plan<device_space> const& plan, Params const& params) {
    visited v;
    std::vector<std::pair<index_t, index_t>> runs;
    for (index_t i = 0; i < plan.sequences.extent(0); ++i) {
      attention_sequence const& s = plan.sequences(i);
      int const last = s.first_position + s.rows - 1;
      for (int g = s.first_segment; g < s.first_segment + s.segments; ++g) {
        attention_segment const& segment = plan.segments(g);
        // Row q sees the keys of the segment up to its own position.
        double pairs = 0;
        for (int q = s.first_position; q <= last; ++q)
          pairs += std::clamp(q - segment.first_position + 1, 0, segment.length);
        (segment.batch_row < 0 ? v.cached : v.fresh) += pairs;
        runs.emplace_back(segment.cache_row, segment.cache_row + segment.length);
      }
      for (int q = s.first_position; q <= last; ++q) v.edited += edited(params, score_site{e.layer, 0, s.tag, q, 0});
    }
    std::sort(runs.begin(), runs.end());
    index_t end = 0;
    for (auto const& [first, last] : runs) {
      v.keys += double(std::max<index_t>(0, last - std::max(first, end)));
      end = std::max(end, last);
    }
    return v;
  }
  /// Numbers of a trainable policy that a call reads.
  template <class Params>
  static double parameters_of(Params const& params) {
    if constexpr (requires { params.extents[0].offset; }) {
      mask_extent const& last = params.extents[params.sequences - 1];
      return double(last.offset + last.count);
    } else if constexpr (requires { params.a, params.b; }) {
      return parameters_of(params.a) + parameters_of(params.b);
    } else {
      return 0;
    }
  }

  template <class T, class Keys, class Params>
  static void forward(counting::backend& b, attention_extents const& e, counting::on<T const, 3> qkv, Keys keys, Keys,
                      attention_plan<device_space> const& plan, Params params, T const*, counting::on<T, 3> out,
                      counting::on<T, 2> lse, counting::on<bf16, 3> factor = {}) {
    visited const v = visit(e, plan, params);
    double const pairs = (v.fresh + v.cached) * double(e.heads), queries = double(qkv.extent(0) * e.heads * e.head_dim);
    b.count("attention", work_kind::attention, pairs * (4.0 * double(e.head_dim) + 5) + 4 * v.edited * double(e.heads),
            sizeof(T) * queries + counting::bytes(out) + counting::bytes(factor) + counting::bytes(lse) +
                v.keys * 2 * double(keys.row_size() * index_t(sizeof(typename Keys::value_type))) +
                sizeof(T) * parameters_of(params));
  }

  template <class T, class Keys, class Params>
  static void backward(counting::backend& b, attention_extents const& e, counting::on<T const, 3> qkv, Keys keys, Keys,
                       attention_plan<device_space> const& plan, Params params, T const*, counting::on<T const, 3> out,
                       counting::on<T const, 2> lse, counting::on<T const, 3> dout, counting::on<T, 3> dqkv,
                       counting::on<T, 2> dparameters) {
    visited const v = visit(e, plan, params);
    double const heads = double(e.heads), dim = double(e.head_dim), queries = double(qkv.extent(0)) * heads * dim;
    // S, dP and dQ for every pair; dK and dV as well where the key belongs to this call.
    b.count("attention_backward", work_kind::attention,
            heads * (v.fresh * (10 * dim + 6) + v.cached * (6 * dim + 6) + 6 * v.edited) + 2 * queries,
            sizeof(T) * queries + counting::bytes(out) + counting::bytes(lse) + counting::bytes(dout) +
                counting::bytes(dqkv) +
                v.keys * 2 * double(keys.row_size() * index_t(sizeof(typename Keys::value_type))) +
                sizeof(T) * parameters_of(params) + 2 * counting::bytes(dparameters));
  }

  template <class T, class Keys>
  static void append(counting::backend& b, attention_extents const& e, counting::on<T const, 3> qkv,
                     counting::on<int const, 1> cache_rows, Keys, Keys) {
    b.count("append", work_kind::rest, 0,
            counting::bytes(cache_rows) + 2.0 * double(qkv.extent(0) * e.kv_heads * e.head_dim) *
                                              (sizeof(T) + sizeof(typename Keys::value_type)));
  }
};

/// The scores are computed once more, from queries and keys alone.
template <>
struct mean_attention<counting::backend> {
  template <class T, class Keys, class Params>
  static void rebuild(counting::backend& b, attention_extents const& e, counting::on<T const, 3> qkv, Keys keys,
                      counting::on<T const, 2> lse, attention_plan<device_space> const& plan, Params params, T const*,
                      counting::on<T, 2> out) {
    auto const v = attention<counting::backend>::visit(e, plan, params);
    b.count("mean_attention", work_kind::attention,
            (v.fresh + v.cached) * double(e.heads) * (2.0 * double(e.head_dim) + 3) + 4 * v.edited * double(e.heads),
            sizeof(T) * double(qkv.extent(0) * e.heads * e.head_dim) + counting::bytes(lse) + counting::bytes(out) +
                v.keys * double(keys.row_size() * index_t(sizeof(typename Keys::value_type))));
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::kernels
