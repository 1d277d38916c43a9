// A step of decoding moves on: what is noted, who ends, where the others go.
#include <atmanrl/ops/advance.hpp>

#include "catch.hpp"
#include "decoding_rows.hpp"

namespace advance_test {
using namespace atmanrl;
using namespace atmanrl_test;

TEST_CASE("advance: rows go on by a position, a stop token and the limit end them, and an ended row stays") {
  reference_backend backend;
  decoding_rows<reference_backend> d(backend, 3, 2, {5, 6}, 3);  // limits 3, 4, 5
  d.step({1, 2, 5}, {-1, -2, -3}, {0.5f, 0.25f, 0.125f});
  CHECK(d.ids() == std::vector<int>{1, 2, 2});  // row 2 drew a stop token
  CHECK(d.positions() == std::vector<int>{5, 6, 6});
  CHECK(d.cache_rows() == std::vector<int>{101, 121, 140});
  CHECK(d.noted_ids() == std::vector<int>{1, 2, 5, 0, 0, 0});
  CHECK(d.noted_log_p() == std::vector<float>{-1, -2, -3, 0, 0, 0});
  CHECK(d.noted_entropy() == std::vector<float>{0.5f, 0.25f, 0.125f, 0, 0, 0});
  auto const sequences = d.sequences();  // of the rows 1, 2, 0
  CHECK(sequences[0].first_position == 6);
  CHECK(sequences[1].first_position == 0);
  CHECK(sequences[2].first_position == 5);
  auto const segments = d.segments();
  for (int i : {0, 2, 4}) CHECK(segments[std::size_t(i)].length == segments[std::size_t(i + 1)].first_position);
  CHECK(segments[1].length == 2);
  CHECK(segments[3].length == 1);
  CHECK(segments[5].length == 2);
  auto rows = d.rows();
  CHECK(rows[0].tokens == 2);
  CHECK(rows[2].tokens == 2);
  CHECK((rows[0].done == 0 && rows[1].done == 0 && rows[2].done == 1));
  CHECK((rows[0].step == 1 && rows[2].step == 1));
  CHECK(d.shares() == std::vector<std::uint64_t>{share_of_2_64(uniform({7, 3, 10, 0, 2})),
                                                 share_of_2_64(uniform({7, 3, 11, 1, 2})), 1});

  d.step({3, 4, 4}, {-4, -5, -6}, {1, 2, 3});
  CHECK(d.ids() == std::vector<int>{1, 4, 2});  // row 0 has its third token
  CHECK(d.positions() == std::vector<int>{5, 7, 6});
  CHECK(d.noted_ids() == std::vector<int>{1, 2, 5, 3, 4, 4});
  rows = d.rows();
  CHECK((rows[0].done == 1 && rows[1].done == 0 && rows[2].done == 1));
  CHECK((rows[0].tokens == 3 && rows[1].tokens == 3 && rows[2].tokens == 2));
  CHECK(rows[1].step == 0);  // from the beginning

  d.step({0, 6, 0}, {-7, -8, -9}, {4, 5, 6});  // its last token and a stop token at once
  rows = d.rows();
  CHECK((rows[1].done == 1 && rows[1].tokens == 4 && rows[1].step == 1));
  CHECK(d.noted_ids() == std::vector<int>{0, 6, 0, 3, 4, 4});
  CHECK(d.sequences()[0].first_position == 0);
}

TEST_CASE("advance: shares are those of the numbers that the host draws with") {
  for (std::uint32_t i = 0; i < 100; ++i) {
    random_key const k{
        .seed = 5 + std::uint64_t(i) * i * 0x123456789, .step = i, .prompt = 3, .rollout = i / 7, .position = i * i};
    CHECK(share_of_2_64(k) == share_of_2_64(uniform(k)));
    CHECK(from_share_of_2_64(share_of_2_64(k)) == uniform(k));
  }
}

TEST_CASE("advance: sizes that do not fit are refused") {
  reference_backend backend;
  decoding_rows<reference_backend> d(backend, 3, 2, {}, 3);
  CHECK_THROWS_WITH(d.step({1, 2}, {-1, -2, -3}, {1, 2, 3}), ATMANRL_CONTAINS("2 tokens, 3 log-probabilities"));
  decoding_rows<reference_backend> none(backend, 3, 0, {}, 3);
  CHECK_THROWS_WITH(none.step({1, 2, 3}, {-1, -2, -3}, {1, 2, 3}), ATMANRL_CONTAINS("tokens are noted in"));
}

}  // namespace advance_test
