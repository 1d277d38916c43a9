// Masks that gate scores instead of adding to them, against their definitions and exact derivatives.
#include <atmanrl/attention/multiplicative_gate.hpp>
#include <atmanrl/attention/sigmoid_gate.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "attention/problem.hpp"
#include "catch.hpp"

using namespace atmanrl_test;

namespace gates_test {
namespace {

/// Two rollouts of 4 and 3 CoT tokens under one prompt of 3, and a sequence without a mask.
std::vector<node> tree() { return {{-1, 0, 3, -1}, {0, 0, 8, 0}, {0, 0, 7, 1}, {-1, 0, 4, 2}}; }
std::vector<mask_extent> masks(mask_shape shape, mask_rows rows) {
  mask_extent const first = make_mask_extent(shape, rows, 3, 7, 11, 0);
  return {first, make_mask_extent(shape, rows, 3, 6, 10, first.count)};
}

template <class B>
attention::multiplicative_gate<B> multiplicative(B& backend, mask_shape shape, mask_rows rows) {
  attention::multiplicative_gate<B> gate;
  gate.assign(backend, shape, masks(shape, rows), {});
  return gate;
}
template <class B>
attention::sigmoid_gate<B> sigmoid(B& backend, mask_shape shape, mask_rows rows) {
  attention::sigmoid_gate<B> gate;
  gate.assign(backend, shape, masks(shape, rows), {}, 3.0f);
  return gate;
}

/// Values below, between, above and at both ends of [0, 1].
std::vector<double> values(index_t count) {
  auto v = random_values(count, 31, 0.6);
  for (double& x : v) x += 0.4;
  v[0] = 0;
  v[1] = 1;
  v[2] = -2;
  v[3] = 7;
  return v;
}

template <class F>
void for_each_place(F&& f) {
  for (mask_shape const shape : {mask_shape::pair, mask_shape::column})
    for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
      CAPTURE(int(shape), int(rows));
      f(shape, rows);
    }
}

}  // namespace

TEST_CASE("gates: the weight of an allowed key is exp(g S) or g exp(S), by the definition") {
  reference_backend b;
  tree_problem const p(tree(), 4, 2, 3);
  for_each_place([&](mask_shape shape, mask_rows rows) {
    auto const extents = masks(shape, rows);
    auto const check = [&](auto const& gate, auto const& edited) {
      auto const v = values(gate.parameter_count());
      auto const expected = p.naive([&](std::vector<double>& s, int, int n, int w) {
        int const tag = tree()[std::size_t(n)].tag;
        if (tag < 0 || tag > 1) return;
        mask_extent const& e = extents[std::size_t(tag)];
        if (w < e.first_row || w > e.last_row) return;
        for (int key = e.cot_begin; key < e.cot_end && key <= w; ++key) {
          index_t const entry = shape == mask_shape::pair ? e.row_offset(w) : 0;
          s[std::size_t(key)] = edited(s[std::size_t(key)], v[std::size_t(e.offset + entry + key - e.cot_begin)]);
        }
      });
      CHECK(relative_difference(p.forward(p.qkv, gate.params(), v, b).out, expected) < 1e-12);
    };
    check(multiplicative(b, shape, rows), [](double s, double v) { return s * std::min(std::max(v, 0.0), 1.0); });
    check(sigmoid(b, shape, rows), [](double s, double v) { return std::log(std::exp(s) / (1 + std::exp(-3 * v))); });
  });
}

TEST_CASE("gates: gradients of parameters and of q, k, v agree with the complex step") {
  reference_backend b;
  tree_problem const p(tree(), 4, 2, 3);
  for_each_place([&](mask_shape shape, mask_rows rows) {
    auto const check = [&](auto const& gate) {
      auto const v = values(gate.parameter_count());
      auto const loss = [&](std::vector<complex> const& x, std::vector<complex> const& at) {
        return weighted_sum(p.forward(x, gate.params(), at).out, p.dout);
      };
      auto const g = p.backward(p.qkv, gate.params(), v);
      CHECK(relative_difference(g.dparameters, complex_step_gradient(v, [&](auto const& at) {
                                  return loss(converted<complex>(p.qkv), at);
                                })) < 1e-12);
      CHECK(relative_difference(g.dqkv, complex_step_gradient(p.qkv, [&](auto const& at) {
                                  return loss(at, converted<complex>(v));
                                })) < 1e-12);
      return g.dparameters;
    };
    auto const g = check(multiplicative(b, shape, rows));
    CHECK(g[0] != 0);  // at either end the derivative passes, outside it is exactly 0
    CHECK(g[1] != 0);
    CHECK(g[2] == 0);
    CHECK(g[3] == 0);
    for (double const x : check(sigmoid(b, shape, rows))) CHECK(x != 0);
  });
}

TEST_CASE("gates: cpu_backend agrees with the plain loops in both passes") {
  reference_backend plain;
  cpu_backend fast({.threads = 2});
  tree_problem const p(tree(), 6, 2, 24);
  auto const x = converted<float>(p.qkv);
  for_each_place([&](mask_shape shape, mask_rows rows) {
    auto const check = [&](auto const& exact, auto const& gate) {
      auto const v = values(exact.parameter_count());
      auto const vf = converted<float>(v);
      CHECK(relative_difference(p.forward(x, gate.params(), vf, fast).out, p.forward(p.qkv, exact.params(), v).out) <
            1e-5);
      auto const got = p.backward(x, gate.params(), vf, fast);
      auto const expected = p.backward(p.qkv, exact.params(), v);
      CHECK(relative_difference(got.dqkv, expected.dqkv) < 1e-5);
      CHECK(relative_difference(got.dparameters, expected.dparameters) < 1e-5);
    };
    check(multiplicative(plain, shape, rows), multiplicative(fast, shape, rows));
    check(sigmoid(plain, shape, rows), sigmoid(fast, shape, rows));
  });
}

TEST_CASE("multiplicative_gate: a gate of 1 gives the unmasked output bit for bit") {
  reference_backend b;
  tree_problem const p(tree(), 4, 2, 3);
  auto const gate = multiplicative(b, mask_shape::pair, mask_rows::all_later);
  std::vector<double> const open(std::size_t(gate.parameter_count()), 1.0);
  CHECK(p.forward(p.qkv, gate.params(), open).out == p.forward(p.qkv, attention::none{}.params()).out);
}

TEST_CASE("log_sigmoid: it neither overflows nor loses its tail, and its derivative is 1 - sigmoid") {
  CHECK(attention::log_sigmoid(0.0) == Approx(-std::log(2.0)));
  CHECK(attention::log_sigmoid(-1e4) == -1e4);
  CHECK(attention::log_sigmoid(1e4) == 0);
  CHECK(attention::log_sigmoid(-200.0f) == -200.0f);
  CHECK(attention::log_sigmoid(200.0f) == 0);
  CHECK(attention::log_sigmoid(4.0) == Approx(-0.018149927917).epsilon(1e-9));
  CHECK(std::isnan(attention::log_sigmoid(double(NAN))));
  for (double const x : {-30.0, -1.5, 0.0, 0.7, 12.0})
    CHECK(attention::log_sigmoid(dual<double>{x, 1}).derivative == Approx(1 / (1 + std::exp(x))));
}

}  // namespace gates_test
