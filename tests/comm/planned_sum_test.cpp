// What bench/roofline --ranks says of a sum against what a sum of the library does.
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/optim/gradient_sum.hpp>

#include "../../bench/ranks.hpp"
#include "catch.hpp"

#include <vector>

namespace planned_sum_test {

using namespace atmanrl;
using atmanrl_bench::planned_sum;

TEST_CASE("planned_sum: the bytes and buffers of a sum are those that ranks count") {
  for (int const ranks : {1, 2, 3, 4, 8})
    for (std::size_t const leaves : {1, 2, 5, 7, 8, 13, 16}) {
      INFO(ranks << " ranks, " << leaves << " leaves");
      static constexpr std::size_t elements = 1000, alignment = 64, piece = 50;
      planned_sum const plan(leaves, elements, ranks, sizeof(float), alignment);
      std::vector<comm::traffic> counted(std::size_t(ranks), comm::traffic{});
      std::vector<std::size_t> buffers(std::size_t(ranks), 0);
      comm::threads::run(ranks, [&](comm::threads& c) {
        reference_backend backend;
        gradient_sum<reference_backend, float> sums(backend, c, elements, alignment, piece);
        auto values = tensor<reference_backend, float, 1>::zeros(backend, {elements});
        auto const mine = std::size_t(c.rank());
        std::size_t const its = comm::share_of(leaves, ranks, c.rank()).count;
        sums.begin(its);
        for (std::size_t i = 0; i < its; ++i) sums.add(values);
        sums.finish(values);
        counted[mine] = c.volume();
        buffers[mine] = sums.buffers();
      });
      for (int r = 0; r < ranks; ++r) {
        INFO("rank " << r);
        CHECK(plan.volume(r) == counted[std::size_t(r)]);
        CHECK(plan.adds(r).waiting == buffers[std::size_t(r)]);
        double sent = 0;
        for (int to = 0; to < ranks; ++to) sent += to == r ? 0 : plan.exchanged(r, to);
        CHECK(sent == double(counted[std::size_t(r)].exchange.sent));
      }
    }
}

TEST_CASE("planned_sum: 48 leaves on 16 ranks leave two nodes each, and all leaves but these are added") {
  planned_sum const plan(48, 1u << 20, 16);  // three leaves each: a pair and one beside it
  CHECK(plan.nodes() == 32);
  CHECK(plan.volume(3).exchange.sent == 2 * 15 * 65536 * sizeof(float));
  CHECK(plan.volume(3).exchange.received == 30 * 65536 * sizeof(float));
  for (int r = 0; r < 16; ++r) CHECK(plan.adds(r).added == 1);
  CHECK(plan.adds(0).copied == 2);
  CHECK(plan.adds(0).waiting == 1);  // the third leaf stays where it is
  planned_sum const idle(48, 1u << 20, 64);
  CHECK(idle.share(48).count == 0);
  CHECK(idle.volume(48).exchange.sent == 0);
  CHECK(idle.nodes() == 48);
}

TEST_CASE("planned_rounds: the bytes of a sum in rounds are those that ranks count, and the busiest owner decides") {
  static constexpr std::size_t elements = 1000, alignment = 64;
  std::vector<comm::range> const stretches{{900, 100}, {300, 600}, {0, 300}};
  for (int const ranks : {1, 2, 3, 4, 8})
    for (std::size_t const leaves : {1, 2, 5, 8, 13}) {
      INFO(ranks << " ranks, " << leaves << " leaves");
      atmanrl_bench::planned_rounds const plan(leaves, stretches, ranks, sizeof(float), alignment);
      std::vector<comm::byte_count> counted(std::size_t(ranks), comm::byte_count{});
      comm::threads::run(ranks, [&](comm::threads& c) {
        reference_backend backend;
        dealt_sum<reference_backend, float> sums(backend, c, elements, false, alignment, 50);
        std::vector<float> const values(elements);
        sums.begin(leaves);
        while (sums.begin_round())
          for (comm::range const& s : stretches) sums.hand_over(s, sums.leaf() ? values.data() : nullptr);
        sums.finish();
        counted[std::size_t(c.rank())] = c.volume().exchange;
      });
      for (int r = 0; r < ranks; ++r) CHECK((ranks == 1 || plan.volume(r) == counted[std::size_t(r)]));
    }
  // Two ranks, slices of 512 and 488: the first stretch goes to rank 1 alone, the second to both, the third to rank 0,
  // which alone has a leaf in the second round.
  atmanrl_bench::rank_links const links{.inside = 4, .between = 1, .machine = 2};
  CHECK(atmanrl_bench::planned_rounds(3, stretches, 2, 4, alignment).seconds(links) ==
        (100 + 388 + 300) + (100 + 388 + 0));
}

TEST_CASE("rank_links: the busiest link of the busiest rank decides") {
  atmanrl_bench::rank_links const links{.inside = 10, .between = 1, .machine = 2};
  auto const even = [](int, int) { return 5.0; };
  CHECK(links.seconds(1, even) == 0);
  CHECK(links.seconds(2, even) == 0.5);
  CHECK(links.seconds(4, even) == 10);  // two ranks of the other machine
  CHECK(links.seconds(4, [](int from, int to) { return from == 0 && to == 1 ? 200.0 : 5.0; }) == 20);
  CHECK(links.seconds(4, [](int, int to) { return to == 3 ? 30.0 : 0.0; }) == 60);
}

}  // namespace planned_sum_test
