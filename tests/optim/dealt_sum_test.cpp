#include <atmanrl/comm/alone.hpp>
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/optim/dealt_sum.hpp>

#include "catch.hpp"
#include "comm/checks.hpp"

#include <vector>

namespace dealt_sum_test {

using namespace atmanrl;

TEST_CASE("dealt_sum: the bits of the definition and the bytes of the formula, for any number of ranks") {
  auto const check = [](auto& c) {
    reference_backend backend;
    comm_checks::check_dealt_sum<float>(c, backend);
    comm_checks::check_dealt_sum<double>(c, backend);
  };
  comm::alone alone;
  CHECK_NOTHROW(check(alone));
  for (int const ranks : {1, 2, 3, 4, 8}) {
    INFO(ranks << " ranks");
    CHECK_NOTHROW(comm::threads::run(ranks, check));
  }
}

TEST_CASE("dealt_sum: what a rank holds is slices that wait and a piece of each leaf, or the sum and pieces alone") {
  static constexpr std::size_t elements = 4000, alignment = 100, piece = 50, leaves = 11;
  for (int const ranks : {2, 3, 4})
    for (bool const on_host : {false, true})
      CHECK_NOTHROW(comm::threads::run(ranks, [&](comm::threads& c) {
        reference_backend backend;
        dealt_sum<reference_backend, float> sums(backend, c, elements, on_host, alignment, piece);
        for (int step = 0; step < 2; ++step) {
          sums.begin(leaves);
          while (sums.begin_round()) {
            auto const values = comm_checks::leaf_of<float>(sums.leaf().value_or(0), elements);
            sums.hand_over({0, elements}, sums.leaf() ? values.data() : nullptr);
          }
          sums.finish();
        }
        std::size_t const slice = sums.slice().count, waiting = most_waiting_slices(leaves, ranks),
                          held = backend.peak_bytes() / sizeof(float), least = (on_host ? 1 : waiting) * slice,
                          most = least + (std::size_t(ranks) + (on_host ? waiting : 0)) * piece;
        expects(held >= least && held <= most, "{} elements were held where {} to {} are announced", held, least, most);
      }));
  CHECK(most_waiting_slices(48, 4) == 3);  // twelve rounds, of which 7 and 11 leave three nodes
  CHECK(most_waiting_slices(4, 4) == 1);
  CHECK(most_waiting_slices(5, 3) == 2);  // the first round leaves 0+1 and 2
}

TEST_CASE("dealt_sum: rounds that are not complete, and values where a rank has none, are refused") {
  reference_backend backend;
  std::vector<double> const values(4);
  dealt_sum<reference_backend, double> sums(backend, {}, 4);
  CHECK_THROWS_WITH(sums.finish(), ATMANRL_CONTAINS("a sum of 0 leaves is finished after 0 rounds"));
  CHECK_THROWS_WITH(sums.begin(0), ATMANRL_CONTAINS("a sum of no leaves"));
  sums.begin(2);
  REQUIRE(sums.begin_round());
  CHECK_THROWS_WITH(sums.hand_over({0, 4}, nullptr), ATMANRL_CONTAINS("in which it has one, without values"));
  CHECK_THROWS_WITH(sums.hand_over({1, 4}, values.data()), ATMANRL_CONTAINS("elements 1 to 5 of 4"));
  sums.begin(2);
  REQUIRE(sums.begin_round());
  sums.hand_over({0, 3}, values.data());
  CHECK_THROWS_WITH(sums.begin_round(), ATMANRL_CONTAINS("3 of 4 elements of round 1 were handed over"));
  sums.hand_over({3, 1}, values.data());
  CHECK_THROWS_WITH(sums.finish(), ATMANRL_CONTAINS("a sum of 2 leaves is finished after 1 rounds"));
  REQUIRE(sums.begin_round());
  sums.hand_over({0, 4}, values.data());
  CHECK_NOTHROW(sums.finish());
  CHECK(!sums.begin_round());
}

}  // namespace dealt_sum_test
