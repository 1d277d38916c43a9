#pragma once

/// \file
/// Causal grouped-query attention of new rows over the keys of a prefix tree, with an edit of the scores:
///     S(w,v) = edit(q_w.k_v / sqrt(d)),  P = softmax_v<=w(S),  O = P V            (Vaswani et al. 2017;
///     arXiv:2604.16158, eq. 1)
/// and its backward
///     dP = dO Vᵀ,  dS = P o (dP - rowsum(dO o O)),
/// from which dQ, dK, dV and the gradient of the edit's parameters follow in the same pass.
///
/// Keys and values are read from the cache alone, the rows' own included. A cache of 16-bit numbers therefore rounds
/// them in training as in sampling; dK and dV are those of the rounded ones, handed straight through the rounding.

#include <atmanrl/attention/policy.hpp>
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>

#include <cmath>
#include <concepts>
#include <limits>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A run of keys with consecutive positions that lie in consecutive rows of the cache.
struct attention_segment {
  int cache_row;       ///< row of the first key in the cache
  int first_position;  ///< its absolute position
  int length;          ///< number of keys
  int batch_row;       ///< row of the first key in the batch, or -1 where the keys come from an earlier call
};

/// New rows of one sequence, and the keys that they see: its ancestors' and its own, in ascending order of position.
struct attention_sequence {
  int batch_row, rows;          ///< its rows are [batch_row, batch_row + rows) of the batch
  int first_position;           ///< absolute position of the first of them
  int first_segment, segments;  ///< its keys are segments [first_segment, first_segment + segments) of the plan
  int tag;                      ///< the caller's number for the sequence; becomes score_site::sequence
};

/// Who attends to what in one call. Trees are not empty; their sequences stand together, parents before their children.
template <class Space = host_space>
struct attention_plan {
  view<attention_sequence const, 1, Space> sequences;
  view<attention_segment const, 1, Space> segments;
  view<int const, 1, Space> trees;  ///< tree t holds the sequences [trees(t), trees(t+1)); extent is trees + 1
  int longest = 0;                  ///< no row sees more keys
  int most_rows = 0;                ///< largest number of new rows of a sequence; 0: not known, so that of the batch
  int root_viewers = 1;  ///< most sequences that see new rows of a tree's first one, which is among them; how
                         ///< its gradients are shared out, so 1 is always right
  int longest_root = 0;  ///< largest number of new rows of a tree's first sequence; 0: not known, so most_rows
};

/// Where a backend cuts the keys of few rows into parts, it does so as if the longest row saw so many. A row that gains
/// a key with every call is then cut alike for a while: the same launches, and the same order of additions.
constexpr index_t keys_to_cut(index_t longest) {
  constexpr index_t one_part = 64, step = 256;
  return longest <= one_part ? one_part : (longest + step - 1) / step * step;
}

/// How large a pass is: what a backend's scratch depends on beside the extents.
struct attention_pass_size {
  index_t rows = 0, sequences = 0;
  index_t most_rows = 0, longest = 0;                     ///< as in attention_plan
  index_t trees = 1, longest_root = 0, root_viewers = 1;  ///< likewise
};

/// Extents of one layer's attention.
struct attention_extents {
  int layer = 0;
  index_t heads = 0, kv_heads = 0, head_dim = 0;
  bool bf16_weights = false;  ///< so that a backend may round the factors of attention's products, too
  double score_scale = 0;     ///< factor of q.k; 0: 1 / sqrt(head_dim)

  index_t group() const { return heads / kv_heads; }
  double scale() const { return score_scale > 0 ? score_scale : 1 / std::sqrt(double(head_dim)); }
};

namespace kernels {

/// A backend provides the operation by specialising this template; see cpu/attention.hpp.
template <class B>
struct attention {
  static_assert(detail::always_false<B>,
                "atmanrl: no attention kernel for this backend; specialise atmanrl::kernels::attention<B>");
};

/// Whether the edit uses numbers that can be learned.
template <class Params>
inline constexpr bool has_parameters = atmanrl::detail::edits_scores_by_parameter<Params>;

/// Whether the edit looks at the smallest score of the row.
template <class Params>
inline constexpr bool has_row_min = atmanrl::detail::edits_scores_with_row_min<Params>;

/// What a score counts as where the smallest of its row is looked for. Of composed edits (attention::compose) the first
/// has been made, and keys that it hides do not count.
template <class T, class Params>
ATMANRL_HOST_DEVICE T score_for_row_min(Params const& params, T score, score_site at) {
  if constexpr (requires { params.for_row_min(score, at); })
    return params.for_row_min(score, at);
  else
    return score;
}

/// A score that uses no parameter of the edit: it stays as it is, unless another edit is composed with it
/// (attention::compose).
template <class T, class Params>
ATMANRL_HOST_DEVICE T score_without_parameter(Params const& params, T score, score_site at) {
  if constexpr (requires { params.without_parameter(score, at); })
    return params.without_parameter(score, at);
  else
    return score;
}

/// The score edited by a parameter whose number is known; -1: none.
template <class T, class Params>
ATMANRL_HOST_DEVICE T score_edited_by(index_t parameter, Params const& params, T score, score_site at,
                                      T const* values) {
  return parameter < 0 ? score_without_parameter(params, score, at) : params(score, values[parameter], at);
}

/// The edited score, for plain scalars.
template <class T, class Params>
ATMANRL_HOST_DEVICE T edited_score(Params const& params, T score, score_site at, T const* values, T row_min) {
  if constexpr (has_parameters<Params>) {
    return score_edited_by(params.parameter(at), params, score, at, values);
  } else if constexpr (has_row_min<Params>) {
    return params(score, at, row_min);
  } else {
    return params(score, at);
  }
}

/// The edited score and its derivatives with respect to the score and to the parameter that it uses (-1: none).
template <class T>
struct score_derivative {
  T edited, score, value;
  index_t parameter;
};

/// Of a score edited by a parameter whose number is known; -1: none.
template <class T, class Params>
ATMANRL_HOST_DEVICE score_derivative<T> derivative_of_edit_by(index_t parameter, Params const& params, T score,
                                                              score_site at, T const* values) {
  if (parameter < 0) {
    dual<T> const by_score = score_without_parameter(params, dual<T>{score, T(1)}, at);
    return {by_score.value, by_score.derivative, T(0), -1};
  }
  T const value = values[parameter];
  dual<T> const by_score = params(dual<T>{score, T(1)}, dual<T>{value, T(0)}, at);
  return {by_score.value, by_score.derivative, params(dual<T>{score, T(0)}, dual<T>{value, T(1)}, at).derivative,
          parameter};
}

template <class T, class Params>
ATMANRL_HOST_DEVICE score_derivative<T> edited_score_derivative(Params const& params, T score, score_site at,
                                                                T const* values) {
  if constexpr (has_parameters<Params>) {
    return derivative_of_edit_by(params.parameter(at), params, score, at, values);
  } else {
    dual<T> const by_score = params(dual<T>{score, T(1)}, at);
    return {by_score.value, by_score.derivative, T(0), -1};
  }
}

template <>
struct attention<reference_backend> {
  /// Calls f(position, cache row, batch row or -1) for every key that position `last` of the sequence sees.
  template <class F>
  static void for_each_key(attention_plan<> const& plan, attention_sequence const& s, int last, F&& f) {
    for (int i = s.first_segment; i < s.first_segment + s.segments; ++i) {
      attention_segment const& g = plan.segments(i);
      for (int j = 0; j < g.length && g.first_position + j <= last; ++j)
        f(g.first_position + j, g.cache_row + j, g.batch_row < 0 ? -1 : g.batch_row + j);
    }
  }

  // Raw scores q.k * scale of one row and head, by position.
  template <class T, class K>
  static void raw_scores(attention_extents const& e, T const* q, view<K const, 3> keys, index_t kv_head,
                         attention_plan<> const& plan, attention_sequence const& s, int position,
                         std::vector<T>& scores) {
    for_each_key(plan, s, position, [&](int key, int row, int) {
      T dot{};
      for (index_t c = 0; c < e.head_dim; ++c) dot += q[c] * T(keys(row, kv_head, c));
      scores[std::size_t(key)] = dot * real_t<T>(e.scale());
    });
  }

  /// The smallest score of a row as the edit is told it; 0 for edits that do not ask.
  /// \param at  any key of the row
  template <class T, class Params>
  static T row_min(Params const& params, std::vector<T> const& scores, score_site at) {
    T smallest{};
    if constexpr (has_row_min<Params>)
      for (at.key = 0; at.key <= at.query; ++at.key) {
        T const score = score_for_row_min(params, scores[std::size_t(at.key)], at);
        if (at.key == 0 || real_part(score) < real_part(smallest)) smallest = score;
      }
    return smallest;
  }

  template <class T, class K, class Params>
  static void forward(reference_backend&, attention_extents const& e, view<T const, 3> qkv, view<K const, 3> keys,
                      view<K const, 3> values, attention_plan<> const& plan, Params params, T const* parameters,
                      view<T, 3> out, view<T, 2> lse) {
    using std::exp, std::log;
    std::vector<T> scores(std::size_t(plan.longest));
    for (index_t i = 0; i < plan.sequences.extent(0); ++i) {
      attention_sequence const& s = plan.sequences(i);
      for (int r = 0; r < s.rows; ++r) {
        index_t const row = s.batch_row + r;
        int const position = s.first_position + r;
        for (index_t h = 0; h < e.heads; ++h) {
          index_t const kv = h / e.group();
          raw_scores(e, &qkv(row, h, 0), keys, kv, plan, s, position, scores);
          T const smallest = row_min(params, scores, {e.layer, int(h), s.tag, position, 0});
          real_t<T> largest = -std::numeric_limits<real_t<T>>::infinity();
          for (int v = 0; v <= position; ++v) {
            T& score = scores[std::size_t(v)];
            score = edited_score(params, score, {e.layer, int(h), s.tag, position, v}, parameters, smallest);
            if (real_part(score) > largest) largest = real_part(score);
          }
          T sum{};
          for (int v = 0; v <= position; ++v) sum += scores[std::size_t(v)] = exp(scores[std::size_t(v)] - largest);
          lse(row, h) = log(sum) + largest;
          for (index_t c = 0; c < e.head_dim; ++c) out(row, h, c) = T{};
          for_each_key(plan, s, position, [&](int key, int cache_row, int) {
            T const p = scores[std::size_t(key)] / sum;
            for (index_t c = 0; c < e.head_dim; ++c) out(row, h, c) += p * T(values(cache_row, kv, c));
          });
        }
      }
    }
  }

  template <class T, class K, class Params>
  static void backward(reference_backend&, attention_extents const& e, view<T const, 3> qkv, view<K const, 3> keys,
                       view<K const, 3> values, attention_plan<> const& plan, Params params, T const* parameters,
                       view<T const, 3> out, view<T const, 2> lse, view<T const, 3> dout, view<T, 3> dqkv,
                       view<T, 2> dparameters) {
    using std::exp;
    static_assert(!has_row_min<Params>, "atmanrl: an edit that looks at the row's smallest score has no backward pass");
    for (index_t i = 0; i < dqkv.size(); ++i) dqkv.data()[i] = T{};
    std::vector<T> scores(std::size_t(plan.longest));
    auto const scale = real_t<T>(e.scale());
    for (index_t i = 0; i < plan.sequences.extent(0); ++i) {
      attention_sequence const& s = plan.sequences(i);
      for (int r = 0; r < s.rows; ++r) {
        index_t const row = s.batch_row + r;
        int const position = s.first_position + r;
        for (index_t h = 0; h < e.heads; ++h) {
          index_t const kv = h / e.group();
          raw_scores(e, &qkv(row, h, 0), keys, kv, plan, s, position, scores);
          T correction{};
          for (index_t c = 0; c < e.head_dim; ++c) correction += dout(row, h, c) * out(row, h, c);
          for_each_key(plan, s, position, [&](int key, int cache_row, int batch_row) {
            score_site const at{e.layer, int(h), s.tag, position, key};
            T const raw = scores[std::size_t(key)];
            T const p = exp(edited_score(params, raw, at, parameters, T{}) - lse(row, h));
            T dp{};
            for (index_t c = 0; c < e.head_dim; ++c) dp += dout(row, h, c) * T(values(cache_row, kv, c));
            T const ds = p * (dp - correction);
            auto const edit = edited_score_derivative(params, raw, at, parameters);
            if (edit.parameter >= 0 && !dparameters.empty()) dparameters(kv, edit.parameter) += ds * edit.value;
            T const draw = ds * edit.score * scale;
            for (index_t c = 0; c < e.head_dim; ++c) {
              dqkv(row, h, c) += draw * T(keys(cache_row, kv, c));
              if (batch_row < 0) continue;
              dqkv(batch_row, e.heads + kv, c) += draw * qkv(row, h, c);
              dqkv(batch_row, e.heads + e.kv_heads + kv, c) += p * dout(row, h, c);
            }
          });
        }
      }
    }
  }

  template <class T, class K>
  static void append(reference_backend&, attention_extents const& e, view<T const, 3> qkv,
                     view<int const, 1> cache_rows, view<K, 3> keys, view<K, 3> values) {
    for (index_t r = 0; r < qkv.extent(0); ++r) {
      for (index_t h = 0; h < e.kv_heads; ++h) {
        for (index_t c = 0; c < e.head_dim; ++c) {
          keys(cache_rows(r), h, c) = K(qkv(r, e.heads + h, c));
          values(cache_rows(r), h, c) = K(qkv(r, e.heads + e.kv_heads + h, c));
        }
      }
    }
  }
};

}  // namespace kernels

namespace detail {
inline void expects_attention_extents(attention_extents const& e, auto const& qkv, auto const& keys,
                                      auto const& values) {
  expects<shape_error>(e.kv_heads > 0 && e.heads % e.kv_heads == 0,
                       "{} query heads do not share {} key-value heads evenly", e.heads, e.kv_heads);
  expects<shape_error>(qkv.extent(1) == e.heads + 2 * e.kv_heads && qkv.extent(2) == e.head_dim,
                       "qkv {} for {} + 2 x {} heads of {}", qkv.shape(), e.heads, e.kv_heads, e.head_dim);
  expects<shape_error>(keys.extent(1) == e.kv_heads && keys.extent(2) == e.head_dim && values.shape() == keys.shape(),
                       "keys {} and values {} for {} heads of {}", keys.shape(), values.shape(), e.kv_heads,
                       e.head_dim);
}
}  // namespace detail

/// What a cache may store the keys and values of a computation in `T` as: its scalar, or bfloat16 under float.
template <class K, class T>
concept KeyValueStorage = std::same_as<std::remove_const_t<K>, T> ||
    (std::same_as<std::remove_const_t<K>, bf16>&& std::same_as<T, float>);

/// Copies the new rows' keys and values into the cache, rounding them to its storage.
/// \param qkv          (rows, heads + 2 kv_heads, head_dim), already rotated
/// \param cache_rows   (rows), where each row goes
/// \param keys, values (cache rows, kv_heads, head_dim) of this layer
template <Backend B, class T, KeyValueStorage<std::remove_const_t<T>> K>
void append_keys_and_values(B& backend, attention_extents const& e, view<T, 3, typename B::memory_space> qkv,
                            std::type_identity_t<view_on<B, int const, 1>> cache_rows,
                            view<K, 3, typename B::memory_space> keys, std::type_identity_t<view_on<B, K, 3>> values) {
  detail::expects_attention_extents(e, qkv, keys, values);
  expects<shape_error>(cache_rows.extent(0) == qkv.extent(0), "{} cache rows for qkv {}", cache_rows.extent(0),
                       qkv.shape());
  kernels::attention<B>::append(backend, e, view_on<B, T const, 3>(qkv), cache_rows, keys, values);
}

/// Attention of the rows in `qkv` over the keys that `plan` names; those keys, the rows' own included, are in the
/// cache.
/// \param qkv          (rows, heads + 2 kv_heads, head_dim); only the queries are read
/// \param keys, values (cache rows, kv_heads, head_dim) of this layer, stored as scalars or as bfloat16
/// \param params       the attention policy's params()
/// \param parameters   values of a trainable policy's parameters; null otherwise
/// \param out          (rows, heads, head_dim), overwritten
/// \param lse          (rows, heads), overwritten with the log-sum-exp of the edited scores
template <Backend B, class T, KeyValueStorage<T> K, class Params>
void attention_forward(B& backend, attention_extents const& e, std::type_identity_t<view_on<B, T const, 3>> qkv,
                       view<K, 3, typename B::memory_space> keys, std::type_identity_t<view_on<B, K, 3>> values,
                       attention_plan<typename B::memory_space> const& plan, Params params,
                       std::type_identity_t<T> const* parameters, view<T, 3, typename B::memory_space> out,
                       std::type_identity_t<view_on<B, T, 2>> lse) {
  detail::expects_attention_extents(e, qkv, keys, values);
  expects<shape_error>(out.extent(0) == qkv.extent(0) && out.extent(1) == e.heads && out.extent(2) == e.head_dim &&
                           lse.extent(0) == qkv.extent(0) && lse.extent(1) == e.heads,
                       "out {} and lse {} for qkv {}", out.shape(), lse.shape(), qkv.shape());
  kernels::attention<B>::forward(backend, e, qkv, view_on<B, K const, 3>(keys), view_on<B, K const, 3>(values), plan,
                                 params, parameters, out, lse);
}

/// The same with the output as products take it (factor_t), for backends whose factors are no scalars.
/// \param out     empty when the output is wanted as a factor alone
/// \param factor  (rows, heads, head_dim), overwritten
template <Backend B, class T, KeyValueStorage<T> K, class Params, class F>
void attention_forward(B& backend, attention_extents const& e, std::type_identity_t<view_on<B, T const, 3>> qkv,
                       view<K, 3, typename B::memory_space> keys, std::type_identity_t<view_on<B, K, 3>> values,
                       attention_plan<typename B::memory_space> const& plan, Params params,
                       std::type_identity_t<T> const* parameters, std::type_identity_t<view_on<B, T, 3>> out,
                       view<T, 2, typename B::memory_space> lse, view<F, 3, typename B::memory_space> factor) {
  detail::expects_attention_extents(e, qkv, keys, values);
  expects<shape_error>(
      factor.extent(0) == qkv.extent(0) && factor.extent(1) == e.heads && factor.extent(2) == e.head_dim &&
          (out.empty() || out.shape() == factor.shape()) && lse.extent(0) == qkv.extent(0) && lse.extent(1) == e.heads,
      "factor {}, out {} and lse {} for qkv {}", factor.shape(), out.shape(), lse.shape(), qkv.shape());
  kernels::attention<B>::forward(backend, e, qkv, view_on<B, K const, 3>(keys), view_on<B, K const, 3>(values), plan,
                                 params, parameters, out, lse, factor);
}

/// Backward of `attention_forward`. Keys and values of earlier calls get no gradient; a shared prefix sums its
/// children's.
/// \param dout         (rows, heads, head_dim)
/// \param dqkv         (rows, heads + 2 kv_heads, head_dim), overwritten
/// \param dparameters  (kv_heads, parameters), added to, one row per key-value head so that the sum has a fixed order;
///                     empty when it is not wanted
template <Backend B, class T, KeyValueStorage<T> K, class Params>
void attention_backward(B& backend, attention_extents const& e, std::type_identity_t<view_on<B, T const, 3>> qkv,
                        view<K, 3, typename B::memory_space> keys, std::type_identity_t<view_on<B, K, 3>> values,
                        attention_plan<typename B::memory_space> const& plan, Params params,
                        std::type_identity_t<T> const* parameters, std::type_identity_t<view_on<B, T const, 3>> out,
                        std::type_identity_t<view_on<B, T const, 2>> lse,
                        std::type_identity_t<view_on<B, T const, 3>> dout, view<T, 3, typename B::memory_space> dqkv,
                        std::type_identity_t<view_on<B, T, 2>> dparameters) {
  detail::expects_attention_extents(e, qkv, keys, values);
  expects<shape_error>(dqkv.shape() == qkv.shape() && dout.shape() == out.shape() && out.extent(0) == qkv.extent(0) &&
                           lse.extent(0) == qkv.extent(0) && lse.extent(1) == e.heads,
                       "dqkv {}, dout {}, out {}, lse {} for qkv {}", dqkv.shape(), dout.shape(), out.shape(),
                       lse.shape(), qkv.shape());
  expects<shape_error>(dparameters.empty() || dparameters.extent(0) == e.kv_heads,
                       "dparameters {} for {} key-value heads", dparameters.shape(), e.kv_heads);
  kernels::attention<B>::backward(backend, e, qkv, view_on<B, K const, 3>(keys), view_on<B, K const, 3>(values), plan,
                                  params, parameters, out, lse, dout, dqkv, dparameters);
}

}  // namespace atmanrl::inline ATMANRL_ABI
