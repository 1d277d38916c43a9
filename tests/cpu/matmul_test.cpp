#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace matmul_test {
namespace {

struct shape {
  index_t outputs, inputs;
};
// Multiples of a panel, ragged ones, one bigger than the blocks that the kernels cut, and the smallest.
std::vector<shape> const shapes{{1, 1}, {5, 7}, {32, 32}, {33, 31}, {64, 100}, {100, 64}, {130, 45}, {1060, 70}};
std::vector<index_t> const row_counts{1, 2, 3, 15, 17, 64, 130};

// One weight on the CPU backend and, in double, on the reference backend.
template <class W>
struct problem {
  index_t outputs, inputs;
  cpu_backend backend;
  reference_backend reference;
  weight<cpu_backend, W> w{backend, outputs, inputs};
  weight<reference_backend, double> expected_w{reference, outputs, inputs};

  explicit problem(shape s, int threads = 2, bool exact = true)
      : outputs(s.outputs), inputs(s.inputs), backend({.threads = threads, .exact_activations = exact}) {
    auto const rows = random_floats(outputs * inputs, 1);
    w.assign_rows(backend, 0, as(rows, {outputs, inputs}));
    std::vector<double> rounded(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) rounded[i] = float(W(rows[i]));
    expected_w.assign_rows(reference, 0, as(rounded, {outputs, inputs}));
  }

  std::vector<float> forward(std::vector<float> const& x, std::vector<float> y, store how) {
    matmul(backend, as(x, {index_t(x.size()) / inputs, inputs}), w.view(), as(y, {index_t(x.size()) / inputs, outputs}),
           how);
    return y;
  }
  std::vector<float> backward_input(std::vector<float> const& dy, std::vector<float> dx, store how) {
    matmul_backward_input(backend, as(dy, {index_t(dy.size()) / outputs, outputs}), w.view(),
                          as(dx, {index_t(dy.size()) / outputs, inputs}), how);
    return dx;
  }
  std::vector<float> backward_weight(std::vector<float> const& dy, std::vector<float> const& x, std::vector<float> dw) {
    index_t const rows = index_t(x.size()) / inputs;
    matmul_backward_weight(backend, as(dy, {rows, outputs}), as(x, {rows, inputs}), as(dw, {outputs, inputs}));
    return dw;
  }
};

}  // namespace

TEMPLATE_TEST_CASE("cpu matmul: the three products agree with plain loops on ragged shapes", "", float, bf16) {
  for (shape const s : shapes) {
    problem<TestType> p(s);
    for (index_t const rows : row_counts) {
      CAPTURE(s.outputs, s.inputs, rows);
      auto const x = random_floats(rows * s.inputs, 2), dy = random_floats(rows * s.outputs, 3),
                 dw = random_floats(s.outputs * s.inputs, 4);
      for (store const how : {store::overwrite, store::add}) {
        auto expected_y = converted<double>(dy), expected_dx = converted<double>(x);
        matmul(p.reference, as(converted<double>(x), {rows, s.inputs}), p.expected_w.view(),
               as(expected_y, {rows, s.outputs}), how);
        CHECK(relative_difference(p.forward(x, dy, how), expected_y) < 2e-6);
        matmul_backward_input(p.reference, as(converted<double>(dy), {rows, s.outputs}), p.expected_w.view(),
                              as(expected_dx, {rows, s.inputs}), how);
        CHECK(relative_difference(p.backward_input(dy, x, how), expected_dx) < 2e-6);
      }
      auto expected_dw = converted<double>(dw);
      matmul_backward_weight(p.reference, as(converted<double>(dy), {rows, s.outputs}),
                             as(converted<double>(x), {rows, s.inputs}), as(expected_dw, {s.outputs, s.inputs}));
      CHECK(relative_difference(p.backward_weight(dy, x, dw), expected_dw) < 2e-6);
    }
  }
}

TEMPLATE_TEST_CASE("cpu matmul: a row has the same bits alone as in any batch", "", float, bf16) {
  bool const exact = GENERATE(false, true);
  for (shape const s : {shape{100, 64}, shape{33, 1031}, shape{64, 576}}) {
    problem<TestType> p(s, 2, exact);
    auto const x = random_floats(130 * s.inputs, 5), y = random_floats(130 * s.outputs, 6);
    for (store const how : {store::overwrite, store::add}) {
      std::vector<float> one_by_one;
      for (index_t r = 0; r < 130; ++r) {
        auto const row = p.forward({x.begin() + r * s.inputs, x.begin() + (r + 1) * s.inputs},
                                   {y.begin() + r * s.outputs, y.begin() + (r + 1) * s.outputs}, how);
        one_by_one.insert(one_by_one.end(), row.begin(), row.end());
      }
      for (index_t rows = 1; rows <= 130; rows = rows < 40 ? rows + 1 : rows + 30) {
        CAPTURE(s.outputs, s.inputs, rows);
        auto const batch =
            p.forward({x.begin(), x.begin() + rows * s.inputs}, {y.begin(), y.begin() + rows * s.outputs}, how);
        CHECK(same_bits(batch, std::vector<float>(one_by_one.begin(), one_by_one.begin() + rows * s.outputs)));
      }
    }
  }
}

TEMPLATE_TEST_CASE("cpu matmul: all three products have the same bits for any number of threads", "", float, bf16) {
  bool const exact = GENERATE(false, true);
  for (shape const s : {shape{200, 576}, shape{1100, 100}}) {
    for (index_t const rows : {1, 9, 300}) {
      CAPTURE(s.outputs, s.inputs, rows);
      auto const x = random_floats(rows * s.inputs, 7), dy = random_floats(rows * s.outputs, 8);
      CHECK(same_for_any_threads(
          [&](cpu_backend& b) { return problem<TestType>(s, b.threads(), exact).forward(x, dy, store::add); }));
      CHECK(same_for_any_threads(
          [&](cpu_backend& b) { return problem<TestType>(s, b.threads(), exact).backward_input(dy, x, store::add); }));
      CHECK(same_for_any_threads([&](cpu_backend& b) {
        return problem<TestType>(s, b.threads(), exact)
            .backward_weight(dy, x, std::vector<float>(std::size_t(s.outputs * s.inputs), 1.0f));
      }));
    }
  }
}

TEST_CASE("cpu matmul: by default bf16 products are those of the rounded factors, with the bits of the bit rule") {
  for (shape const s : shapes) {
    problem<bf16> p(s);
    cpu_backend rounding({.threads = 2});
    auto const forward = [&](cpu_backend& b, std::vector<float> const& x) {
      index_t const rows = index_t(x.size()) / s.inputs;
      std::vector<float> y(std::size_t(rows * s.outputs));
      matmul(b, as(x, {rows, s.inputs}), p.w.view(), as(y, {rows, s.outputs}));
      return y;
    };
    auto const backward = [&](cpu_backend& b, std::vector<float> const& dy) {
      index_t const rows = index_t(dy.size()) / s.outputs;
      std::vector<float> dx(std::size_t(rows * s.inputs));
      matmul_backward_input(b, as(dy, {rows, s.outputs}), p.w.view(), as(dx, {rows, s.inputs}));
      return dx;
    };
    for (index_t const rows : row_counts) {
      CAPTURE(s.outputs, s.inputs, rows);
      auto x = random_floats(rows * s.inputs, 13), dy = random_floats(rows * s.outputs, 14);
      auto const y = forward(rounding, x), dx = backward(rounding, dy);
      cpu_backend one({.threads = 1});
      CHECK(same_bits(forward(one, {x.end() - s.inputs, x.end()}), std::vector<float>(y.end() - s.outputs, y.end())));
      CHECK(same_bits(backward(one, dy), dx));
      if (rounding.products() != bf16_products::floats) {
        for (float& v : x) v = float(bf16(v));
        for (float& v : dy) v = float(bf16(v));
      }
      CHECK(relative_difference(y, p.forward(x, y, store::overwrite)) < 3e-6);
      CHECK(relative_difference(dx, p.backward_input(dy, dx, store::overwrite)) < 3e-6);
    }
  }
}

TEST_CASE("cpu matmul: the weight gradient of micro-batches in order has the bits of the whole batch's") {
  problem<float> p({70, 45});
  auto const x = random_floats(700 * 45, 9), dy = random_floats(700 * 70, 10);
  auto const whole = p.backward_weight(dy, x, std::vector<float>(70 * 45));
  std::vector<float> parts(70 * 45);
  for (index_t r = 0; r < 700; r += 100)
    parts = p.backward_weight({dy.begin() + r * 70, dy.begin() + (r + 100) * 70},
                              {x.begin() + r * 45, x.begin() + (r + 100) * 45}, parts);
  CHECK(same_bits(parts, whole));
}

TEST_CASE("cpu matmul: weight gradients of every number of outputs, so that tiles of every height stand side by side") {
  index_t const rows = 21, inputs = 5;
  for (index_t outputs = 1; outputs <= 60; ++outputs) {
    CAPTURE(outputs);
    problem<float> p({outputs, inputs});
    auto const x = random_floats(rows * inputs, 11), dy = random_floats(rows * outputs, 12);
    std::vector<double> expected(std::size_t(outputs * inputs));
    matmul_backward_weight(p.reference, as(converted<double>(dy), {rows, outputs}),
                           as(converted<double>(x), {rows, inputs}), as(expected, {outputs, inputs}));
    CHECK(relative_difference(p.backward_weight(dy, x, std::vector<float>(expected.size())), expected) < 2e-6);
  }
}

TEMPLATE_TEST_CASE("cpu weight: rows go in anywhere, rounded once, and come back", "", float, bf16) {
  for (shape const s : {shape{100, 45}, shape{32, 64}, shape{3, 1}}) {
    for (int const threads : {1, 3}) {
      cpu_backend backend({.threads = threads});
      auto const all = random_floats(s.outputs * s.inputs, 11);
      weight<cpu_backend, TestType> w(backend, s.outputs, s.inputs);
      for (index_t first = 0; first < s.outputs;) {
        index_t const count = std::min<index_t>(first % 7 + 1 + first, s.outputs - first);
        w.assign_rows(backend, first, as(all, {s.outputs, s.inputs}).rows(first, count));
        first += count;
      }
      std::vector<float> expected = all, back(all.size());
      for (float& x : expected) x = float(TestType(x));
      w.read_rows(backend, 0, as(back, {s.outputs, s.inputs}));
      CHECK(same_bits(back, expected));
      index_t const first = s.outputs / 3, count = s.outputs - first - s.outputs / 4;
      std::vector<float> some(std::size_t(count * s.inputs));
      w.read_rows(backend, first, as(some, {count, s.inputs}));
      CHECK(same_bits(some, std::vector<float>(expected.begin() + first * s.inputs,
                                               expected.begin() + (first + count) * s.inputs)));
    }
  }
}

TEMPLATE_TEST_CASE("cpu weight: a view of some rows multiplies by those alone and writes nowhere else", "", float,
                   bf16) {
  problem<TestType> p({100, 40});
  auto const x = random_floats(5 * 40, 12);
  auto const whole = p.forward(x, std::vector<float>(500), store::overwrite);
  for (auto const& [first, count] :
       std::vector<std::pair<index_t, index_t>>{{32, 32}, {64, 36}, {32, 45}, {96, 3}, {0, 100}}) {
    CAPTURE(first, count);
    std::vector<float> part(std::size_t(5 * count + 64), -1.0f);
    matmul(p.backend, as(x, {5, 40}), p.w.view().rows(first, count), as(part, {5, count}));
    for (index_t r = 0; r < 5; ++r)
      for (index_t o = 0; o < count; ++o)
        REQUIRE(part[std::size_t(r * count + o)] == whole[std::size_t(r * 100 + first + o)]);
    CHECK(std::count(part.end() - 64, part.end(), -1.0f) == 64);
  }
  CHECK_THROWS_WITH(p.w.view().rows(16, 20), ATMANRL_CONTAINS("the first must be a multiple of 32"));
}

TEST_CASE("cpu weight: values that are not finite stay what they are in bf16") {
  cpu_backend backend;
  weight<cpu_backend, bf16> w(backend, 4, 1);
  std::vector<float> const in{INFINITY, -INFINITY, NAN, 3.3895e38f};
  std::vector<float> out(4);
  w.assign_rows(backend, 0, as(in, {4, 1}));
  w.read_rows(backend, 0, as(out, {4, 1}));
  CHECK(out[0] == INFINITY);
  CHECK(out[1] == -INFINITY);
  CHECK(std::isnan(out[2]));
  CHECK(out[3] == float(bf16(3.3895e38f)));
}

TEST_CASE("cpu_backend: threads come from the options, and an impossible number is a usage error") {
  CHECK(cpu_backend({.threads = 3}).threads() == 3);
  CHECK(cpu_backend().threads() >= 1);
  CHECK_THROWS_AS(cpu_backend({.threads = -1}), usage_error);
}

}  // namespace matmul_test
