#include <atmanrl/comm/threads.hpp>

#include "catch.hpp"
#include "comm/checks.hpp"
#include "comm/device_checks.hpp"
#include "strangers.hpp"

namespace comm_strangers_test {

using namespace atmanrl;

TEST_CASE("communicator: one of somebody else's passes all checks, and gradient_sum makes the calls that it says") {
  for (int const ranks : {1, 3})
    CHECK_NOTHROW(comm::threads::run(ranks, [](comm::threads& threads) {
      strangers::recorded c(threads);
      comm_checks::check_all(c);
      c.calls.clear();
      // Ten elements in slices of 4, 4 and 2, or of 10; two at once, by its own exchange_on.
      reference_backend backend;
      gradient_sum<reference_backend, float> sums(backend, c, 10, 4, 2);
      auto values = tensor<reference_backend, float, 1>::zeros(backend, {10});
      sums.begin(1);
      sums.add(values);
      sums.finish(values);
      expects(c.calls == (c.size() == 1 ? "g" : "gdd"), "calls {}", c.calls);
    }));
}

TEST_CASE("device communicator: one of somebody else's passes all checks, on backends of his own and of the library") {
  for (int const ranks : {1, 2, 3})
    CHECK_NOTHROW(comm::threads::run(ranks, [](comm::threads& threads) {
      strangers::recorded c(threads);
      reference_backend backend;
      comm_checks::check_exchange_on(c, backend);
      strangers::dirty_backend dirty;
      comm_checks::check_exchange_on(c, dirty);
    }));
}

}  // namespace comm_strangers_test
