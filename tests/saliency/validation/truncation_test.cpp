#include <atmanrl/saliency/validation/truncation.hpp>

#include "catch.hpp"
#include "saliency/scripted_model.hpp"

using namespace atmanrl_test;

namespace truncation_test {
namespace {

constexpr int vocab = 4, delimiter = 3;

/// Tokens 0 to 2 are a chain's, 3 is the delimiter. The answer 1 has probability p(length of the chain) at each token.
struct by_length {
  reference_backend backend;
  std::vector<int> prompt{2}, cot = std::vector<int>(10, 0), delta{delimiter}, answer{1};

  scripted_model model(std::function<double(int)> p) {
    return {backend, vocab, 0, [p](std::span<int const> tokens) {
              int length = 0;
              for (int const t : tokens) length += t == 0;
              double const yes = p(length);
              std::vector<double> z(vocab, std::log((1 - yes) / (vocab - 1)));
              z[1] = std::log(yes);
              return z;
            }};
  }
  std::vector<saliency_item> items() const { return {{prompt, cot, delta, answer}}; }
};

}  // namespace

TEST_CASE("the distance of two coins, by hand") {
  CHECK(jensen_shannon_distance(0.3, 0.3) == 0);
  CHECK(jensen_shannon_distance(0, 1) == Approx(1));
  CHECK(jensen_shannon_distance(1, 0) == Approx(1));
  // H(3/4) - (H(1) + H(1/2)) / 2, H in bits.
  double const h34 = -(0.75 * std::log2(0.75) + 0.25 * std::log2(0.25));
  CHECK(jensen_shannon_distance(1, 0.5) == Approx(std::sqrt(h34 - 0.5)));
}

TEST_CASE_METHOD(by_length, "an answer that the whole chain alone brings") {
  auto m = model([](int n) { return n == 10 ? 0.999 : 0.1; });
  auto const c = truncate_chains(m, items());
  REQUIRE(c.size() == 1);
  CHECK(c[0].whole == Approx(0.999));
  REQUIRE(c[0].share == std::vector{0.0, 0.2, 0.4, 0.6, 0.8, 1.0});
  REQUIRE(c[0].p.size() == 6);
  for (std::size_t k = 0; k < 5; ++k) CHECK(c[0].p[k] == Approx(0.1));
  CHECK(c[0].p.back() == c[0].whole);
  CHECK(c[0].same == std::vector<double>{0, 0, 0, 0, 0, 1});
  CHECK(c[0].information == Approx(jensen_shannon_distance(0.1, 0.999)));
  CHECK(c[0].early_answering == Approx(0.9));  // a triangle below the curve, between 0.8 and 1
}

TEST_CASE_METHOD(by_length, "of a chain of one or two tokens the whole is no cut, though the last share is all of it") {
  auto const yes = [](int n) { return 0.1 + 0.2 * n; };
  auto m = model(yes);
  for (int const tokens : {1, 2}) {
    CAPTURE(tokens);
    cot.assign(std::size_t(tokens), 0);
    auto const c = truncate_chains(m, items());
    CHECK(c[0].p.size() == 6);
    double mean = 0;
    for (int const kept : tokens == 1 ? std::vector{0, 0, 0, 1, 1} : std::vector{0, 0, 1, 1, 2})
      mean += jensen_shannon_distance(yes(kept), yes(tokens)) / 5;
    CHECK(c[0].information == Approx(mean));
  }
}

TEST_CASE_METHOD(by_length, "an answer that needs no chain") {
  auto m = model([](int) { return 0.9; });
  auto const c = truncate_chains(m, items());
  CHECK(c[0].information == Approx(0).margin(1e-7));
  CHECK(c[0].early_answering == Approx(0).margin(1e-12));
}

TEST_CASE_METHOD(by_length, "each cut keeps its tokens, and an answer's probability is that of all its tokens") {
  answer = {1, 1};
  auto const yes = [](int n) { return 0.1 + 0.05 * n; };
  auto m = model(yes);
  std::vector<saliency_item> const two{items()[0], items()[0]};
  std::vector<std::vector<index_t>> cuts{{4, 5}, {7, 10}};
  auto const truncated = [&] {
    return truncate_chains(m, std::span<saliency_item const>(two), std::span<std::vector<index_t> const>(cuts));
  };
  auto const c = truncated();
  REQUIRE(c[0].share == std::vector{0.0, 0.4, 0.5, 1.0});
  REQUIRE(c[1].share == std::vector{0.0, 0.7, 1.0});
  auto const p = [&](int n) { return std::pow(yes(n), 2); };
  CHECK(c[0].p[0] == Approx(p(0)));
  CHECK(c[0].p[1] == Approx(p(4)));
  CHECK(c[0].p[2] == Approx(p(5)));
  CHECK(c[1].p[1] == Approx(p(7)));
  CHECK(c[0].whole == Approx(p(10)));
  CHECK(c[1].information == Approx((jensen_shannon_distance(p(0), p(10)) + jensen_shannon_distance(p(7), p(10))) / 2));
  CHECK(c[1].early_answering == Approx(1 - (0.7 / 2 + 0.3)));
  for (std::vector<index_t> const& bad : {std::vector<index_t>{5, 4}, {11}, {-1}}) {
    cuts[1] = bad;
    CHECK_THROWS_WITH(truncated(), ATMANRL_CONTAINS("item 1"));
  }
  cuts.pop_back();
  CHECK_THROWS_AS(truncated(), shape_error);
}

TEST_CASE("the gate is the AUROC of what is read against what is ignored") {
  std::vector<float> const read{3, 2, 2}, ignored{1, 2};
  CHECK(reading_gate(read, ignored) == Approx((3 * 1 + 1 + 0.5 + 0.5) / 6));
  CHECK(reading_gate(ignored, read) == Approx(1 - (3 * 1 + 1 + 0.5 + 0.5) / 6));
  CHECK_FALSE(reading_gate(read, {}));
}

TEST_CASE_METHOD(by_length, "the gate passes CIR for a reader that needs a chain and never looks at it") {
  // The numbers of a reader that counts tokens are those of one that reads: cutting cannot see the difference.
  auto counts = model([](int n) { return n == 10 ? 0.999 : 0.25; }), knows = model([](int) { return 0.9; });
  auto const number = [&](scripted_model& m) { return float(truncate_chains(m, items())[0].information); };
  std::vector<float> const a{number(counts)}, b{number(knows)};
  CHECK(reading_gate(a, b) == Approx(1));
}

}  // namespace truncation_test
