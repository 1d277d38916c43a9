#pragma once

/// \file
/// The attention that a forward pass paid, averaged over heads:
///     P(w,v) = 1/heads sum_h exp(S_h(w,v) - lse_h(w)).
/// Kernels store no probabilities; they follow from what a pass keeps: rotated queries, cached keys and the rows'
/// log-sum-exp. Attention rollout multiplies them (Abnar & Zuidema 2020, arXiv:2005.00928).

#include <atmanrl/ops/attention.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace kernels {

/// A backend provides the operation by specialising this template.
template <class B>
struct mean_attention {
  static_assert(detail::always_false<B>,
                "atmanrl: no mean_attention kernel for this backend; specialise atmanrl::kernels::mean_attention<B>");
};

template <>
struct mean_attention<reference_backend> {
  template <class T, class K, class Params>
  static void rebuild(reference_backend&, attention_extents const& e, view<T const, 3> qkv, view<K const, 3> keys,
                      view<T const, 2> lse, attention_plan<> const& plan, Params params, T const* parameters,
                      view<T, 2> out) {
    using std::exp;
    for (index_t i = 0; i < out.size(); ++i) out.data()[i] = T{};
    std::vector<T> scores(std::size_t(plan.longest));
    for (index_t i = 0; i < plan.sequences.extent(0); ++i) {
      attention_sequence const& s = plan.sequences(i);
      for (int r = 0; r < s.rows; ++r) {
        index_t const row = s.batch_row + r;
        int const position = s.first_position + r;
        for (index_t h = 0; h < e.heads; ++h) {
          attention<reference_backend>::raw_scores(e, &qkv(row, h, 0), keys, h / e.group(), plan, s, position, scores);
          T const smallest =
              attention<reference_backend>::row_min(params, scores, {e.layer, int(h), s.tag, position, 0});
          for (int v = 0; v <= position; ++v)
            out(row, v) += exp(edited_score(params, scores[std::size_t(v)], {e.layer, int(h), s.tag, position, v},
                                            parameters, smallest) -
                               lse(row, h)) /
                           real_t<T>(e.heads);
        }
      }
    }
  }
};

}  // namespace kernels

/// Rebuilds one layer's attention from what `attention_forward` was given and returned.
/// \param qkv         (rows, heads + 2 kv_heads, head_dim); only the queries are read
/// \param keys        (cache rows, kv_heads, head_dim) of this layer
/// \param lse         (rows, heads)
/// \param params      that of the forward pass, as `parameters`
/// \param out         (rows, plan.longest), overwritten: by absolute position of the key, 0 after the row's own
template <Backend B, class T, class K, class Params>
void mean_attention(B& backend, attention_extents const& e, std::type_identity_t<view_on<B, T const, 3>> qkv,
                    view<K, 3, typename B::memory_space> keys, std::type_identity_t<view_on<B, T const, 2>> lse,
                    attention_plan<typename B::memory_space> const& plan, Params params,
                    std::type_identity_t<T> const* parameters, view<T, 2, typename B::memory_space> out) {
  detail::expects_attention_extents(e, qkv, keys, keys);
  expects<shape_error>(lse.extent(0) == qkv.extent(0) && lse.extent(1) == e.heads && out.extent(0) == qkv.extent(0) &&
                           out.extent(1) == plan.longest,
                       "lse {} and out {} for qkv {} and {} keys", lse.shape(), out.shape(), qkv.shape(), plan.longest);
  kernels::mean_attention<B>::rebuild(backend, e, qkv, view_on<B, K const, 3>(keys), lse, plan, params, parameters,
                                      out);
}

}  // namespace atmanrl::inline ATMANRL_ABI
