#include <atmanrl/comm/alone.hpp>
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/comm/tree_sum.hpp>

#include "catch.hpp"
#include "comm/checks.hpp"

#include <bit>
#include <vector>

namespace tree_sum_test {

using namespace atmanrl;
using comm::range;

TEST_CASE("tree_sum: the bits of the definition, for any number of ranks and any way to deal leaves out") {
  auto const check = [](auto& c) {
    comm_checks::check_tree_sum<float>(c);
    comm_checks::check_tree_sum<double>(c);
  };
  comm::alone alone;
  CHECK_NOTHROW(check(alone));
  for (int const ranks : {1, 2, 3, 4, 8}) {
    INFO(ranks << " ranks");
    CHECK_NOTHROW(comm::threads::run(ranks, check));
  }
}

TEST_CASE("tree_sum: the leaves of the tests have other sums in other orders") {
  int other = 0;
  for (std::size_t i = 0; i < 203; ++i) {
    float chain = 0;
    for (std::size_t leaf = 0; leaf < 7; ++leaf) chain += comm_checks::element_of_leaf<float>(leaf, i);
    other += chain != comm_checks::sum_by_definition<float>(0, 7, i);
  }
  CHECK(other > 50);
}

TEST_CASE("tree_sum: on one rank at most log2 L sums wait, and the memory is used again") {
  comm::alone c;
  for (std::size_t leaves = 1; leaves <= 130; ++leaves) {
    comm::tree_sum<float, comm::alone> sums(c, 3);
    for (int step = 0; step < 2; ++step) {
      sums.begin(leaves);
      for (std::size_t leaf = 0; leaf < leaves; ++leaf) sums.add(comm_checks::leaf_of<float>(leaf, 3));
      CHECK(sums.finish()[2] == comm_checks::sum_by_definition<float>(0, leaves, 2));
    }
    CHECK(sums.buffers() <= std::max<std::size_t>(1, std::size_t(std::bit_width(leaves)) - 1));
  }
}

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

TEST_CASE("tree_sum: leaves of another size, too many and too few of them are refused") {
  comm::alone c;
  comm::tree_sum<double, comm::alone> sums(c, 4);
  std::vector<double> const four(4), five(5);
  CHECK_THROWS_WITH(sums.add(four), ATMANRL_CONTAINS("rank 0 adds more leaves than the 0 that it began with"));
  CHECK_THROWS_WITH(sums.finish(), ATMANRL_CONTAINS("rank 0 has added 0 of its 0 leaves"));
  sums.begin(2);
  CHECK_THROWS_WITH(sums.add(five), ATMANRL_CONTAINS("a leaf has 5 elements where the sum has 4"));
  sums.add(four);
  CHECK_THROWS_WITH(sums.finish(), ATMANRL_CONTAINS("rank 0 has added 1 of its 2 leaves"));
  sums.add(four);
  CHECK_THROWS_WITH(sums.add(four), ATMANRL_CONTAINS("rank 0 adds more leaves than the 2"));
  CHECK(sums.finish().size() == 4);
  CHECK_THROWS_AS(sums.finish(), shape_error);
  CHECK_THROWS_AS((comm::tree_sum<double, comm::alone>(c, 4, 0)), shape_error);
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

}  // namespace tree_sum_test
