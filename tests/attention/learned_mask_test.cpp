#include <atmanrl/attention/learned_mask.hpp>

#include "attention/problem.hpp"
#include "catch.hpp"

#include <set>

using namespace atmanrl;
using namespace atmanrl_test;

namespace learned_mask_test {
namespace {

// Two rollouts under one prompt of 3 tokens: 4 CoT, 2 delimiter, 2 answer tokens, and 3 CoT, 1 delimiter, 3 answer
// tokens; and a sequence of another tree that has no mask.
struct two_rollouts : tree_problem {
  static std::vector<node> tree() { return {{-1, 0, 3, -1}, {0, 0, 8, 0}, {0, 0, 7, 1}, {-1, 0, 4, 2}}; }
  static std::vector<mask_extent> masks_of(mask_shape s, mask_rows rows) {
    mask_extent const first = make_mask_extent(s, rows, 3, 7, 11, 0);
    return {first, make_mask_extent(s, rows, 3, 6, 10, first.count)};
  }
  std::vector<mask_extent> masks;
  reference_backend backend;
  attention::learned_mask<reference_backend> policy;

  two_rollouts(mask_shape s, mask_rows rows, index_t heads = 4, index_t kv_heads = 2)
      : tree_problem(tree(), heads, kv_heads, 3), masks(masks_of(s, rows)), policy(backend, s, masks, 1.7f) {}

  // Mostly below the clamp; some above it, and one at it.
  std::vector<double> parameters() const {
    auto h = random_values(policy.parameter_count(), 31, 0.5);
    for (double& x : h) x -= 0.4;
    h[1] = 0.3;
    h[2] = 0;
    return h;
  }

  // allowed(w, v) of equation 1, written out.
  bool allowed(mask_rows rows, int tag, int w, int v) const {
    if (tag < 0 || tag > 1) return false;
    int const cot_end = tag == 0 ? 7 : 6, total = tag == 0 ? 11 : 10;
    bool const in_cot = v >= 3 && v < cot_end, in_rows = rows == mask_rows::all_later || w >= cot_end;
    return in_cot && w >= v && in_rows && w <= total - 2;
  }
};

auto shapes_and_rows() {
  return GENERATE(table<mask_shape, mask_rows>({{mask_shape::pair, mask_rows::all_later},
                                                {mask_shape::pair, mask_rows::answer_rows},
                                                {mask_shape::column, mask_rows::all_later},
                                                {mask_shape::column, mask_rows::answer_rows}}));
}

}  // namespace

TEST_CASE("mask_extent: entries equal a brute-force count of allowed(w, v) and the printed formulas") {
  for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
    for (int prompt : {0, 1, 5})
      for (int cot : {0, 1, 2, 9})
        for (int delimiter : {1, 3})
          for (int answer : {1, 2, 4}) {
            int const cot_end = prompt + cot, total = cot_end + delimiter + answer;
            auto const pair = make_mask_extent(mask_shape::pair, rows, prompt, cot_end, total, 5);
            auto const column = make_mask_extent(mask_shape::column, rows, prompt, cot_end, total, 5);
            index_t counted = 0;
            for (int w = 0; w < total; ++w)
              for (int v = 0; v <= w; ++v)
                counted +=
                    v >= prompt && v < cot_end && (rows == mask_rows::all_later || w >= cot_end) && w <= total - 2;
            CAPTURE(prompt, cot, delimiter, answer);
            CHECK(pair.entries() == counted);
            CHECK(pair.count == counted);
            CHECK(column.entries() == counted);
            CHECK(column.count == cot);
            index_t const behind = cot * (delimiter + answer - 1);
            CHECK(counted == behind + (rows == mask_rows::all_later ? cot * (cot + 1) / 2 : 0));
          }
  }
}

TEST_CASE("mask_extent: row_offset numbers the allowed entries row by row") {
  for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
    auto const e = make_mask_extent(mask_shape::pair, rows, 2, 6, 10, 0);
    index_t running = 0;
    for (int w = e.first_row; w <= e.last_row; ++w) {
      CHECK(e.row_offset(w) == running);
      running += std::min(w + 1, 6) - 2;
    }
    CHECK(e.entries() == running);
  }
}

TEST_CASE("make_mask_extent: a CoT without tokens after it is an error that says so") {
  CHECK_THROWS_WITH(make_mask_extent(mask_shape::pair, mask_rows::all_later, 3, 7, 7, 0),
                    ATMANRL_CONTAINS("[3, 7) needs delimiter and answer after them, but the sequence has 7 tokens"));
  CHECK_THROWS_AS(make_mask_extent(mask_shape::pair, mask_rows::all_later, 8, 7, 12, 0), shape_error);
  CHECK_THROWS_AS(make_mask_extent(mask_shape::pair, mask_rows::all_later, -1, 7, 12, 0), shape_error);
}

TEST_CASE("learned_mask: extents that do not tile the parameters are an error") {
  reference_backend backend;
  std::vector<mask_extent> extents{make_mask_extent(mask_shape::pair, mask_rows::all_later, 0, 3, 6, 1)};
  CHECK_THROWS_WITH(attention::learned_mask<reference_backend>(backend, mask_shape::pair, extents),
                    ATMANRL_CONTAINS("parameters [1, 13) of 12"));
  extents[0].offset = 0;
  CHECK_NOTHROW(attention::learned_mask<reference_backend>(backend, mask_shape::pair, extents));
  CHECK_THROWS_WITH(attention::learned_mask<reference_backend>(backend, mask_shape::column, extents),
                    ATMANRL_CONTAINS("needs 3 of them"));
}

TEST_CASE("learned_mask: parameter() names each allowed entry once and nothing else, and keys() covers exactly those") {
  auto const [shape, rows] = shapes_and_rows();
  two_rollouts const p(shape, rows);
  auto const params = p.policy.params();
  std::set<index_t> named;
  index_t sites = 0;
  for (int tag = -1; tag <= 3; ++tag)
    for (int w = 0; w < 11; ++w)
      for (int v = 0; v <= w; ++v) {
        score_site const at{0, 0, tag, w, v};
        index_t const i = params.parameter(at);
        CAPTURE(tag, w, v);
        CHECK((i >= 0) == p.allowed(rows, tag, w, v));
        key_range const keys = params.keys(at);
        CHECK((v >= keys.first && v < keys.last) == p.allowed(rows, tag, w, v));
        if (i < 0) continue;
        CHECK(i >= p.masks[std::size_t(tag)].offset);
        CHECK(i < p.masks[std::size_t(tag)].offset + p.masks[std::size_t(tag)].count);
        if (shape == mask_shape::column) CHECK(i == p.masks[std::size_t(tag)].offset + v - 3);
        named.insert(i);
        ++sites;
      }
  CHECK(index_t(named.size()) == p.policy.parameter_count());
  if (shape == mask_shape::pair) CHECK(sites == p.policy.parameter_count());
}

TEST_CASE("learned_mask: scores are q.k / sqrt(d) + scale * min(H, 0) on the allowed entries, by the definition") {
  auto const chosen = shapes_and_rows();
  mask_shape const shape = std::get<0>(chosen);
  mask_rows const rows = std::get<1>(chosen);
  two_rollouts const p(shape, rows);
  auto const h = p.parameters();
  auto const expected = p.naive([&](std::vector<double>& s, int, int n, int w) {
    int const tag = p.nodes[std::size_t(n)].tag;
    for (int v = 0; v <= w; ++v) {
      if (!p.allowed(rows, tag, w, v)) continue;
      mask_extent const& e = p.masks[std::size_t(tag)];
      // entries counted up to (w, v), from the definition
      index_t i = e.offset;
      for (int row = 0; row <= w; ++row)
        for (int key = 0; key <= row; ++key)
          i += shape == mask_shape::pair && p.allowed(rows, tag, row, key) && (row < w || key < v);
      if (shape == mask_shape::column) i += v - 3;
      s[std::size_t(v)] += double(1.7f) * std::min(h[std::size_t(i)], 0.);
    }
  });
  CHECK(relative_difference(p.forward(p.qkv, p.policy.params(), h).out, expected) < 1e-13);
}

TEST_CASE("learned_mask: gradients of parameters and of q, k, v agree with the complex step") {
  auto const [shape, rows] = shapes_and_rows();
  auto const [heads, kv_heads] = GENERATE(table<int, int>({{4, 2}, {3, 1}, {2, 2}}));
  two_rollouts const p(shape, rows, heads, kv_heads);
  auto const h = p.parameters();
  auto const loss = [&](std::vector<complex> const& x, std::vector<complex> const& at) {
    return weighted_sum(p.forward(x, p.policy.params(), at).out, p.dout);
  };
  auto const g = p.backward(p.qkv, p.policy.params(), h);
  CHECK(relative_difference(g.dparameters, complex_step_gradient(h, [&](auto const& at) {
                              return loss(converted<complex>(p.qkv), at);
                            })) < 1e-12);
  CHECK(relative_difference(g.dqkv, complex_step_gradient(p.qkv, [&](auto const& at) {
                              return loss(at, converted<complex>(h));
                            })) < 1e-12);
  CHECK(g.dparameters[1] == 0);  // above the clamp
  CHECK(g.dparameters[2] != 0);  // at the clamp the derivative passes
}

TEST_CASE("learned_mask: rows after the last scored one and entries that are not allowed get exactly zero") {
  two_rollouts p(mask_shape::pair, mask_rows::all_later);
  auto const h = p.parameters();
  // Only the last row of either rollout, and the sequence without a mask, reach the loss.
  std::size_t const row = 4 * 3;  // heads x head_dim
  for (std::size_t r = 0; r < 18; ++r)
    if (r != 10 && r != 17) std::fill_n(p.dout.begin() + std::ptrdiff_t(r * row), row, 0.);
  for (double const g : p.backward(p.qkv, p.policy.params(), h).dparameters) CHECK(g == 0);
  // And that row's output is not edited.
  auto const masked = p.forward(p.qkv, p.policy.params(), h).out,
             plain = p.forward(p.qkv, attention::none{}.params()).out;
  for (std::size_t r : {0, 1, 2, 10, 17, 18, 21})
    for (std::size_t c = 0; c < row; ++c) CHECK(masked[r * row + c] == plain[r * row + c]);
  CHECK(masked[9 * row] != plain[9 * row]);
}

TEST_CASE("learned_mask: the column gradient is the pair gradient summed over the rows, at equal H") {
  mask_rows const rows = GENERATE(mask_rows::all_later, mask_rows::answer_rows);
  two_rollouts const pair(mask_shape::pair, rows), column(mask_shape::column, rows);
  std::vector<double> const column_h = column.parameters();
  std::vector<double> pair_h(std::size_t(pair.policy.parameter_count()), NAN), summed(column_h.size());
  auto const for_each_entry = [&](auto f) {
    for (int tag = 0; tag < 2; ++tag)
      for (int w = 0; w < 11; ++w)
        for (int v = 0; v <= w; ++v) {
          score_site const at{0, 0, tag, w, v};
          index_t const i = pair.policy.params().parameter(at), j = column.policy.params().parameter(at);
          if (i >= 0) f(std::size_t(i), std::size_t(j));
        }
  };
  for_each_entry([&](std::size_t i, std::size_t j) { pair_h[i] = column_h[j]; });
  CHECK(pair.forward(pair.qkv, pair.policy.params(), pair_h).out ==
        column.forward(column.qkv, column.policy.params(), column_h).out);
  auto const by_pair = pair.backward(pair.qkv, pair.policy.params(), pair_h).dparameters;
  for_each_entry([&](std::size_t i, std::size_t j) { summed[j] += by_pair[i]; });
  CHECK(relative_difference(summed, column.backward(column.qkv, column.policy.params(), column_h).dparameters) < 1e-13);
}

TEST_CASE("learned_mask: B = 0 gives the unmasked output bit for bit, and a mask above the clamp is no mask") {
  auto const [shape, rows] = shapes_and_rows();
  two_rollouts const p(shape, rows);
  auto const x = converted<float>(p.qkv);
  auto const plain = p.forward(x, attention::none{}.params());
  for (float const value : {0.f, 0.7f}) {
    std::vector<float> const h(std::size_t(p.policy.parameter_count()), value);
    auto const masked = p.forward(x, p.policy.params(), h);
    CHECK(masked.out == plain.out);
    CHECK(masked.lse == plain.lse);
  }
}

TEST_CASE("learned_mask: minus infinity on a token equals removing it from the keys of those rows, in both passes") {
  two_rollouts const p(mask_shape::column, mask_rows::answer_rows);
  std::vector<double> h(std::size_t(p.policy.parameter_count()), 0);
  h[1] = h[5] = -INFINITY;  // the token at position 4 of the first rollout, and of the second
  auto const expected = p.naive([&](std::vector<double>& s, int, int n, int w) {
    int const tag = p.nodes[std::size_t(n)].tag;
    if (w > 4 && p.allowed(mask_rows::answer_rows, tag, w, 4)) s[4] = -INFINITY;
  });
  auto const o = p.forward(p.qkv, p.policy.params(), h);
  CHECK(relative_difference(o.out, expected) < 1e-13);

  // Nothing but finite gradients; none to the removed token's value from the rows that do not see it.
  auto const g = p.backward(p.qkv, p.policy.params(), h);
  for (double const v : g.dqkv) CHECK(std::isfinite(v));
  CHECK(g.dparameters[1] == 0);
  CHECK(g.dparameters[5] == 0);
  h[1] = h[5] = -1e9;  // as good as removed, and differentiable by the complex step
  CHECK(relative_difference(p.backward(p.qkv, p.policy.params(), h).dqkv, g.dqkv) == 0);
}

TEST_CASE("learned_mask: in float, the gradient of the parameters is that in double to rounding") {
  two_rollouts const p(mask_shape::pair, mask_rows::all_later);
  auto const h = p.parameters();
  CHECK(relative_difference(p.backward(converted<float>(p.qkv), p.policy.params(), converted<float>(h)).dparameters,
                            p.backward(p.qkv, p.policy.params(), h).dparameters) < 1e-5);
}

TEST_CASE("learned_mask: a parameter that is not a number reaches the output") {
  two_rollouts const p(mask_shape::column, mask_rows::answer_rows);
  std::vector<double> h(std::size_t(p.policy.parameter_count()), -0.4);
  h[0] = NAN;
  auto const out = p.forward(p.qkv, p.policy.params(), h).out;
  CHECK(std::isnan(out[7 * 4 * 3]));   // the first delimiter row
  CHECK(!std::isnan(out[6 * 4 * 3]));  // the last CoT row
}

}  // namespace learned_mask_test
