#include <atmanrl/comm/threads.hpp>

#include "catch.hpp"
#include "comm/checks.hpp"
#include "strangers.hpp"

namespace comm_strangers_test {

using namespace atmanrl;

TEST_CASE("communicator: one of somebody else's passes all checks, and tree_sum makes the calls that it says") {
  for (int const ranks : {1, 3})
    CHECK_NOTHROW(comm::threads::run(ranks, [](comm::threads& threads) {
      strangers::recorded c(threads);
      comm_checks::check_all(c);
      c.calls.clear();
      // Ten elements in slices of 4, 4 and 2, or of 10; two at once.
      comm::tree_sum<float, decltype(c)> sums(c, 10, 4, 2);
      sums.begin(1);
      sums.add(std::vector<float>(10, 1.0f));
      sums.finish();
      expects(c.calls == (c.size() == 1 ? "g" : "gee"), "calls {}", c.calls);
    }));
}

}  // namespace comm_strangers_test
