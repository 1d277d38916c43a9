#pragma once
// A kernel's result may not depend on the order in which its threads run: the tests run it in several.
#include <atmanrl/cuda/compat.cuh>

#include <cstring>
#include <vector>

namespace atmanrl_test {

/// Whether f(), a vector, has the same bits in every order of threads and blocks, and when it is repeated.
template <class F>
bool same_in_every_thread_order(F const& f) {
#if defined(ATMANRL_CUDA_TRACED)
  // The tracer sees a race in whatever order the threads run, and takes twenty times as long; orders are the other
  // leg's.
  f();
  return true;
#else
  auto const expected = f();
  auto const same = [&](auto const& got) {
    return got.size() == expected.size() &&
           (got.empty() || std::memcmp(got.data(), expected.data(), got.size() * sizeof(got[0])) == 0);
  };
#  if defined(ATMANRL_CUDA_EMULATION)
  using order = cuda_emulation::thread_order;
  order const before = cuda_emulation::options().order;
  bool all = true;
  for (order const o : {order::ascending, order::descending, order::random}) {
    cuda_emulation::options().order = o;
    all = same(f()) && all;
  }
  cuda_emulation::options().order = before;
  return all;
#  else
  return same(f()) && same(f());
#  endif
#endif
}

}  // namespace atmanrl_test
