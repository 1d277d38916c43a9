#pragma once
// The mean attention of a small problem, by the op under test and by the definition.
#include <atmanrl/ops/mean_attention.hpp>

#include "attention/problem.hpp"

namespace atmanrl_test {

/// (rows, longest), from what the forward pass of the problem leaves behind.
template <class T, class Params, class B = reference_backend>
std::vector<T> rebuilt_attention(tree_problem const& p, std::vector<T> const& qkv, Params params,
                                 std::vector<T> const& parameters = {}, B&& backend = {}) {
  auto const o = p.forward(qkv, params, parameters, backend);
  std::vector<T> out(std::size_t(p.rows * p.longest), T(7));
  mean_attention(backend, p.extents, view<T const, 3>(qkv.data(), p.qkv_shape()),
                 view<T const, 3>(o.keys.data(), p.cache_shape()), as(o.lse, {p.rows, p.extents.heads}), p.plan(),
                 params, parameters.data(), as(out, {p.rows, p.longest}));
  return out;
}

/// The softmax of the definition's scores, after edit(row of scores, head, node, query).
template <class Edit>
std::vector<double> naive_attention(tree_problem const& p, Edit const& edit) {
  std::vector<double> out(std::size_t(p.rows * p.longest));
  p.naive([&](std::vector<double>& s, int head, int n, int query) {
    edit(s, head, n, query);
    double sum = 0;
    for (double const x : s) sum += std::exp(x);
    for (std::size_t v = 0; v < s.size(); ++v)
      out[std::size_t(p.find(n, query).row * p.longest) + v] += std::exp(s[v]) / sum / double(p.extents.heads);
  });
  return out;
}

}  // namespace atmanrl_test
