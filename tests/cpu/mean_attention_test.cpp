#include <atmanrl/cpu/cpu_backend.hpp>

#include "attention/mean_attention.hpp"
#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace mean_attention_test {
namespace {

constexpr attention::none::params_type unedited{};

struct shifted {
  static constexpr bool needs_row_min = true;
  template <class T>
  T operator()(T score, score_site at, T row_min) const {
    return at.key % 3 == 1 ? (score - row_min) * 0.1f + row_min : score;
  }
};

std::vector<std::vector<node>> trees() {
  std::vector<std::vector<node>> all{ragged_trees()};
  for (int const length : {1, 17, 129}) all.push_back({{-1, 0, length, 0}});
  all.push_back({{-1, 45, 0, 0}, {0, 3, 1, 1}, {0, 0, 1, 2}, {0, 33, 1, 3}, {0, 64, 2, 4}, {0, 0, 70, 5}});
  return all;
}

}  // namespace

TEST_CASE("cpu mean_attention: agrees with plain loops on every tree and grouping, with and without an edit") {
  cpu_backend backend({.threads = 2});
  auto const check = [&](tree_problem const& p, auto params) {
    auto const got = rebuilt_attention(p, converted<float>(p.qkv), params, {}, backend);
    CHECK(relative_difference(got, rebuilt_attention(p, p.qkv, params)) < 1e-5);
  };
  for (auto const& tree : trees())
    for (auto const [heads, kv, dim] : {std::array{1, 1, 16}, {4, 2, 33}, {9, 3, 64}, {8, 1, 8}}) {
      CAPTURE(tree.size(), tree.front().rows, heads, kv, dim);
      tree_problem const p(tree, heads, kv, dim, 3);
      check(p, unedited);
      check(p, shifted{});
    }
}

TEST_CASE("cpu mean_attention: the same bits for any number of threads") {
  for (auto const& tree : trees()) {
    tree_problem const p(tree, 9, 3, 64);
    CHECK(same_for_any_threads(
        [&](cpu_backend& b) { return rebuilt_attention(p, converted<float>(p.qkv), unedited, {}, b); }));
  }
}

TEST_CASE("cpu mean_attention: the last row alone over cached keys has the bits that it has beside the others") {
  cpu_backend backend({.threads = 2});
  for (int const length : {2, 40, 77}) {
    tree_problem const whole({{-1, 0, length, 0}}, 9, 3, 64);
    auto const qkv = converted<float>(whole.qkv);
    auto const all = rebuilt_attention(whole, qkv, unedited, {}, backend);
    auto const cache = whole.forward(qkv, unedited, {}, backend);
    tree_problem last({{-1, length - 1, 1, 0}}, 9, 3, 64);
    std::ptrdiff_t const cached = (length - 1) * 3 * 64;
    last.cached_keys.assign(cache.keys.begin(), cache.keys.begin() + cached);
    last.cached_values.assign(cache.values.begin(), cache.values.begin() + cached);
    std::vector<float> const row(qkv.end() - 15 * 64, qkv.end());
    CHECK(same_bits(rebuilt_attention(last, row, unedited, {}, backend),
                    std::vector<float>(all.end() - length, all.end())));
  }
}

}  // namespace mean_attention_test
