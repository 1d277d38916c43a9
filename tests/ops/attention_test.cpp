#include <atmanrl/ops/attention.hpp>

#include "attention/problem.hpp"
#include "catch.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace attention_test {
namespace {

template <class T>
using real_of = decltype(real_part(T{}));

// Press, Smith & Lewis 2022: a penalty that grows with the distance, steeper for some heads.
struct distance_penalty {
  double slope;
  template <class T>
  T operator()(T score, score_site at) const {
    return score - real_of<T>(slope * (at.head + 1) * (at.query - at.key));
  }
};

// The score is bounded smoothly.
struct soft_cap {
  double cap;
  template <class T>
  T operator()(T score, score_site) const {
    using std::tanh;
    return tanh(score / real_of<T>(cap)) * real_of<T>(cap);
  }
};

// Depends on everything that a site says, so that a wrong field would show.
struct site_dependent {
  template <class T>
  T operator()(T score, score_site at) const {
    return score * real_of<T>(1 + 0.1 * at.layer + 0.2 * at.head) +
           real_of<T>(0.3 * at.sequence - 0.05 * at.query * at.key);
  }
};

// AtMan (arXiv:2301.08110): scores are shifted by the smallest of the row, then one token's are multiplied.
struct suppress_token {
  static constexpr bool needs_row_min = true;
  int token;
  double factor;
  template <class T>
  T operator()(T score, score_site at, T row_min) const {
    return (score - row_min) * real_of<T>(at.key == token ? factor : 1);
  }
};
struct suppress_policy {
  suppress_token p;
  suppress_token params() const { return p; }
};
static_assert(AttentionPolicy<suppress_policy> && !TrainableAttentionPolicy<suppress_policy>);

// A number per head, learned, that enters the score nonlinearly.
struct learned_temperature {
  template <class T>
  T operator()(T score, T value, score_site) const {
    using std::exp;
    return score * exp(value) + value * value;
  }
  index_t parameter(score_site at) const { return at.key == 0 ? -1 : at.head; }
};

constexpr attention::none::params_type unedited{};

template <class Params>
void check_against_complex_step(tree_problem const& p, Params params) {
  auto const expected = complex_step_gradient(
      p.qkv, [&](std::vector<complex> const& at) { return weighted_sum(p.forward(at, params).out, p.dout); });
  CHECK(relative_difference(p.backward(p.qkv, params).dqkv, expected) < 1e-12);
}

}  // namespace

TEST_CASE("attention: on ragged prefix trees equals the definition, for every ratio of query to key-value heads") {
  auto const [heads, kv_heads] = GENERATE(table<int, int>({{4, 4}, {4, 2}, {3, 1}, {4, 1}, {1, 1}}));
  tree_problem const p(ragged_trees(), heads, kv_heads, 3);
  CHECK(relative_difference(p.forward(p.qkv, unedited).out, p.naive([](auto&, int, int, int) {})) < 1e-13);
}

TEST_CASE(
    "attention: dq, dk and dv on ragged prefix trees agree with the complex step, a shared prefix summing its "
    "children") {
  auto const [heads, kv_heads] = GENERATE(table<int, int>({{4, 4}, {4, 2}, {3, 1}, {4, 1}, {1, 1}}));
  check_against_complex_step(tree_problem(ragged_trees(), heads, kv_heads, 3), unedited);
}

TEST_CASE("attention: a root with children computed together equals root first, children later from the cache") {
  tree_problem const together({{-1, 0, 4, 0}, {0, 0, 3, 1}, {0, 0, 2, 2}}, 2, 1, 4);
  tree_problem later({{-1, 4, 0, 0}, {0, 0, 3, 1}, {0, 0, 2, 2}}, 2, 1, 4);
  auto const whole = together.forward(together.qkv, unedited);
  std::size_t const prompt = 4 * 4 * 4;  // rows x (heads + 2 kv_heads) x head_dim
  later.qkv.assign(together.qkv.begin() + prompt, together.qkv.end());
  later.cached_keys.assign(whole.keys.begin(), whole.keys.begin() + 16);
  later.cached_values.assign(whole.values.begin(), whole.values.begin() + 16);
  CHECK(later.forward(later.qkv, unedited).out == std::vector<double>(whole.out.begin() + 4 * 2 * 4, whole.out.end()));
}

TEST_CASE("attention: the log-sum-exp is that of the edited scores, also when they are far from zero") {
  tree_problem p({{-1, 0, 3, 0}}, 1, 1, 2);
  auto const far = [](auto shift) { return [=]<class T>(T score, score_site) { return score + real_of<T>(shift); }; };
  auto const near = p.forward(p.qkv, unedited), moved = p.forward(p.qkv, far(5000.));
  CHECK(relative_difference(moved.out, near.out) < 1e-11);
  for (std::size_t i = 0; i < near.lse.size(); ++i) CHECK(moved.lse[i] - near.lse[i] == Approx(5000).epsilon(1e-13));
  CHECK(relative_difference(p.backward(p.qkv, far(-5000.)).dqkv, p.backward(p.qkv, unedited).dqkv) < 1e-9);
}

TEST_CASE("attention policy: a distance penalty written in one line is applied and differentiated") {
  tree_problem const p(ragged_trees(), 4, 2, 3);
  distance_penalty const edit{0.3};
  auto const expected = p.naive([&](std::vector<double>& s, int head, int, int query) {
    for (int v = 0; v <= query; ++v) s[std::size_t(v)] -= 0.3 * (head + 1) * (query - v);
  });
  CHECK(relative_difference(p.forward(p.qkv, edit).out, expected) < 1e-13);
  check_against_complex_step(p, edit);
}

TEST_CASE("attention policy: a soft cap written in one line is applied and differentiated through dual numbers") {
  tree_problem const p(ragged_trees(), 4, 2, 3);
  soft_cap const edit{0.8};
  auto const expected = p.naive([&](std::vector<double>& s, int, int, int) {
    for (double& v : s) v = 0.8 * std::tanh(v / 0.8);
  });
  CHECK(relative_difference(p.forward(p.qkv, edit).out, expected) < 1e-13);
  check_against_complex_step(p, edit);
}

TEST_CASE("attention policy: the site names layer, head, sequence, query and key") {
  tree_problem const p(ragged_trees(), 4, 2, 3, 5);
  auto const expected = p.naive([&](std::vector<double>& s, int head, int n, int query) {
    for (int v = 0; v <= query; ++v)
      s[std::size_t(v)] = s[std::size_t(v)] * (1.5 + 0.2 * head) + 0.3 * p.nodes[std::size_t(n)].tag - 0.05 * query * v;
  });
  CHECK(relative_difference(p.forward(p.qkv, site_dependent{}).out, expected) < 1e-12);
  check_against_complex_step(p, site_dependent{});
}

TEST_CASE("attention policy: an edit that looks at the row's smallest score gets it, before any edit") {
  tree_problem const p(ragged_trees(), 4, 2, 3);
  auto const expected = p.naive([&](std::vector<double>& s, int, int, int) {
    double const smallest = *std::min_element(s.begin(), s.end());
    for (std::size_t v = 0; v < s.size(); ++v) s[v] = (s[v] - smallest) * (v == 2 ? 0.1 : 1);
  });
  CHECK(relative_difference(p.forward(p.qkv, suppress_token{2, 0.1}).out, expected) < 1e-13);
  // A factor of 1 changes nothing but the common shift.
  CHECK(relative_difference(p.forward(p.qkv, suppress_token{2, 1}).out, p.forward(p.qkv, unedited).out) < 1e-13);
}

TEST_CASE("attention policy: a trainable edit that is not linear gets its derivatives by score and by value") {
  tree_problem const p(ragged_trees(), 4, 2, 3);
  learned_temperature const edit;
  auto const values = random_values(4, 9, 0.5);
  auto const g = p.backward(p.qkv, edit, values);
  auto const loss = [&](std::vector<complex> const& x, std::vector<complex> const& h) {
    return weighted_sum(p.forward(x, edit, h).out, p.dout);
  };
  CHECK(relative_difference(g.dqkv, complex_step_gradient(p.qkv, [&](auto const& at) {
                              return loss(at, converted<complex>(values));
                            })) < 1e-12);
  CHECK(relative_difference(g.dparameters, complex_step_gradient(values, [&](auto const& at) {
                              return loss(converted<complex>(p.qkv), at);
                            })) < 1e-12);
}

TEST_CASE("attention: gradients of parameters are added to, and may be left out") {
  tree_problem const p({{-1, 0, 3, 0}}, 2, 2, 2);
  learned_temperature const edit;
  auto const values = random_values(2, 9, 0.5);
  auto const o = p.forward(p.qkv, edit, values);
  auto const once = p.backward(p.qkv, edit, values);
  reference_backend backend;
  std::vector<double> dqkv(p.qkv.size()), by_head(4, 100);
  auto const call = [&](view<double, 2> dparameters) {
    attention_backward(
        backend, p.extents, view<double const, 3>(p.qkv.data(), p.qkv_shape()),
        view<double const, 3>(o.keys.data(), p.cache_shape()), view<double const, 3>(o.values.data(), p.cache_shape()),
        p.plan(), edit, values.data(), view<double const, 3>(o.out.data(), p.out_shape()), as(o.lse, {3, 2}),
        view<double const, 3>(p.dout.data(), p.out_shape()), view<double, 3>(dqkv.data(), p.qkv_shape()), dparameters);
  };
  call(as(by_head, {2, 2}));
  // Head h reads key-value head h and parameter h: the diagonal moves, the rest stays as it was.
  CHECK(by_head[0] == Approx(100 + once.dparameters[0]));
  CHECK(by_head[1] == 100);
  CHECK(by_head[2] == 100);
  CHECK(by_head[3] == Approx(100 + once.dparameters[1]));
  dqkv.assign(dqkv.size(), 1);
  call({});
  CHECK(dqkv == once.dqkv);
}

TEST_CASE(
    "attention: a cache in bfloat16 is one of rounded keys and values, and gradients pass straight through the "
    "rounding") {
  tree_problem p(ragged_trees(), 4, 2, 3);
  auto const qkv = converted<float>(p.qkv);
  auto const values = converted<float>(random_values(4, 9, 0.5));
  auto const got = p.forward_in<bf16>(qkv, learned_temperature{}, values);
  auto const gradients = p.backward_in<bf16>(qkv, learned_temperature{}, values);
  CHECK(got.out != p.forward(qkv, learned_temperature{}, values).out);
  auto const rounded = p.round_keys_and_values(qkv);
  auto const expected = p.forward(rounded, learned_temperature{}, values);
  CHECK(converted<float>(got.keys) == expected.keys);
  CHECK(got.out == expected.out);
  CHECK(got.lse == expected.lse);
  auto const expected_gradients = p.backward(rounded, learned_temperature{}, values);
  CHECK(gradients.dqkv == expected_gradients.dqkv);
  CHECK(gradients.dparameters == expected_gradients.dparameters);
}

TEST_CASE("attention: extents that disagree are named") {
  reference_backend backend;
  std::vector<float> x(200), y(200);
  std::vector<int> const rows{0, 1};
  attention_plan<> const plan;
  auto const forward = [&](attention_extents e, index_t out_heads, index_t cache_heads) {
    attention_forward(backend, e, as(x, {2, 8, 3}), as(x, {5, cache_heads, 3}), as(x, {5, cache_heads, 3}), plan,
                      unedited, nullptr, as(y, {2, out_heads, 3}), as(y, {2, 4}));
  };
  CHECK_NOTHROW(forward({0, 4, 2, 3}, 4, 2));
  CHECK_THROWS_WITH(forward({0, 4, 3, 3}, 4, 2),
                    ATMANRL_CONTAINS("4 query heads do not share 3 key-value heads evenly"));
  CHECK_THROWS_WITH(forward({0, 4, 0, 3}, 4, 2),
                    ATMANRL_CONTAINS("4 query heads do not share 0 key-value heads evenly"));
  CHECK_THROWS_WITH(forward({0, 4, 1, 3}, 4, 2), ATMANRL_CONTAINS("qkv [2, 8, 3] for 4 + 2 x 1 heads of 3"));
  CHECK_THROWS_WITH(forward({0, 4, 2, 3}, 4, 1),
                    ATMANRL_CONTAINS("keys [5, 1, 3] and values [5, 1, 3] for 2 heads of 3"));
  CHECK_THROWS_WITH(forward({0, 4, 2, 3}, 3, 2), ATMANRL_CONTAINS("out [2, 3, 3] and lse [2, 4] for qkv [2, 8, 3]"));
  CHECK_THROWS_WITH(append_keys_and_values(backend, {0, 4, 2, 3}, as(x, {3, 8, 3}), std::span(rows), as(y, {5, 2, 3}),
                                           as(y, {5, 2, 3})),
                    ATMANRL_CONTAINS("2 cache rows for qkv [3, 8, 3]"));
  auto const backward = [&](index_t dqkv_rows, index_t dparameter_rows) {
    attention_backward(backend, {0, 4, 2, 3}, as(x, {2, 8, 3}), as(x, {5, 2, 3}), as(x, {5, 2, 3}), plan, unedited,
                       nullptr, as(x, {2, 4, 3}), as(x, {2, 4}), as(x, {2, 4, 3}), as(y, {dqkv_rows, 8, 3}),
                       as(y, {dparameter_rows, 1}));
  };
  CHECK_NOTHROW(backward(2, 2));
  CHECK_THROWS_WITH(backward(1, 2), ATMANRL_CONTAINS("dqkv [1, 8, 3]"));
  CHECK_THROWS_WITH(backward(2, 3), ATMANRL_CONTAINS("dparameters [3, 1] for 2 key-value heads"));
}

}  // namespace attention_test
