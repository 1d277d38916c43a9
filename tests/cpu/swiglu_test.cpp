#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace swiglu_test {
namespace {

template <class B, class T>
std::array<std::vector<T>, 2> run(B& backend, std::vector<T> const& gate_up, std::vector<T> const& dy, index_t ffn) {
  index_t const rows = index_t(dy.size()) / ffn;
  std::vector<T> y(dy.size()), d = gate_up;
  swiglu(backend, as(gate_up, {rows, 2 * ffn}), as(y, {rows, ffn}));
  // in place, as the contract allows
  swiglu_backward(backend, as(d, {rows, 2 * ffn}), as(dy, {rows, ffn}), as(d, {rows, 2 * ffn}));
  return {y, d};
}

}  // namespace

TEST_CASE("cpu swiglu: agrees with plain loops on ragged rows and large gates") {
  for (index_t const ffn : {1, 3, 16, 31, 150})
    for (index_t const rows : {1, 2, 17, 64}) {
      CAPTURE(ffn, rows);
      cpu_backend backend({.threads = 2});
      reference_backend reference;
      auto const gate_up = random_values(rows * 2 * ffn, 1, 5), dy = random_values(rows * ffn, 2);
      auto const expected = run(reference, gate_up, dy, ffn);
      auto const got = run(backend, converted<float>(gate_up), converted<float>(dy), ffn);
      CHECK(relative_difference(got[0], expected[0]) < 1e-6);
      CHECK(relative_difference(got[1], expected[1]) < 1e-6);
    }
  cpu_backend backend;
  std::vector<float> const gate_up{-200, 200, 2, 2};
  std::vector<float> y(2);
  swiglu(backend, as(gate_up, {1, 4}), as(y, {1, 2}));
  CHECK(y[0] == 0);
  CHECK(y[1] == 400);
}

TEST_CASE("cpu swiglu: the same bits for any number of threads, and for a row alone") {
  index_t const ffn = 100, rows = 500;
  auto const gate_up = random_floats(rows * 2 * ffn, 3), dy = random_floats(rows * ffn, 4);
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(same_for_any_threads([&](cpu_backend& b) { return run(b, gate_up, dy, ffn)[i]; }));
  cpu_backend backend;
  auto const all = run(backend, gate_up, dy, ffn)[0];
  auto const last = run(backend, std::vector<float>(gate_up.end() - 2 * ffn, gate_up.end()),
                        std::vector<float>(dy.end() - ffn, dy.end()), ffn)[0];
  CHECK(same_bits(last, std::vector<float>(all.end() - ffn, all.end())));
}

}  // namespace swiglu_test
