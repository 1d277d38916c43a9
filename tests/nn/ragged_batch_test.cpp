#include <atmanrl/nn/ragged_batch.hpp>

#include "catch.hpp"

#include <array>

using namespace atmanrl;

namespace ragged_batch_test {

TEST_CASE("ragged_batch: rows of its sequences lie one after the other") {
  ragged_batch batch;
  CHECK(batch.add(4, std::array{7, 8, 9}, 1) == 0);
  CHECK(batch.add(2, std::array{5}) == 3);
  CHECK(batch.rows() == 4);
  CHECK(std::vector<int>(batch.tokens().begin(), batch.tokens().end()) == std::vector{7, 8, 9, 5});
  REQUIRE(batch.entries().size() == 2);
  CHECK(batch.entries()[0].tag == 1);
  CHECK(batch.entries()[0].rows == 3);
  CHECK(batch.entries()[1].sequence == 2);
  CHECK(batch.entries()[1].first_row == 3);
  batch.clear();
  CHECK(batch.rows() == 0);
  CHECK(batch.entries().empty());
}

TEST_CASE("ragged_batch: no sequence without tokens and none twice") {
  ragged_batch batch;
  CHECK_THROWS_WITH(batch.add(3, {}), ATMANRL_CONTAINS("sequence 3") && ATMANRL_CONTAINS("without tokens"));
  batch.add(3, std::array{1});
  CHECK_THROWS_WITH(batch.add(3, std::array{1}), ATMANRL_CONTAINS("sequence 3") && ATMANRL_CONTAINS("twice"));
  CHECK(batch.rows() == 1);
}

}  // namespace ragged_batch_test
