#include <atmanrl/comm/alone.hpp>
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/optim/gradient_sum.hpp>

#include "catch.hpp"
#include "comm/checks.hpp"

#include <bit>
#include <vector>

namespace gradient_sum_test {

using namespace atmanrl;

TEST_CASE("gradient_sum: the bits of the definition, for any number of ranks and any way to deal leaves out") {
  auto const check = [](auto& c) {
    comm_checks::check_gradient_sum<float>(c);
    comm_checks::check_gradient_sum<double>(c);
  };
  comm::alone alone;
  CHECK_NOTHROW(check(alone));
  for (int const ranks : {1, 2, 3, 4, 8}) {
    INFO(ranks << " ranks");
    CHECK_NOTHROW(comm::threads::run(ranks, check));
  }
}

TEST_CASE("gradient_sum: the leaves of the tests have other sums in other orders") {
  int other = 0;
  for (std::size_t i = 0; i < 203; ++i) {
    float chain = 0;
    for (std::size_t leaf = 0; leaf < 7; ++leaf) chain += comm_checks::element_of_leaf<float>(leaf, i);
    other += chain != comm_checks::sum_by_definition<float>(0, 7, i);
  }
  CHECK(other > 50);
}

TEST_CASE("gradient_sum: on one rank at most log2 L sums wait, and the memory is used again") {
  reference_backend backend;
  for (std::size_t leaves = 1; leaves <= 130; ++leaves) {
    gradient_sum<reference_backend, float> sums(backend, {}, 3);
    tensor<reference_backend, float, 1> values(backend, {3});
    for (int step = 0; step < 2; ++step) {
      sums.begin(leaves);
      for (std::size_t leaf = 0; leaf < leaves; ++leaf) {
        values.assign(comm_checks::leaf_of<float>(leaf, 3));
        sums.add(values);
      }
      sums.finish(values);
      CHECK(values.data()[2] == comm_checks::sum_by_definition<float>(0, leaves, 2));
    }
    CHECK(sums.buffers() <= std::size_t(std::bit_width(leaves)) - 1);
    CHECK(sums.buffers() == comm::most_waiting(leaves, {0, leaves}));
  }
}

TEST_CASE("gradient_sum: one leaf of a rank is exchanged from where it is, and takes no other memory") {
  for (int const ranks : {1, 2, 3})
    CHECK_NOTHROW(comm::threads::run(ranks, [](comm::threads& c) {
      static constexpr std::size_t elements = 203;
      reference_backend backend;
      gradient_sum<reference_backend, float> sums(backend, c, elements, 16, 20);
      sums.begin(1);
      auto leaf = comm_checks::tensor_of(backend, comm_checks::leaf_of<float>(std::size_t(c.rank()), elements));
      sums.add(leaf);
      tensor<reference_backend, float, 1> other(backend, {elements});
      bool refused = false;
      try {
        sums.finish(other);
      } catch (shape_error const&) {
        refused = true;
      }
      sums.finish(leaf);
      expects(refused && sums.buffers() == 0, "{} buffers; another tensor was refused: {}", sums.buffers(), refused);
      for (std::size_t i = sums.slice().first; i < sums.slice().end(); ++i)
        expects(leaf.data()[i] == comm_checks::sum_by_definition<float>(0, std::size_t(c.size()), i), "element {}", i);
    }));
}

TEST_CASE("gradient_sum: leaves of another size, too many and too few of them are refused") {
  reference_backend backend;
  gradient_sum<reference_backend, double> sums(backend, {}, 4);
  tensor<reference_backend, double, 1> four(backend, {4}), five(backend, {5});
  CHECK_THROWS_WITH(sums.add(four), ATMANRL_CONTAINS("rank 0 adds more leaves than the 0 that it began with"));
  CHECK_THROWS_WITH(sums.finish(four), ATMANRL_CONTAINS("rank 0 has added 0 of its 0 leaves"));
  sums.begin(2);
  CHECK_THROWS_WITH(sums.add(five), ATMANRL_CONTAINS("a leaf has 5 elements where the sum has 4"));
  sums.add(four);
  CHECK_THROWS_WITH(sums.finish(four), ATMANRL_CONTAINS("rank 0 has added 1 of its 2 leaves"));
  sums.add(four);
  CHECK_THROWS_WITH(sums.add(four), ATMANRL_CONTAINS("rank 0 adds more leaves than the 2"));
  CHECK_THROWS_WITH(sums.finish(five), ATMANRL_CONTAINS("a sum of 4 elements is put into 5"));
  CHECK_NOTHROW(sums.finish(four));
  CHECK_THROWS_AS(sums.finish(four), shape_error);
  CHECK_THROWS_AS((gradient_sum<reference_backend, double>(backend, {}, 4, 0)), shape_error);
}

}  // namespace gradient_sum_test
