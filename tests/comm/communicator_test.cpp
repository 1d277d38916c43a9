#include <atmanrl/comm/alone.hpp>
#include <atmanrl/comm/threads.hpp>

#include "catch.hpp"
#include "comm/checks.hpp"

namespace communicator_test {

using namespace atmanrl;

/// All checks of one kind, among so many ranks.
template <class F>
void on_ranks(F&& check) {
  comm::alone alone;
  CHECK_NOTHROW(check(alone));
  for (int const ranks : {1, 2, 3, 4, 8}) {
    INFO(ranks << " ranks");
    CHECK_NOTHROW(comm::threads::run(ranks, check));
  }
}

TEST_CASE("exchange: every rank gets from each other what that had for it, parts of any size, known or not") {
  on_ranks([](auto& c) { comm_checks::check_exchange(c); });
}
TEST_CASE(
    "all_gather: every rank gets all parts in order, empty ones too, in place, and of sizes that it did not know") {
  on_ranks([](auto& c) { comm_checks::check_all_gather(c); });
}
TEST_CASE("status: every rank hears of the first one that is not well, or of none") {
  on_ranks([](auto& c) { comm_checks::check_status(c); });
}
TEST_CASE("expects_same_everywhere: every rank hears which one was given something else, and what") {
  on_ranks([](auto& c) { comm_checks::check_same_everywhere(c); });
}
TEST_CASE("volume: the bytes for others and from others, by kind of call") {
  on_ranks([](auto& c) { comm_checks::check_volume(c); });
}

TEST_CASE("alone: one rank as its type says, and what it sends to itself must be what it expects") {
  static_assert(comm::alone::size() == 1 && comm::alone::rank() == 0);
  static_assert(comm::OneRank<comm::alone> && !comm::OneRank<comm::threads>);
  comm::alone c;
  std::vector<std::byte> const four(4);
  std::vector<std::byte> three(3);
  std::vector<std::size_t> const sizes{4};
  CHECK_THROWS_WITH(c.exchange(four, sizes, three, sizes), "rank 0 sends 4 bytes to itself and expects 3");
}

TEST_CASE("typed calls: counts that do not fit the spans are refused before anything is sent") {
  comm::alone c;
  std::vector<float> const two(2);
  std::vector<float> out(2);
  std::vector<std::size_t> const one{1}, fits{2}, of_two_ranks{1, 1};
  CHECK_THROWS_WITH(comm::exchange<float>(c, two, one, out, fits),
                    ATMANRL_CONTAINS("the counts add up to 1 and 2 elements, the spans have 2 and 2"));
  CHECK_THROWS_WITH(comm::exchange<float>(c, two, of_two_ranks, out, fits),
                    ATMANRL_CONTAINS("exchange among 1 ranks has 2 counts to send and 1 to receive"));
  CHECK_THROWS_WITH(comm::all_gather<float>(c, two, out, one),
                    ATMANRL_CONTAINS("the counts are 1 of rank 0 and 1 in all, the spans have 2 and 2 elements"));
  CHECK_THROWS_WITH(comm::all_gather<float>(c, two, out, of_two_ranks),
                    ATMANRL_CONTAINS("all_gather among 1 ranks has 2 counts"));
  CHECK_THROWS_WITH(comm::exchange<float>(c, std::vector<std::vector<float>>{}),
                    ATMANRL_CONTAINS("exchange among 1 ranks has 0 parts"));
}

}  // namespace communicator_test
