#include "attention/mean_attention.hpp"
#include "catch.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace mean_attention_test {
namespace {

constexpr attention::none::params_type unedited{};

struct far_keys_cost {
  template <class T>
  T operator()(T score, score_site at) const {
    return score - T(0.3 * (at.head + 1) * (at.query - at.key));
  }
};

struct shifted {
  static constexpr bool needs_row_min = true;
  template <class T>
  T operator()(T score, score_site at, T row_min) const {
    return at.key == 1 ? row_min : score;
  }
};

struct learned_temperature {
  index_t parameter(score_site at) const { return at.key == 0 ? -1 : at.head; }
  template <class T>
  T operator()(T score, T value, score_site) const {
    return score * value;
  }
};

}  // namespace

TEST_CASE("mean_attention: on ragged prefix trees equals the mean softmax row of the definition") {
  auto const [heads, kv_heads] = GENERATE(table<int, int>({{4, 4}, {4, 2}, {3, 1}, {1, 1}}));
  tree_problem const p(ragged_trees(), heads, kv_heads, 3);
  auto const got = rebuilt_attention(p, p.qkv, unedited);
  CHECK(relative_difference(got, naive_attention(p, [](auto&&...) {})) < 1e-13);
  for (attention_sequence const& s : p.sequences)
    for (int r = 0; r < s.rows; ++r) {
      double sum = 0;
      for (int v = 0; v < p.longest; ++v) {
        double const x = got[std::size_t((s.batch_row + r) * p.longest + v)];
        CHECK((v <= s.first_position + r ? x > 0 : x == 0));
        sum += x;
      }
      CHECK(sum == Approx(1).epsilon(1e-13));
    }
}

TEST_CASE("mean_attention: edits of the scores are those of the forward pass") {
  tree_problem const p(ragged_trees(), 4, 2, 3);
  CHECK(relative_difference(rebuilt_attention(p, p.qkv, far_keys_cost{}),
                            naive_attention(p, [](auto& s, int head, int, int query) {
                              for (int v = 0; v <= query; ++v) s[std::size_t(v)] -= 0.3 * (head + 1) * (query - v);
                            })) < 1e-13);
  CHECK(relative_difference(rebuilt_attention(p, p.qkv, shifted{}), naive_attention(p, [](auto& s, int, int, int) {
                              if (s.size() > 1) s[1] = *std::min_element(s.begin(), s.end());
                            })) < 1e-13);
  std::vector<double> const factors{0.5, 2, -1, 3};
  CHECK(relative_difference(rebuilt_attention(p, p.qkv, learned_temperature{}, factors),
                            naive_attention(p, [&](auto& s, int head, int, int) {
                              for (std::size_t v = 1; v < s.size(); ++v) s[v] *= factors[std::size_t(head)];
                            })) < 1e-13);
}

TEST_CASE("mean_attention: shapes that do not fit are refused") {
  tree_problem const p({{-1, 0, 2, 0}}, 4, 2, 3);
  reference_backend backend;
  std::vector<double> keys(12), lse(8), out(6);
  auto const call = [&](index_t heads, index_t longest) {
    mean_attention(backend, p.extents, view<double const, 3>(p.qkv.data(), p.qkv_shape()),
                   view<double, 3>(keys.data(), p.cache_shape()), as(lse, {2, heads}), p.plan(), unedited, nullptr,
                   as(out, {2, longest}));
  };
  CHECK_NOTHROW(call(4, 2));
  CHECK_THROWS_WITH(call(3, 2), ATMANRL_CONTAINS("lse [2, 3]"));
  CHECK_THROWS_WITH(call(4, 3), ATMANRL_CONTAINS("out [2, 3]") && ATMANRL_CONTAINS("2 keys"));
}

}  // namespace mean_attention_test
