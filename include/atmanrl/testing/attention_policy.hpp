#pragma once

/// \file
/// What every attention policy promises (docs/extending.md#attention): the derivative that dual numbers give is that of
/// its value, the parameters and keys that it names are those that it uses, it hides no row altogether, and attention
/// with it is the definition's, forward and backward, whatever rows are processed together.

#include <atmanrl/attention/policy.hpp>
#include <atmanrl/testing/attention_tree.hpp>
#include <atmanrl/testing/broken_promise.hpp>
#include <atmanrl/testing/derivatives.hpp>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// Where a policy is looked at: a policy that was made for certain layers, heads or sequences must find them here.
struct attention_check {
  std::vector<node> tree = ragged_trees();  ///< its tags are what score_site::sequence becomes
  index_t heads = 4, kv_heads = 2, head_dim = 3;
  int layers = 1;
};

namespace detail {

inline std::string shown(score_site at) {
  return fmt::format("the score of layer {}, head {}, sequence {}, query {}, key {}", at.layer, at.head, at.sequence,
                     at.query, at.key);
}

/// Calls f(site) for every score of the new rows of a tree.
template <class F>
void for_each_site(tree_problem const& p, F&& f) {
  for (int n = 0; n < int(p.nodes.size()); ++n)
    for (int query = p.end_of(n) - p.nodes[std::size_t(n)].rows; query < p.end_of(n); ++query)
      for (int head = 0; head < int(p.extents.heads); ++head)
        for (int key = 0; key <= query; ++key)
          f(score_site{p.extents.layer, head, p.nodes[std::size_t(n)].tag, query, key});
}

/// What the policy says about its parameters and keys, at every score.
template <class Params>
void check_claims(Params const& params, index_t count, tree_problem const& p, std::string const& name) {
  std::map<index_t, score_site> sequence_of, key_of;
  for_each_site(p, [&](score_site at) {
    if constexpr (kernels::has_parameters<Params>) {
      index_t const i = params.parameter(at);
      expects<broken_promise>(i >= -1 && i < count, "{}: {} uses parameter {} of {}", name, shown(at), i, count);
      if (i >= 0 && atmanrl::detail::separates_sequences<Params>) {
        score_site const first = sequence_of.try_emplace(i, at).first->second;
        expects<broken_promise>(first.sequence == at.sequence,
                                "{}: says separate_sequences, but parameter {} is used by {} and by {}", name, i,
                                shown(first), shown(at));
      }
      if (i >= 0 && atmanrl::detail::separates_keys<Params>) {
        score_site const first = key_of.try_emplace(i, at).first->second;
        expects<broken_promise>(first.sequence != at.sequence || first.key == at.key,
                                "{}: says separate_keys, but parameter {} is used by {} and by {}", name, i,
                                shown(first), shown(at));
      }
      if constexpr (atmanrl::detail::numbers_keys_in_order<Params>) {
        key_range const keys = params.keys(at);
        if (at.key < keys.first || at.key >= keys.last || keys.first > at.query) return;
        score_site first = at;
        first.key = keys.first;
        index_t const start = params.parameter(first), expected = start < 0 ? -1 : start + at.key - keys.first;
        expects<broken_promise>(i == expected,
                                "{}: says consecutive_parameters, but {} uses parameter {} and not {}, counted from {} "
                                "of the first key",
                                name, shown(at), i, expected, start);
      }
    }
  });
}

/// The edit of single scores, in double, and what dual numbers make of it.
template <class Params>
void check_edit(Params const& params, std::vector<double> const& values, tree_problem const& p,
                std::string const& name) {
  for_each_site(p, [&](score_site at) {
    for (double const score : {-1.3, 0.4, 2.1}) {
      double const row_min = -1.5, edited = kernels::edited_score(params, score, at, values.data(), row_min);
      expects<broken_promise>(edited < std::numeric_limits<double>::infinity(), "{}: {} becomes {} where it was {}",
                              name, shown(at), edited, score);
      if constexpr (atmanrl::detail::names_its_keys<Params>) {
        key_range const keys = params.keys(at);
        expects<broken_promise>((at.key >= keys.first && at.key < keys.last) || edited == score,
                                "{}: says that it changes the keys {} to {} alone, but {} becomes {} where it was {}",
                                name, keys.first, keys.last - 1, shown(at), edited, score);
      }
      if constexpr (!kernels::has_row_min<Params>) {
        auto const d = kernels::edited_score_derivative(params, score, at, values.data());
        expects<broken_promise>(
            d.edited == edited || std::abs(d.edited - edited) <= 1e-12 * std::max(1.0, std::abs(edited)),
            "{}: {} becomes {} in double and {} with dual numbers", name, shown(at), edited, d.edited);
        auto const agrees = [&](double derivative, auto&& moved, std::string_view by) {
          slopes const quotient =
              edited == -std::numeric_limits<double>::infinity() ? slopes{0, 0} : slopes_of(moved, 1e-5);
          expects<broken_promise>(quotient.allow(derivative, 1e-6 * std::max(1.0, std::abs(quotient.mean()))),
                                  "{}: d edit / d {} at {} is {:.6g} by dual numbers but {:.6g} by the difference "
                                  "quotient (score {})",
                                  name, by, shown(at), derivative, quotient.mean(), score);
        };
        agrees(
            d.score, [&](double h) { return kernels::edited_score(params, score + h, at, values.data(), row_min); },
            "score");
        if (d.parameter >= 0) {
          auto const value = [&](double h) {
            auto moved = values;
            moved[std::size_t(d.parameter)] += h;
            return kernels::edited_score(params, score, at, moved.data(), row_min);
          };
          agrees(d.value, value, fmt::format("parameter {}", d.parameter));
        }
      }
    }
  });
}

/// The problem of the same sequences with other rows of them in the cache, or without their last ones: every position
/// that is left has the query, key and value that it had.
inline tree_problem with_nodes(tree_problem const& p, std::vector<node> const& nodes) {
  tree_problem q(nodes, p.extents.heads, p.extents.kv_heads, p.extents.head_dim, p.extents.layer);
  std::size_t const d = std::size_t(p.extents.head_dim), kv = std::size_t(p.extents.kv_heads) * d,
                    query = std::size_t(p.extents.heads) * d, width = query + 2 * kv;
  for (int n = 0; n < int(nodes.size()); ++n)
    for (int position = q.first_position[std::size_t(n)]; position < q.end_of(n); ++position) {
      auto const from = p.find(n, position), to = q.find(n, position);
      auto const source = std::size_t(from.row), target = std::size_t(to.row);
      auto const key_at = from.cached ? p.cached_keys.begin() + std::ptrdiff_t(source * kv)
                                      : p.qkv.begin() + std::ptrdiff_t(source * width + query);
      auto const value_at =
          from.cached ? p.cached_values.begin() + std::ptrdiff_t(source * kv) : key_at + std::ptrdiff_t(kv);
      auto const new_row = q.qkv.begin() + std::ptrdiff_t(target * width);
      if (!from.cached && !to.cached) std::copy_n(p.qkv.begin() + std::ptrdiff_t(source * width), width, new_row);
      std::copy_n(key_at, kv,
                  to.cached ? q.cached_keys.begin() + std::ptrdiff_t(target * kv) : new_row + std::ptrdiff_t(query));
      std::copy_n(
          value_at, kv,
          to.cached ? q.cached_values.begin() + std::ptrdiff_t(target * kv) : new_row + std::ptrdiff_t(query + kv));
    }
  return q;
}

/// Compares the rows that both have, bit by bit.
template <class Params>
void check_same_rows(Params const& params, std::vector<double> const& values, tree_problem const& p,
                     std::vector<node> const& nodes, std::string_view when, std::string const& name) {
  tree_problem const q = with_nodes(p, nodes);
  auto const expected = p.forward(p.qkv, params, values).out, got = q.forward(q.qkv, params, values).out;
  std::size_t const width = std::size_t(p.extents.heads * p.extents.head_dim);
  for (int n = 0; n < int(nodes.size()); ++n)
    for (int position = q.end_of(n) - nodes[std::size_t(n)].rows; position < q.end_of(n); ++position)
      for (std::size_t i = 0; i < width; ++i) {
        double const a = expected[std::size_t(p.find(n, position).row) * width + i],
                     b = got[std::size_t(q.find(n, position).row) * width + i];
        expects<broken_promise>(a == b, "{}: attention at position {} of sequence {} gives {} and {} {}", name,
                                position, nodes[std::size_t(n)].tag, a, b, when);
      }
}

/// Attention of plain loops under the edit: against the definition, its gradients, and with other rows beside each row.
template <class Params>
void check_attention(Params const& params, std::vector<double> const& values, tree_problem const& p,
                     std::string const& name) {
  auto const expected = p.naive([&](std::vector<double>& scores, int head, int n, int query) {
    double const row_min = *std::min_element(scores.begin(), scores.end());
    bool sees_a_key = false;
    for (int key = 0; key <= query; ++key) {
      double& s = scores[std::size_t(key)];
      s = kernels::edited_score(params, s, {p.extents.layer, head, p.nodes[std::size_t(n)].tag, query, key},
                                values.data(), row_min);
      sees_a_key = sees_a_key || s > -std::numeric_limits<double>::infinity();
    }
    expects<broken_promise>(sees_a_key, "{}: hides all keys of query {} from head {} of sequence {}", name, query, head,
                            p.nodes[std::size_t(n)].tag);
  });
  double const difference = relative_difference(p.forward(p.qkv, params, values).out, expected);
  expects<broken_promise>(
      difference < 1e-11,
      "{}: attention of plain loops differs from the definition, position by position, by {:.3g} of "
      "its size in layer {}",
      name, difference, p.extents.layer);

  std::vector<node> later_half = p.nodes, last_alone = p.nodes, without_last = p.nodes;
  for (std::size_t i = 0; i < p.nodes.size(); ++i) {
    int const rows = p.nodes[i].rows;
    bool const has_children =
        std::any_of(p.nodes.begin(), p.nodes.end(), [&](node const& n) { return n.parent == int(i); });
    later_half[i].cached += rows / 2;
    later_half[i].rows -= rows / 2;
    last_alone[i].cached += std::max(rows - 1, 0);
    last_alone[i].rows = std::min(rows, 1);
    if (!has_children && rows > 1) --without_last[i].rows;
  }
  check_same_rows(params, values, p, later_half, "where the rows before it come from an earlier call", name);
  check_same_rows(params, values, p, last_alone, "where it is decoded alone", name);
  check_same_rows(params, values, p, without_last, "where the rows after it are missing", name);

  if constexpr (!kernels::has_row_min<Params>) {
    auto const g = p.backward(p.qkv, params, values);
    auto const loss = [&](std::vector<double> const& x, std::vector<double> const& at) {
      return weighted_sum(p.forward(x, params, at).out, p.dout);
    };
    auto const compare = [&](std::vector<double> const& gradient, std::vector<double> x, auto&& loss_at, auto&& what) {
      double largest = 1e-3;
      for (double const v : gradient) largest = std::max(largest, std::abs(v));
      for (std::size_t i = 0; i < x.size(); ++i) {
        double const here = x[i];
        slopes const quotient = slopes_of(
            [&](double h) {
              x[i] = here + h;
              return loss_at(x);
            },
            1e-5);
        x[i] = here;
        expects<broken_promise>(quotient.allow(gradient[i], 1e-6 * largest),
                                "{}: d loss / d {} is {:.6g} by attention's backward pass but {:.6g} by the difference "
                                "quotient",
                                name, what(i), gradient[i], quotient.mean());
      }
    };
    compare(
        g.dparameters, values, [&](auto const& at) { return loss(p.qkv, at); },
        [](std::size_t i) { return fmt::format("parameter {}", i); });
    std::size_t const width = std::size_t(p.qkv_shape()[1] * p.qkv_shape()[2]);
    compare(
        g.dqkv, p.qkv, [&](auto const& x) { return loss(x, values); },
        [&](std::size_t i) {
          return fmt::format("number {} of the queries, keys and values of row {}", i % width, i / width);
        });
  }
}

}  // namespace detail

/// \param values  of the parameters, where it has some; empty: random ones
/// \throws broken_promise
template <AttentionPolicy P>
void check_attention_policy(P const& policy, std::vector<double> values = {}, attention_check const& where = {},
                            std::string const& name = name_of<P>()) {
  index_t count = 0;
  if constexpr (TrainableAttentionPolicy<P>) count = policy.parameter_count();
  if (values.empty()) values = random_values(count, 31, 0.6);
  expects<usage_error>(index_t(values.size()) == count, "{}: {} values for {} parameters", name, values.size(), count);
  for (int layer = 0; layer < where.layers; ++layer) {
    tree_problem const p(where.tree, where.heads, where.kv_heads, where.head_dim, layer);
    detail::check_claims(policy.params(), count, p, name);
    detail::check_edit(policy.params(), values, p, name);
    detail::check_attention(policy.params(), values, p, name);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
