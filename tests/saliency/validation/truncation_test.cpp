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
  std::vector<mask_item> items() const { return {{prompt, cot, delta, answer}}; }
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
  auto m = model([](int n) { return n == 10 ? 0.999 : 0.25; });
  auto const c = truncation_curves(m, items());
  REQUIRE(c.size() == 1);
  CHECK(c[0].whole == Approx(0.999));
  REQUIRE(c[0].probability.size() == 5);
  for (double const p : c[0].probability) CHECK(p == Approx(0.25));
  CHECK(chain_information(c[0]) == Approx(jensen_shannon_distance(0.25, 0.999)));
}

TEST_CASE_METHOD(by_length, "an answer that needs no chain") {
  auto m = model([](int) { return 0.9; });
  auto const c = truncation_curves(m, items());
  CHECK(chain_information(c[0]) == Approx(0).margin(1e-7));
}

TEST_CASE_METHOD(by_length, "each share keeps its tokens, and an answer's probability is that of all its tokens") {
  answer = {1, 1};
  auto m = model([](int n) { return 0.1 + 0.05 * n; });
  auto const c = truncation_curves(m, items(), std::array{0.0, 0.36, 0.5});
  REQUIRE(c[0].share == std::vector{0.0, 0.36, 0.5});
  auto const two = [](int n) { return std::pow(0.1 + 0.05 * n, 2); };
  CHECK(c[0].probability[0] == Approx(two(0)));
  CHECK(c[0].probability[1] == Approx(two(4)));
  CHECK(c[0].probability[2] == Approx(two(5)));
  CHECK(c[0].whole == Approx(two(10)));
  CHECK_THROWS_AS(truncation_curves(m, items(), std::array{0.5, 0.5}), usage_error);
  CHECK_THROWS_AS(truncation_curves(m, items(), std::array{1.0}), usage_error);
  CHECK_THROWS_AS(truncation_curves(m, items(), std::array{-0.1}), usage_error);
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
  auto const number = [&](scripted_model& m) { return float(chain_information(truncation_curves(m, items())[0])); };
  std::vector<float> const a{number(counts)}, b{number(knows)};
  CHECK(reading_gate(a, b) == Approx(1));
}

}  // namespace truncation_test
