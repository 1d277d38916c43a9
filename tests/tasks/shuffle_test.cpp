#include <atmanrl/tasks/shuffle.hpp>

#include "catch.hpp"

#include <algorithm>
#include <vector>

using namespace atmanrl;

namespace shuffle_test {
namespace {
std::vector<index_t> order(index_t size, std::uint64_t seed, std::uint64_t epoch) {
  std::vector<index_t> all;
  for (index_t i = 0; i < size; ++i) all.push_back(shuffled(size, seed, epoch, i));
  return all;
}
}  // namespace

TEST_CASE("every epoch visits every element once") {
  for (index_t const size : {1, 2, 3, 4, 5, 7, 8, 16, 17, 100, 1319, 7473})
    for (std::uint64_t const epoch : {0, 1, 9}) {
      auto seen = order(size, 42, epoch);
      std::ranges::sort(seen);
      for (index_t i = 0; i < size; ++i) REQUIRE(seen[std::size_t(i)] == i);
    }
}

TEST_CASE("seeds and epochs give different orders") {
  CHECK(order(100, 1, 0) != order(100, 2, 0));
  CHECK(order(100, 1, 0) != order(100, 1, 1));
  CHECK(order(100, 1, 0) != order(100, 1, std::uint64_t{1} << 40));
  CHECK(order(100, 1, 0) == order(100, 1, 0));
}

TEST_CASE("an order keeps nothing of the old neighbourhood") {
  auto const all = order(1000, 3, 0);
  int fixed = 0, neighbours = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    fixed += all[i] == index_t(i);
    if (i > 0) neighbours += std::abs(all[i] - all[i - 1]) == 1;
  }
  CHECK(fixed < 10);       // 1 expected
  CHECK(neighbours < 14);  // 2 expected
}

TEST_CASE("an endless sequence goes on with the next epoch") {
  auto const first = order(10, 5, 0), second = order(10, 5, 1);
  for (std::uint64_t i = 0; i < 10; ++i) {
    CHECK(shuffled_epochs(10, 5, i) == first[i]);
    CHECK(shuffled_epochs(10, 5, 10 + i) == second[i]);
  }
}

TEST_CASE("elements outside the permutation are refused") {
  CHECK_THROWS_AS(shuffled(0, 0, 0, 0), shape_error);
  CHECK_THROWS_AS(shuffled(10, 0, 0, 10), shape_error);
  CHECK_THROWS_AS(shuffled(10, 0, 0, -1), shape_error);
  CHECK_THROWS_AS(shuffled_epochs(0, 0, 3), shape_error);
}

}  // namespace shuffle_test
