#include <atmanrl/core/random.hpp>
#include <atmanrl/ops/sample.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

#include <cmath>

using namespace atmanrl;
using namespace atmanrl_test;

namespace sample_test {
namespace {

/// The token by the definition, in double.
int by_definition(std::span<double const> logits, double temperature, double u) {
  double total = 0, below = 0;
  for (double const z : logits) total += std::exp(z / temperature);
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (u * total < (below += std::exp(logits[i] / temperature))) return int(i);
  return int(logits.size()) - 1;
}

template <class T>
std::vector<int> drawn(std::vector<T> const& logits, index_t vocabulary, std::vector<int> const& rows,
                       std::vector<double> const& u, double temperature, sample_form const& form) {
  reference_backend backend;
  index_t const n = index_t(rows.size());
  std::vector<std::uint64_t> shares;
  for (double const x : u) shares.push_back(share_of_2_64(x));
  std::vector<int> ids(rows.size(), -1);
  sample_tokens(backend, view<T const, 2>(logits.data(), {index_t(logits.size()) / vocabulary, vocabulary}),
                std::span<int const>(rows), std::span<std::uint64_t const>(shares), temperature, form,
                std::span<int>(ids));
  CHECK(n == index_t(ids.size()));
  return ids;
}

}  // namespace

TEST_CASE("sample_tokens: inverts the cumulative distribution of the row that belongs to each draw") {
  index_t const vocabulary = 700;
  auto const logits = random_values(3 * vocabulary, 1, 3);
  random_stream draw(5, 1);
  std::vector<int> rows;
  std::vector<double> u;
  for (int i = 0; i < 200; ++i) {
    rows.push_back(i % 3);
    u.push_back(draw.uniform());
  }
  for (double const temperature : {0.5, 1.0, 2.0}) {
    auto const ids = drawn(logits, vocabulary, rows, u, temperature, {});
    CHECK(drawn(converted<float>(logits), vocabulary, rows, u, temperature, {}) == ids);
    int decided = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      auto const row = std::span<double const>(logits).subspan(std::size_t(rows[i]) * 700, 700);
      int const expected = by_definition(row, temperature, u[i]);
      // Where rounding cannot decide between two tokens.
      if (by_definition(row, temperature, u[i] - 1e-5) != expected ||
          by_definition(row, temperature, u[i] + 1e-5) != expected)
        continue;
      ++decided;
      CHECK(ids[i] == expected);
    }
    CHECK(decided > 150);
  }
}

TEST_CASE("sample_tokens: cuts keep the most probable tokens, the lower id among equals, and greedy takes the first") {
  std::vector<float> const logits{0, 3, 1, 3, 2, -9};
  std::vector<double> const u{0, 0.4, 0.6, 0.999};
  std::vector<int> const rows(4, 0);
  CHECK(drawn(logits, 6, rows, u, 1, {.greedy = true}) == std::vector{1, 1, 1, 1});
  CHECK(drawn(logits, 6, rows, u, 0, {.top_k = 3}) == std::vector{1, 1, 1, 1});
  CHECK(drawn(logits, 6, rows, u, 1, {.top_k = 1}) == std::vector{1, 1, 1, 1});
  CHECK(drawn(logits, 6, rows, u, 1, {.top_k = 2}) == std::vector{1, 1, 3, 3});
  CHECK(drawn(logits, 6, rows, u, 1, {.top_p = 0.5}) == std::vector{1, 1, 3, 3});
  CHECK(drawn(logits, 6, rows, u, 1, {.min_p = 0.9}) == std::vector{1, 1, 3, 3});
  CHECK(drawn(logits, 6, rows, u, 1, {.top_k = 3}) == std::vector{1, 1, 3, 4});
  CHECK(drawn(logits, 6, rows, u, 1, {.top_k = 6, .min_p = 0.3}) == std::vector{1, 1, 3, 4});
}

TEST_CASE("score_tokens: the log-probability and the entropy of each token's row, by the definition") {
  reference_backend backend;
  index_t const vocabulary = 1500;
  auto const logits = random_values(2 * vocabulary, 3, 4);
  std::vector<int> const rows{1, 0, 1}, ids{0, 1499, 1024};
  std::vector<double> log_p(3), entropy(3);
  score_tokens(backend, view<double const, 2>(logits.data(), {2, vocabulary}), std::span<int const>(rows),
               std::span<int const>(ids), 1.3, as(log_p, {3}), as(entropy, {3}));
  for (std::size_t i = 0; i < 3; ++i) {
    double sum = 0, weighted = 0;
    for (std::size_t j = 0; j < 1500; ++j) {
      double const z = logits[std::size_t(rows[i]) * 1500 + j] / 1.3;
      sum += std::exp(z);
      weighted += std::exp(z) * z;
    }
    CHECK(log_p[i] == Approx(logits[std::size_t(rows[i]) * 1500 + std::size_t(ids[i])] / 1.3 - std::log(sum)));
    CHECK(entropy[i] == Approx(std::log(sum) - weighted / sum));
  }
}

TEST_CASE("sample_tokens and score_tokens: what cannot be drawn or scored is refused") {
  std::vector<float> const logits{1, 2};
  CHECK_THROWS_WITH(drawn(logits, 2, {0}, {}, 1, {}), ATMANRL_CONTAINS("1 rows and 0 numbers for 1 tokens"));
  CHECK_THROWS_WITH(drawn(logits, 2, {0}, {0.5}, -1, {}), ATMANRL_CONTAINS("temperature is -1"));
  CHECK_THROWS_WITH(drawn(logits, 2, {0}, {0.5}, 1, {.top_p = 0}), ATMANRL_CONTAINS("top-p 0"));
  CHECK(from_share_of_2_64(share_of_2_64(0x1.23456789abcdfp-1)) == 0x1.23456789abcdfp-1);
}

}  // namespace sample_test
