#include <atmanrl/optim/schedule.hpp>

#include <limits>

#include "catch.hpp"

using namespace atmanrl;

namespace schedule_test {

static_assert(Schedule<schedules::constant> && Schedule<schedules::linear> && Schedule<schedules::cosine>);
static_assert(!Schedule<int>);

TEST_CASE("schedules: the constant one stays at the peak") {
  CHECK(schedules::constant{}(0, 10) == 1);
  CHECK(schedules::constant{}(9, 10) == 1);
}

TEST_CASE("schedules: linear warms up to the peak and falls to the floor") {
  schedules::linear const s{.warmup = 4};
  CHECK(s(0, 12) == 0.25);
  CHECK(s(3, 12) == 1);
  CHECK(s(4, 12) == 1);
  CHECK(s(8, 12) == 0.5);
  CHECK(s(11, 12) == Approx(0.125));
  CHECK(schedules::linear{.warmup = 0, .floor = 0.3}(11, 12) == 0.3);
  CHECK(schedules::linear{.warmup = 0, .floor = 0.3}(3, 12) == 0.75);
}

TEST_CASE("schedules: cosine warms up to the peak and falls along half a wave to the floor") {
  schedules::cosine const s{.warmup = 2, .floor = 0.1};
  CHECK(s(0, 10) == 0.5);
  CHECK(s(1, 10) == 1);
  CHECK(s(2, 10) == 1);
  CHECK(s(6, 10) == Approx(0.55));
  CHECK(s(10, 10) == Approx(0.1));
  CHECK(s(100, 10) == Approx(0.1));  // it stays there
}

TEST_CASE("schedules: a warm-up that is as long as the run ends in no division by zero") {
  CHECK(schedules::linear{.warmup = 5}(5, 5) == 1);
  CHECK(schedules::cosine{.warmup = 5}(5, 5) == 1);
  CHECK(schedules::linear{.warmup = 9}(4, 5) == Approx(5.0 / 9));
}

TEST_CASE("schedules: a decay over no steps is refused, and so is a rate that is negative or no number") {
  CHECK_THROWS_WITH(schedules::linear{}(0, 0), ATMANRL_CONTAINS("linear") && ATMANRL_CONTAINS("total_steps"));
  CHECK_THROWS_WITH(schedules::cosine{.warmup = 3}(0, 0), ATMANRL_CONTAINS("cosine"));
  CHECK(schedules::constant{.warmup = 4}(0, 0) == 0.25);
  auto const of_step = [](double factor, double peak = 0.5) {
    return learning_rate_of([=](std::uint64_t, std::uint64_t) { return factor; }, peak, 3, 8);
  };
  CHECK(of_step(0.25) == 0.125);
  CHECK(of_step(0) == 0);
  CHECK(of_step(2) == 1);  // a schedule may rise above the peak
  CHECK_THROWS_WITH(of_step(-1), ATMANRL_CONTAINS("the learning rate is -0.5") &&
                                     ATMANRL_CONTAINS("factor after 3 of 8 steps is -1, and the peak 0.5"));
  CHECK_THROWS_AS(of_step(std::nan("")), numeric_error);
  CHECK_THROWS_AS(of_step(std::numeric_limits<double>::infinity()), numeric_error);
  CHECK_THROWS_AS(of_step(0, std::numeric_limits<double>::infinity()), numeric_error);
}

TEST_CASE("schedules::any: it holds anybody's schedule, and names the built-in ones") {
  struct halving {
    double operator()(std::uint64_t step, std::uint64_t) const { return 1.0 / double(1 + step); }
  };
  CHECK(schedules::any(halving{})(3, 0) == 0.25);
  CHECK(schedules::any()(3, 0) == 1);
  CHECK(schedules::by_name("linear", 2)(0, 10) == 0.5);
  CHECK(schedules::by_name("cosine")(10, 10) == Approx(0).margin(1e-12));
  CHECK(schedules::by_name("constant", 4)(0, 10) == 0.25);
  CHECK(schedules::by_name("constant", 4)(4, 10) == 1);
  CHECK_THROWS_WITH(schedules::by_name("step"),
                    ATMANRL_CONTAINS("\"step\"") && ATMANRL_CONTAINS("constant, linear, cosine"));
}

}  // namespace schedule_test
