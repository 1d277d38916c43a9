#pragma once
// What the tests of the CPU backend ask: the same bits from one thread as from several, and from a row alone as from a
// batch.
#include <atmanrl/cpu/cpu_backend.hpp>

#include "gradient_check.hpp"

#include <cstring>
#include <vector>

namespace atmanrl_test {

inline std::vector<float> random_floats(std::ptrdiff_t count, unsigned seed, double scale = 1) {
  return converted<float>(random_values(count, seed, scale));
}

/// Whether all elements have the same bits, signs of zeros and NaNs included.
template <class A, class B>
bool same_bits(A const& a, B const& b) {
  return std::size(a) == std::size(b) && std::memcmp(std::data(a), std::data(b), std::size(a) * sizeof(float)) == 0;
}

/// Runs `f(backend)` with 1, 2, 3 and 7 threads and says whether the results, vectors of floats, have the same bits.
template <class F>
bool same_for_any_threads(F const& f, atmanrl::bf16_products products = atmanrl::bf16_products::by_processor) {
  atmanrl::cpu_backend one({.threads = 1, .products = products});
  auto const expected = f(one);
  for (int threads : {2, 3, 7}) {
    atmanrl::cpu_backend several({.threads = threads, .products = products});
    if (!same_bits(f(several), expected)) return false;
  }
  return true;
}

}  // namespace atmanrl_test
