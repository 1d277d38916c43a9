#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace rope_test {
namespace {

struct problem {
  index_t rows, heads, rotated, dim;
  std::vector<double> x = random_values(rows * heads * dim, 1), cosine = random_values(50 * dim / 2, 2),
                      sine = random_values(50 * dim / 2, 3);

  template <class T, class B>
  std::vector<T> run(B& backend, rotation direction) const {
    std::vector<T> y = converted<T>(x);
    std::vector<T> const c = converted<T>(cosine), s = converted<T>(sine);
    std::vector<int> positions;
    for (index_t r = 0; r < rows; ++r) positions.push_back(int(r * 7 % 50));
    rope(backend, as(y, {rows, heads, dim}), rotated, std::span<int const>(positions), as(c, {50, dim / 2}),
         as(s, {50, dim / 2}), direction);
    return y;
  }
};

}  // namespace

TEST_CASE("cpu rope: both directions agree with plain loops, and the other heads stay as they are") {
  for (index_t const dim : {2, 8, 34, 64, 128})
    for (index_t const rows : {1, 3, 17, 64}) {
      CAPTURE(dim, rows);
      problem const p{rows, 5, 3, dim};
      cpu_backend backend({.threads = 2});
      reference_backend reference;
      for (rotation const direction : {rotation::forward, rotation::inverse})
        CHECK(relative_difference(p.run<float>(backend, direction), p.run<double>(reference, direction)) < 1e-6);
    }
}

TEST_CASE("cpu rope: the same bits for any number of threads") {
  problem const p{300, 12, 9, 64};
  CHECK(same_for_any_threads([&](cpu_backend& b) { return p.run<float>(b, rotation::forward); }));
}

}  // namespace rope_test
