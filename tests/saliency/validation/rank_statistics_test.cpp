// Rank statistics on cases that were worked out by hand, ties included.
#include <atmanrl/saliency/validation/baselines.hpp>
#include <atmanrl/saliency/validation/rank_statistics.hpp>

#include "catch.hpp"

using namespace atmanrl;
namespace rank_statistics_test {

using floats = std::vector<float>;
using flags = std::vector<bool>;

TEST_CASE("mean_ranks: equal values share the mean of their ranks") {
  CHECK(mean_ranks(floats{3, 1, 3, 2, 3}) == std::vector<double>{4, 1, 4, 2, 4});
  CHECK(mean_ranks(floats{}).empty());
}

TEST_CASE("falling_order: of equal values the earlier token comes first") {
  CHECK(falling_order(floats{1, 5, 5, 0, 7}) == std::vector<int>{4, 1, 2, 0, 3});
}

TEST_CASE("auroc: it counts pairs, ties half") {
  // positives 3 and 1, negatives 2 and 1: 3>2, 3>1, 1<2, 1=1 -> (1 + 1 + 0 + 0.5) / 4
  CHECK(*auroc(floats{3, 2, 1, 1}, flags{true, false, true, false}) == 0.625);
  CHECK(*auroc(floats{3, 2, 1}, flags{true, false, false}) == 1);
  CHECK(*auroc(floats{1, 2, 3}, flags{true, false, false}) == 0);
  CHECK(*auroc(floats{7, 7, 7}, flags{true, false, false}) == 0.5);
  CHECK_FALSE(auroc(floats{1, 2}, flags{true, true}));
  CHECK_FALSE(auroc(floats{1, 2}, flags{false, false}));
  CHECK_THROWS_AS(auroc(floats{1, 2}, flags{false}), shape_error);
}

TEST_CASE("spearman: ties have mean ranks, a constant side has no correlation") {
  CHECK(*spearman(floats{1, 2, 3}, floats{10, 20, 1000}) == Approx(1));
  CHECK(*spearman(floats{1, 2, 3}, floats{3, 2, 1}) == Approx(-1));
  // ranks 1.5 1.5 3 4 and 1 3 2 4: products of deviations 1.5 - 0.5 - 0.25 + 2.25 = 3, squares 4.5 and 5
  CHECK(*spearman(floats{1, 1, 2, 3}, floats{1, 3, 2, 4}) == Approx(3 / std::sqrt(4.5 * 5)));
  CHECK_FALSE(spearman(floats{1, 1, 1}, floats{1, 2, 3}));
  CHECK_FALSE(spearman(floats{1}, floats{2}));
}

TEST_CASE("precision and recall at k: hits among the k highest") {
  floats const s{0.1f, 0.9f, 0.5f, 0.7f};
  flags const relevant{true, true, false, false};
  CHECK(precision_at_k(s, relevant, 1) == 1);
  CHECK(precision_at_k(s, relevant, 2) == 0.5);
  CHECK(precision_at_k(s, relevant, 9) == 0.5);  // of four tokens
  CHECK(*recall_at_k(s, relevant, 2) == 0.5);
  CHECK(*recall_at_k(s, relevant, 4) == 1);
  CHECK_FALSE(recall_at_k(s, flags(4), 2));
  CHECK_THROWS_AS(precision_at_k(s, relevant, 0), shape_error);
}

TEST_CASE("top_k_jaccard: intersection over union") {
  CHECK(top_k_jaccard(floats{4, 3, 2, 1}, floats{4, 2, 3, 1}, 2) == Approx(1.0 / 3));
  CHECK(top_k_jaccard(floats{4, 3, 2, 1}, floats{4, 3, 1, 2}, 2) == 1);
  CHECK(top_k_jaccard(floats{4, 3, 2, 1}, floats{1, 2, 3, 4}, 2) == 0);
}

TEST_CASE("trapezoid: the area under a polygon") {
  CHECK(trapezoid(std::vector<double>{0, 0.25, 1}, std::vector<double>{1, 0, 1}) == Approx(0.125 + 0.375));
  CHECK(trapezoid(std::vector<double>{0.5}, std::vector<double>{3}) == 0);
}

TEST_CASE("baselines: recency and digits rank as their names say, random is a function of seed, item and order") {
  flags const digit{true, false, true, false};
  CHECK(falling_order(baselines::recency(3)) == std::vector<int>{2, 1, 0});
  CHECK(falling_order(baselines::is_digit(digit)) == std::vector<int>{0, 2, 1, 3});
  CHECK(falling_order(baselines::late_digits(digit)) == std::vector<int>{2, 0, 1, 3});
  CHECK(baselines::random(8, 1, 2, 3) == baselines::random(8, 1, 2, 3));
  CHECK(baselines::random(8, 1, 2, 3) != baselines::random(8, 2, 2, 3));
  CHECK(baselines::random(8, 1, 2, 3) != baselines::random(8, 1, 3, 3));
  CHECK(baselines::random(8, 1, 2, 3) != baselines::random(8, 1, 2, 4));
}

}  // namespace rank_statistics_test
