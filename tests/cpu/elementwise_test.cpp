#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace elementwise_test {

TEST_CASE("cpu elementwise: bias, its gradient and scaling agree with plain loops") {
  for (index_t const columns : {1, 5, 16, 100})
    for (index_t const rows : {1, 3, 17, 400}) {
      CAPTURE(columns, rows);
      cpu_backend backend({.threads = 2});
      reference_backend reference;
      auto const bias = random_floats(columns, 1), y = random_floats(rows * columns, 2);
      auto got = y, expected = y;
      add_bias(backend, as(bias, {columns}), as(got, {rows, columns}));
      add_bias(reference, as(bias, {columns}), as(expected, {rows, columns}));
      CHECK(got == expected);
      scale(backend, as(got, {rows * columns}), -0.3f);
      scale(reference, as(expected, {rows * columns}), -0.3f);
      CHECK(got == expected);
      auto sum = bias;
      auto expected_sum = converted<double>(bias);
      add_bias_backward(backend, as(y, {rows, columns}), as(sum, {columns}));
      add_bias_backward(reference, as(converted<double>(y), {rows, columns}), as(expected_sum, {columns}));
      CHECK(relative_difference(sum, expected_sum) < 1e-6);
    }
}

TEST_CASE("cpu elementwise: sums and sums of rows have the bits of plain loops, for any number of threads") {
  for (index_t const columns : {1, 5, 16, 100, 50001})
    for (index_t const rows : {0, 1, 3, 8}) {
      CAPTURE(columns, rows);
      auto const x = random_floats(rows * columns, 5), y = random_floats(columns, 6);
      auto const both = [&](auto& backend) {
        auto sum = y, more = y;
        sum_rows(backend, as(x, {rows, columns}), as(sum, {columns}));
        add(backend, as(sum, {columns}), as(more, {columns}));
        sum.insert(sum.end(), more.begin(), more.end());
        return sum;
      };
      reference_backend reference;
      cpu_backend one({.threads = 1});
      CHECK(same_bits(both(one), both(reference)));
      CHECK(same_for_any_threads([&](cpu_backend& b) { return both(b); }));
    }
}

TEST_CASE("cpu elementwise: other precisions have the bits of plain loops, for any number of threads") {
  for (index_t const count : {0, 1, 17, 100003}) {
    auto const x = random_floats(count, 7);
    auto const both_ways = [&](auto& backend) {
      std::vector<bf16> half(x.size());
      std::vector<float> back(x.size());
      convert(backend, as(x, {count}), as(half, {count}));
      convert(backend, as(half, {count}), as(back, {count}));
      return back;
    };
    reference_backend reference;
    cpu_backend one({.threads = 1});
    CHECK(same_bits(both_ways(one), both_ways(reference)));
    CHECK(same_for_any_threads([&](cpu_backend& b) { return both_ways(b); }));
  }
}

TEST_CASE(
    "cpu elementwise: the sum of squares is that of plain loops and has the same bits for any number of threads") {
  for (index_t const count : {0, 1, 7, 8, 1000, 200001}) {
    auto x = random_floats(count, 3);
    cpu_backend one({.threads = 1}), three({.threads = 3});
    reference_backend reference;
    double const expected = sum_of_squares(reference, as(converted<double>(x), {count}));
    double const got = sum_of_squares(one, as(x, {count}));
    CHECK(got == Approx(expected).epsilon(1e-12));
    CHECK(sum_of_squares(three, as(x, {count})) == got);
    if (count == 0) continue;
    x.back() = NAN;
    CHECK(std::isnan(sum_of_squares(three, as(x, {count}))));
    x.back() = INFINITY;
    CHECK(std::isinf(sum_of_squares(three, as(x, {count}))));
  }
}

TEST_CASE("cpu elementwise: a bias gradient has the same bits for any number of threads") {
  auto const dy = random_floats(1000 * 100, 4);
  CHECK(same_for_any_threads([&](cpu_backend& b) {
    std::vector<float> sum(100);
    add_bias_backward(b, as(dy, {1000, 100}), as(sum, {100}));
    return sum;
  }));
}

}  // namespace elementwise_test
