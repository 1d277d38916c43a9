// Edits one after the other, against values by hand, against the same arithmetic written as one edit, and against exact
// derivatives.
#include <atmanrl/attention/compose.hpp>
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/attention/multiplicative_gate.hpp>
#include <atmanrl/attention/sliding_window.hpp>
#include <atmanrl/attention/soft_cap.hpp>
#include <atmanrl/attention/suppress.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "attention/problem.hpp"
#include "catch.hpp"
#include "strangers.hpp"

using namespace atmanrl_test;

namespace compose_test {
namespace {

double const infinity = std::numeric_limits<double>::infinity();

attention::sliding_window window_of(int keys, std::initializer_list<int> layers) {
  attention::sliding_window window;
  for (int const l : layers) window.limit(l, keys);
  return window;
}

/// A rollout of 4 CoT tokens under a prompt of 3, in a layer that has the window, and a sequence without a mask.
tree_problem masked_problem() { return tree_problem({{-1, 0, 3, -1}, {0, 0, 8, 0}, {-1, 0, 6, 2}}, 4, 2, 3, 1); }
std::vector<mask_extent> mask() { return {make_mask_extent(mask_shape::pair, mask_rows::all_later, 3, 7, 11, 0)}; }
std::vector<double> mask_values(index_t count) {
  auto h = random_values(count, 31, 0.5);
  for (double& x : h) x -= 0.4;
  return h;
}

/// Gradients by q, k, v and by the parameters against the complex step through the forward pass.
template <class Policy>
void check_gradients(tree_problem const& p, Policy const& policy, std::vector<double> const& values) {
  auto const loss = [&](std::vector<complex> const& x, std::vector<complex> const& at) {
    return weighted_sum(p.forward(x, policy.params(), at).out, p.dout);
  };
  auto const g = p.backward(p.qkv, policy.params(), values);
  auto const fixed = converted<complex>(values);
  CHECK(relative_difference(g.dqkv, complex_step_gradient(p.qkv, [&](auto const& x) { return loss(x, fixed); })) <
        1e-11);
  if (!values.empty())
    CHECK(relative_difference(g.dparameters, complex_step_gradient(values, [&](auto const& at) {
                                return loss(converted<complex>(p.qkv), at);
                              })) < 1e-11);
}

}  // namespace

TEST_CASE("soft cap: cap tanh(s / cap), and a cap of 0 leaves scores alone") {
  auto const capped = attention::soft_cap{50}.params();
  CHECK(capped(0.0, {}) == 0);
  CHECK(capped(25.0, {}) == Approx(50 * std::tanh(0.5)).epsilon(1e-15));
  CHECK(capped(-1e6, {}) == -50);
  CHECK(capped(1e6f, {}) == 50.0f);
  dual<double> const slope = capped(dual<double>{25, 1}, {});
  CHECK(slope.derivative == Approx(1 - std::tanh(0.5) * std::tanh(0.5)).epsilon(1e-15));
  CHECK(attention::soft_cap{0}.params()(1234.5, {}) == 1234.5);
}

TEST_CASE(
    "sliding window: a query sees itself and the keys before it, as many as the window has, in its layers alone") {
  auto const p = window_of(3, {1, 70}).params();
  auto const seen = [&](int layer, int key) { return p(2.5, score_site{layer, 0, 0, 10, key}); };
  CHECK(seen(1, 10) == 2.5);
  CHECK(seen(1, 8) == 2.5);  // the last one that is seen: 10 - 8 < 3
  CHECK(seen(1, 7) == -infinity);
  CHECK(seen(70, 7) == -infinity);
  CHECK(seen(0, 7) == 2.5);
  CHECK(seen(6, 7) == 2.5);  // 70 is bit 6 of the second word
  CHECK(p(dual<double>{2.5, 1}, {1, 0, 0, 10, 7}).derivative == 0);
}

TEST_CASE("sliding window: windows that differ, and layers and windows out of range are refused") {
  attention::sliding_window window;
  window.limit(3, 16);
  CHECK_THROWS_WITH(window.limit(4, 8), ATMANRL_CONTAINS("layer 4 has a window of 8 keys and another one of 16"));
  CHECK_THROWS_AS(window.limit(-1, 16), usage_error);
  CHECK_THROWS_AS(window.limit(attention::sliding_window::most_layers, 16), usage_error);
  CHECK_THROWS_AS(window.limit(0, 0), usage_error);
}

TEST_CASE("compose: the second edit sees what the first has made, in this order") {
  auto const cap = attention::soft_cap{2};
  auto const recency = strangers::capped_recency{1};
  auto const both = attention::compose<attention::soft_cap, strangers::capped_recency>{cap, recency}.params();
  score_site const at{0, 1, 0, 9, 4};
  CHECK(both(3.0, at) == Approx(std::tanh(2 * std::tanh(1.5)) - 0.1 * 5 / 2).epsilon(1e-15));
}

TEST_CASE("compose: none costs nothing, the other edit is taken as it is") {
  auto const cap = attention::soft_cap{2};
  static_assert(std::same_as<decltype(attention::composed(attention::none{}, cap)), attention::soft_cap>);
  static_assert(std::same_as<decltype(attention::composed(cap, attention::none{})), attention::soft_cap>);
  attention::none const none;
  static_assert(std::same_as<decltype(attention::composed(cap, attention::by_reference<attention::none>{none})),
                             attention::soft_cap>);
  CHECK(attention::composed(attention::none{}, cap).params()(1.0, {}) == Approx(2 * std::tanh(0.5)).epsilon(1e-15));
}

TEST_CASE("compose: what the first edit hides stays hidden, also from an edit that would give it a score again") {
  auto const hide_then_cap =
      attention::compose<attention::sliding_window, attention::soft_cap>{window_of(2, {0}), {5}}.params();
  CHECK(hide_then_cap(1.0, {0, 0, 0, 9, 3}) == -infinity);  // and not 5 tanh(-infinity) = -5
  CHECK(hide_then_cap(dual<double>{1, 1}, {0, 0, 0, 9, 3}).derivative == 0);
  CHECK(hide_then_cap(1.0, {0, 0, 0, 9, 8}) == Approx(5 * std::tanh(0.2)).epsilon(1e-15));
  // A gate of 0 times minus infinity is no number, nor is its derivative.
  reference_backend backend;
  attention::multiplicative_gate<reference_backend> gate;
  gate.assign(backend, mask_shape::pair, mask(), {});
  auto const p = masked_problem();
  auto const gated = attention::composed(window_of(3, {1}), attention::by_reference<decltype(gate)>{gate});
  std::vector<double> values(std::size_t(gate.parameter_count()), 0.5);
  values[1] = values[6] = values[8] = 0;
  check_gradients(p, gated, values);
}

TEST_CASE("compose: a capped, windowed model's attention equals the definition") {
  auto const p = masked_problem();
  attention::compose<attention::soft_cap, attention::sliding_window> const gemma{{0.7f}, window_of(3, {1})};
  auto const expected = p.naive([&](std::vector<double>& s, int, int, int query) {
    for (int key = 0; key <= query; ++key) {
      double& x = s[std::size_t(key)];
      x = query - key < 3 ? double(0.7f) * std::tanh(x / double(0.7f)) : -infinity;
    }
  });
  CHECK(relative_difference(p.forward(p.qkv, gemma.params()).out, expected) < 1e-12);
  check_gradients(p, gemma, {});
  // In a layer without the window the cap alone is left.
  auto elsewhere = p;
  elsewhere.extents.layer = 0;
  CHECK(elsewhere.forward(p.qkv, gemma.params()).out ==
        elsewhere.forward(p.qkv, attention::soft_cap{0.7f}.params()).out);
}

TEST_CASE("compose: a learned mask after a cap and a window is applied and has exact gradients, on both backends") {
  reference_backend backend;
  auto const p = masked_problem();
  attention::learned_mask<reference_backend> const own(backend, mask_shape::pair, mask(), 1.7f);
  auto const all =
      attention::composed(attention::compose<attention::soft_cap, attention::sliding_window>{{0.7f}, window_of(4, {1})},
                          attention::by_reference<attention::learned_mask<reference_backend>>{own});
  auto const values = mask_values(own.parameter_count());
  mask_extent const e = mask()[0];
  auto const expected = p.naive([&](std::vector<double>& s, int, int n, int query) {
    for (int key = 0; key <= query; ++key) {
      double& x = s[std::size_t(key)];
      if (query - key >= 4) {
        x = -infinity;
        continue;
      }
      x = double(0.7f) * std::tanh(x / double(0.7f));
      bool const masked = n == 1 && query <= e.last_row && query >= e.first_row && key >= 3 && key < 7;
      if (masked) x += double(1.7f) * std::min(values[std::size_t(e.row_offset(query) + key - 3)], 0.0);
    }
  });
  CHECK(relative_difference(p.forward(p.qkv, all.params(), values).out, expected) < 1e-12);
  check_gradients(p, all, values);

  cpu_backend cpu({.threads = 2});
  attention::learned_mask<cpu_backend> const on_cpu(cpu, mask_shape::pair, mask(), 1.7f);
  auto const all_on_cpu =
      attention::composed(attention::compose<attention::soft_cap, attention::sliding_window>{{0.7f}, window_of(4, {1})},
                          attention::by_reference<attention::learned_mask<cpu_backend>>{on_cpu});
  auto const x = converted<float>(p.qkv), v = converted<float>(values);
  auto const g = p.backward(p.qkv, all.params(), values);
  auto const got = p.backward(x, all_on_cpu.params(), v, cpu);
  CHECK(relative_difference(p.forward(x, all_on_cpu.params(), v, cpu).out, expected) < 1e-5);
  CHECK(relative_difference(got.dqkv, g.dqkv) < 1e-5);
  CHECK(relative_difference(got.dparameters, g.dparameters) < 1e-5);
}

TEST_CASE("compose: a trainable edit may come first, and scores without a parameter still meet the other edit") {
  auto const p = masked_problem();
  // Distances of 3 and more have no parameter, nor has the sequence with the tag 2.
  attention::compose<strangers::distance_factors, attention::soft_cap> const both{{1, 3}, {0.7f}};
  auto const values = random_values(3, 5);
  CHECK(both.parameter_count() == 3);
  CHECK(both.params().parameter({0, 0, 0, 9, 4}) == -1);
  auto const expected = p.naive([&](std::vector<double>& s, int, int n, int query) {
    for (int key = 0; key <= query; ++key) {
      double& x = s[std::size_t(key)];
      bool const has_one = n == 1 && query - key < 3;
      double const v = has_one ? values[std::size_t(query - key)] : 0;
      if (has_one) x = x * v + v * v;
      x = double(0.7f) * std::tanh(x / double(0.7f));
    }
  });
  CHECK(relative_difference(p.forward(p.qkv, both.params(), values).out, expected) < 1e-12);
  check_gradients(p, both, values);
}

TEST_CASE("frozen: an edit with fixed values is the trained edit at these values, and has no parameters") {
  auto const p = masked_problem();
  strangers::distance_factors const policy{1, 3};
  auto const values = random_values(3, 5);
  attention::frozen<strangers::distance_factors, double> const fixed{policy, values.data()};
  static_assert(!TrainableAttentionPolicy<attention::frozen<strangers::distance_factors, double>>);
  CHECK(p.forward(p.qkv, fixed.params()).out == p.forward(p.qkv, policy.params(), values).out);
  CHECK(p.backward(p.qkv, fixed.params()).dqkv == p.backward(p.qkv, policy.params(), values).dqkv);
  // Beside it another edit is trained.
  reference_backend backend;
  attention::learned_mask<reference_backend> const own(backend, mask_shape::pair, mask(), 1.7f);
  check_gradients(p,
                  attention::composed(fixed, attention::by_reference<attention::learned_mask<reference_backend>>{own}),
                  mask_values(own.parameter_count()));
}

TEST_CASE("compose: a suppression after a cap gets the smallest score as the cap leaves it") {
  reference_backend backend;
  tree_problem const p({{-1, 0, 7, 0}}, 4, 2, 3);
  std::vector<key_selection> const chosen{select_keys(1, 4)};
  attention::suppress<reference_backend> const suppress(backend, chosen, 0.25f);
  auto const both = attention::composed(attention::soft_cap{0.7f},
                                        attention::by_reference<attention::suppress<reference_backend>>{suppress});
  static_assert(atmanrl::detail::edits_scores_with_row_min<atmanrl::detail::params_of<decltype(both)>>);
  auto const expected = p.naive([&](std::vector<double>& s, int, int, int query) {
    for (double& x : s) x = double(0.7f) * std::tanh(x / double(0.7f));
    double const smallest = *std::min_element(s.begin(), s.end());
    for (int key = 1; key < std::min(4, query + 1); ++key)
      s[std::size_t(key)] = s[std::size_t(key)] * 0.25 + smallest * 0.75;
  });
  CHECK(relative_difference(p.forward(p.qkv, both.params()).out, expected) < 1e-12);
}

TEST_CASE("compose: a suppression in a window gets the smallest score of the keys that are seen") {
  reference_backend backend;
  tree_problem const p({{-1, 0, 9, 0}}, 4, 2, 3, 1);
  std::vector<key_selection> const chosen{select_keys(1, 9)};
  attention::suppress<reference_backend> const suppress(backend, chosen, 0.25f);
  auto const both =
      attention::composed(window_of(3, {1}), attention::by_reference<attention::suppress<reference_backend>>{suppress});
  auto const expected = p.naive([&](std::vector<double>& s, int, int, int query) {
    int const seen = std::max(0, query - 2);
    double const smallest = *std::min_element(s.begin() + seen, s.end());
    for (int key = 0; key <= query; ++key) {
      double& x = s[std::size_t(key)];
      x = key < seen ? -infinity : key >= 1 ? x * 0.25 + smallest * 0.75 : x;
    }
  });
  CHECK(relative_difference(p.forward(p.qkv, both.params()).out, expected) < 1e-12);
}

}  // namespace compose_test
