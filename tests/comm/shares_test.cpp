#include <atmanrl/comm/leaf_tree.hpp>
#include <atmanrl/comm/shares.hpp>

#include "catch.hpp"

#include <bit>
#include <vector>

namespace shares_test {

using namespace atmanrl;
using comm::range;

TEST_CASE("leaf_tree: the tree of seven leaves, and what of it neighbours have whole") {
  CHECK(comm::left_leaves(2) == 1);
  CHECK(comm::left_leaves(7) == 4);
  CHECK(comm::left_leaves(8) == 4);
  CHECK(comm::are_siblings(7, {4, 2}, {6, 1}));
  CHECK(comm::are_siblings(7, {0, 4}, {4, 3}));
  CHECK_FALSE(comm::are_siblings(8, {4, 2}, {6, 1}));
  CHECK_FALSE(comm::are_siblings(7, {1, 1}, {2, 1}));
  CHECK_FALSE(comm::are_siblings(7, {2, 2}, {4, 2}));
  CHECK(comm::whole_nodes(7, {0, 7}) == std::vector<range>{{0, 7}});
  CHECK(comm::whole_nodes(7, {3, 4}) == std::vector<range>{{3, 1}, {4, 3}});
  CHECK(comm::whole_nodes(16, {1, 14}) == std::vector<range>{{1, 1}, {2, 2}, {4, 4}, {8, 4}, {12, 2}, {14, 1}});
  CHECK(comm::whole_nodes(7, {7, 0}).empty());
  for (std::size_t leaves = 2; leaves <= 40; ++leaves)
    for (std::size_t first = 0; first + 2 <= leaves; ++first)
      for (std::size_t count = 2; first + count <= leaves; ++count) {
        std::size_t at = first;
        auto const nodes = comm::whole_nodes(leaves, {first, count});
        std::size_t wrong = 0;
        for (range const& node : nodes) {
          wrong += node.first != at;
          at = node.end();
        }
        wrong += at != first + count;
        wrong += nodes.size() > 2 * (std::size_t(std::bit_width(count)) - 1);
        CHECK(wrong == 0);
      }
}

TEST_CASE("shares: contiguous, complete, and even to one item") {
  for (std::size_t const count : {0, 1, 5, 8, 100})
    for (int ranks = 1; ranks <= 9; ++ranks) {
      std::size_t at = 0;
      for (int r = 0; r < ranks; ++r) {
        range const mine = comm::share_of(count, ranks, r);
        CHECK(mine.first == at);
        CHECK(mine.count - count / std::size_t(ranks) <= 1);
        at = mine.end();
      }
      CHECK(at == count);
    }
}

TEST_CASE("slices: cut at multiples of the alignment, empty where an array has fewer blocks than there are ranks") {
  CHECK(comm::slice_of(200000, 1, 0) == range{0, 200000});
  CHECK(comm::slice_of(200000, 2, 0) == range{0, 131072});
  CHECK(comm::slice_of(200000, 2, 1) == range{131072, 68928});
  CHECK(comm::slice_of(200000, 8, 3) == range{196608, 3392});
  CHECK(comm::slice_of(200000, 8, 4) == range{200000, 0});
  CHECK(comm::slice_of(10, 3, 1, 4) == range{4, 4});
  CHECK(comm::slice_of(10, 3, 2, 4) == range{8, 2});
}

}  // namespace shares_test
