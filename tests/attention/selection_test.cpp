// Edits of chosen keys: knockout, AtMan's suppression, and its additive form.
#include <atmanrl/attention/knockout.hpp>
#include <atmanrl/attention/suppress.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "attention/problem.hpp"
#include "catch.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace selection_test {

static_assert(AttentionPolicy<attention::knockout<reference_backend>> &&
              AttentionPolicy<attention::suppress<cpu_backend>> &&
              AttentionPolicy<attention::suppress_log<cpu_backend>>);

namespace {

/// Prompts with children, cached rows, a second tree without an edit, and rows enough for several vectors and blocks.
std::vector<node> long_trees() { return {{-1, 20, 17, -1}, {0, 0, 60, 0}, {0, 2, 45, 1}, {0, 0, 3, 2}, {-1, 0, 9, 9}}; }

/// One selection per tag: scattered keys for all rows; one key for the last rows; none. Row 40 may choose itself.
std::vector<key_selection> selections() {
  key_selection scattered{.key_begin = 3, .key_end = 90, .chosen = std::vector<std::uint8_t>(87)};
  for (std::size_t i = 0; i < scattered.chosen.size(); ++i) scattered.chosen[i] = i % 3 != 1;
  return {
      scattered, select_keys(41, 42, 60, 70), {.key_begin = 1, .key_end = 30, .chosen = std::vector<std::uint8_t>(29)}};
}

bool is_chosen(int tag, int w, int v) {
  if (tag == 0) return v >= 3 && v < 90 && (v - 3) % 3 != 1;
  return tag == 1 && v == 41 && w >= 60 && w <= 70;
}

struct selection_test {
  std::vector<key_selection> chosen = selections();
  tree_problem p{long_trees(), 6, 2, 24};
  reference_backend plain;
  cpu_backend fast{{.threads = 2}};
  attention::none::params_type unedited{};

  /// Plain loops against the definition, and the CPU's kernels against the plain loops, in both passes.
  template <class MakePolicy>
  void check(MakePolicy&& make, std::function<double(double score, double smallest)> const& edit) {
    auto const expected = p.naive([&](std::vector<double>& s, int, int n, int w) {
      double const smallest = *std::min_element(s.begin(), s.end());
      for (int v = 0; v <= w; ++v)
        if (is_chosen(p.nodes[std::size_t(n)].tag, w, v)) s[std::size_t(v)] = edit(s[std::size_t(v)], smallest);
    });
    auto const policy = make(plain);
    auto const params = policy.params();
    auto const exact = p.forward(p.qkv, params);
    CHECK(relative_difference(exact.out, expected) < 1e-7);  // a factor is a float
    auto const on_cpu = make(fast);
    auto const x = converted<float>(p.qkv);
    auto const o = p.forward(x, on_cpu.params(), {}, fast);
    CHECK(relative_difference(o.out, exact.out) < 1e-5);
    CHECK(relative_difference(o.lse, exact.lse) < 1e-5);
    if constexpr (!kernels::has_row_min<decltype(params)>)
      CHECK(relative_difference(p.backward(x, on_cpu.params(), {}, fast).dqkv, p.backward(p.qkv, params).dqkv) < 1e-5);
  }
};

}  // namespace

TEST_CASE_METHOD(selection_test, "knockout: a chosen key is no key of its rows, by the definition, on both backends") {
  check([&](auto& b) { return attention::knockout(b, std::span<key_selection const>(chosen)); },
        [](double, double) { return -INFINITY; });
}

TEST_CASE_METHOD(selection_test,
                 "suppress: the chosen scores are multiplied above the row's smallest, on both backends") {
  for (float const f : {0.1f, 0.f, 2.5f})
    check([&](auto& b) { return attention::suppress(b, std::span<key_selection const>(chosen), f); },
          [&](double s, double least) { return (s - least) * double(f) + least; });
}

TEST_CASE_METHOD(selection_test, "suppress_log: log f is added to the chosen scores, on both backends") {
  check([&](auto& b) { return attention::suppress_log(b, std::span<key_selection const>(chosen), 0.3f); },
        [](double s, double) { return s + std::log(double(0.3f)); });
}

TEST_CASE_METHOD(selection_test, "suppress: a factor of 1 changes no bit") {
  std::span<key_selection const> const s(chosen);
  auto const x = converted<float>(p.qkv);
  auto const expected = p.forward(x, unedited, {}, fast);
  for (auto const& out : {p.forward(x, attention::suppress(fast, s, 1).params(), {}, fast),
                          p.forward(x, attention::suppress_log(fast, s, 1).params(), {}, fast)}) {
    CHECK(out.out == expected.out);
    CHECK(out.lse == expected.lse);
  }
}

TEST_CASE_METHOD(selection_test,
                 "suppress: what AtMan prints, with the shift of the whole row, gives the same output") {
  auto const expected = p.naive([&](std::vector<double>& s, int, int n, int w) {
    double const smallest = *std::min_element(s.begin(), s.end());
    for (int v = 0; v <= w; ++v)
      s[std::size_t(v)] =
          (s[std::size_t(v)] - smallest) * (is_chosen(p.nodes[std::size_t(n)].tag, w, v) ? double(0.1f) : 1.0);
  });
  CHECK(relative_difference(
            p.forward(p.qkv, attention::suppress(plain, std::span<key_selection const>(chosen)).params()).out,
            expected) < 1e-7);
}

TEST_CASE_METHOD(selection_test,
                 "knockout: gradients are finite, agree with the complex step, and give the removed key nothing") {
  tree_problem const small(ragged_trees(), 4, 2, 3);
  std::vector<key_selection> const s{select_keys(2, 4), select_keys(1, 6, 7, 8), select_keys(1, 2)};
  attention::knockout const policy(plain, std::span<key_selection const>(s));
  auto const params = policy.params();
  auto const g = small.backward(small.qkv, params).dqkv;
  for (double const x : g) CHECK(std::isfinite(x));
  // -inf leaves the complex plane; -1e9 is as good and stays in it.
  auto const far = [&]<class T>(T score, score_site at) { return params.chosen(at) ? T(-1e9) : score; };
  auto const expected = complex_step_gradient(
      small.qkv, [&](std::vector<complex> const& at) { return weighted_sum(small.forward(at, far).out, small.dout); });
  CHECK(relative_difference(g, expected) < 1e-12);
  // A key that every row leaves out gets no gradient, and neither does its value: the third position of the first
  // tree's root, seen by its own rows only through tag 0.
  tree_problem const alone({{-1, 0, 6, 0}}, 2, 1, 3);
  std::vector<key_selection> const third{select_keys(2, 3)};
  auto const h =
      alone.backward(alone.qkv, attention::knockout(plain, std::span<key_selection const>(third)).params()).dqkv;
  std::size_t const width = 4 * 3;
  for (std::size_t c = 2 * 3; c < width; ++c) CHECK(h[2 * width + c] == 0.0);
  CHECK(h[1 * width + 2 * 3] != 0.0);
}

TEST_CASE("knockout: a row that would lose all its keys is an error, one that keeps the first is not") {
  reference_backend b;
  auto const make = [&](std::vector<key_selection> const& s) {
    attention::knockout(b, std::span<key_selection const>(s));
  };
  CHECK_THROWS_WITH(make({select_keys(1, 3), select_keys(0, 3)}),
                    ATMANRL_CONTAINS("selection 1 knocks out all keys [0, 0] of row 0"));
  CHECK_THROWS_WITH(make({select_keys(0, 3, 2)}), ATMANRL_CONTAINS("[0, 2] of row 2"));
  CHECK_NOTHROW(make({select_keys(0, 3, 3)}));  // row 3 still has its own key
  CHECK_NOTHROW(make({select_keys(1, 9)}));
  CHECK_NOTHROW(make({{.key_begin = 0, .key_end = 2, .chosen = {0, 1}}}));
  CHECK_NOTHROW(make({}));
}

TEST_CASE("key_selections: flags that do not fit and factors that mean nothing are named") {
  reference_backend b;
  std::vector<key_selection> s{{.key_begin = 2, .key_end = 5, .chosen = {1, 1}}};
  std::span<key_selection const> const view(s);
  CHECK_THROWS_WITH(attention::key_selections(b, view),
                    ATMANRL_CONTAINS("selection 0 has 2 flags for the keys [2, 5)"));
  s[0].chosen.push_back(0);
  CHECK_THROWS_WITH(attention::suppress(b, view, -1), ATMANRL_CONTAINS("factor of a suppression is -1"));
  CHECK_THROWS_WITH(attention::suppress_log(b, view, 0), ATMANRL_CONTAINS("needs one above 0"));
  attention::key_selections const selections(b, view);
  auto const params = selections.params();
  CHECK(params.keys({0, 0, 0, 3, 0}).last == 4);
  CHECK(params.keys({0, 0, 1, 3, 0}).last == 0);
  CHECK((params.chosen({0, 0, 0, 9, 2}) && !params.chosen({0, 0, 0, 9, 4}) && !params.chosen({0, 0, -1, 9, 2})));
}

}  // namespace selection_test
