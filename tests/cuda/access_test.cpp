// How kernels reach memory, counted by the tracer: whole sectors of device memory and no conflicts between the banks of
// shared memory, for rows that vectors divide.
#include "cuda/both_backends.hpp"

#if defined(ATMANRL_CUDA_EMULATION)
#  include "cuda_emulation/trace.hpp"

using namespace atmanrl_test;

namespace {

bool const traced = cuda_emulation::trace::take_lines != nullptr;

/// Lines that move more than `most` times what their bytes need, as one sentence each. Small arrays, such as the states
/// of a few rows, do not matter.
std::vector<std::string> wasteful(auto const& run, double most = 1.25) {
  (void)cuda_emulation::trace::take_lines();
  run();
  std::vector<std::string> found;
  std::size_t counted = 0;
  for (auto const& l : cuda_emulation::trace::take_lines()) {
    if (l.requests < 10) continue;
    counted += l.requests;
    if (l.excess() > (l.shared ? 1.0 : most))
      found.push_back(fmt::format("{}: {} {}s of {} memory move {} {} where {} would do", l.place, l.requests,
                                  l.write ? "write" : "read", l.shared ? "shared" : "device", l.transfers,
                                  l.shared ? "passes" : "sectors", l.ideal));
  }
  if (counted == 0) found.push_back("no access was counted");
  return found;
}

std::vector<std::string> const nothing;

}  // namespace

TEST_CASE("cuda accesses: norms, activations, rotations and rows move whole sectors") {
  if (!traced) return;
  cuda_backend b;
  inputs<cuda_backend, float> const in(b);
  index_t const rows = 3, dim = 1024;
  auto const x = in.random({rows, dim}, 1), dy = in.random({rows, dim}, 2), gate_up = in.random({rows, 2 * dim}, 3);
  auto const cosine = in.random({8, 32}, 5), sine = in.random({8, 32}, 6);
  auto const gain = in.random({dim}, 4);
  auto const ids = in.ids({2, 0, 2});
  auto y = in.empty({rows, dim}), dx = in.random({rows, dim}, 7), dgate_up = in.empty({rows, 2 * dim});
  auto inv_rms = in.empty({rows}), dgain = in.random({dim}, 8);
  auto heads = in.random({rows, 16, 64}, 9);
  CHECK(wasteful([&] { rms_norm(b, x.cview(), gain.cview(), 1e-5f, y.view(), inv_rms.view()); }) == nothing);
  CHECK(wasteful([&] { rms_norm_recompute(b, x.cview(), gain.cview(), inv_rms.cview(), y.view()); }) == nothing);
  CHECK(wasteful([&] {
          rms_norm_backward(b, x.cview(), gain.cview(), inv_rms.cview(), dy.cview(), dx.view(), dgain.view());
        }) == nothing);
  CHECK(wasteful([&] { swiglu(b, gate_up.cview(), y.view()); }) == nothing);
  CHECK(wasteful([&] { swiglu_backward(b, gate_up.cview(), dy.cview(), dgate_up.view()); }) == nothing);
  CHECK(wasteful([&] { rope(b, heads.view(), 12, ids.cview(), cosine.cview(), sine.cview()); }) == nothing);
  CHECK(wasteful([&] { gather_rows(b, x.cview(), ids.cview(), y.view()); }) == nothing);
  CHECK(wasteful([&] { add_rows(b, dy.cview(), ids.cview(), dx.view()); }) == nothing);
  CHECK(wasteful([&] { add_bias(b, gain.cview(), dx.view()); }) == nothing);
  CHECK(wasteful([&] { add_bias_backward(b, dy.cview(), dgain.view()); }) == nothing);
  CHECK(wasteful([&] { copy_columns(b, gate_up.cview(), dim, y.view(), 0, dim); }) == nothing);
}

TEST_CASE("cuda accesses: flat arrays, weights and logits move whole sectors") {
  if (!traced) return;
  cuda_backend b;
  inputs<cuda_backend, float> const in(b);
  index_t const size = 4096;
  auto p = in.random({size}, 1), m = in.random({size}, 2), v = in.empty({size});
  auto const g = in.random({size}, 3);
  auto const wide = in.random({64, 64}, 4), h = in.random({3, 64}, 5);
  auto log_p = in.empty({3}), lse = in.empty({3}), entropy = in.empty({3});
  auto dh = in.empty({3, 64});
  auto const ids = in.ids({2, 0, 63});
  v.fill_zero();
  weight<cuda_backend, bf16> w(b, 64, 64), head(b, 1024, 64);
  log_prob_scratch<cuda_backend, float> scratch;
  CHECK(wasteful([&] { adamw_step(b, p.view(), g.cview(), m.view(), v.view(), {}, 1); }) == nothing);
  CHECK(wasteful([&] { scale(b, p.view(), 2.0f); }) == nothing);
  CHECK(wasteful([&] { (void)sum_of_squares(b, p.view()); }) == nothing);
  CHECK(wasteful([&] { w.assign_rows(b, 0, wide.cview()); }) == nothing);
  CHECK(wasteful([&] { matmul(b, wide.cview(), w.view(), in.empty({64, 64}).view()); }) == nothing);
  CHECK(wasteful([&] {
          log_prob(b, h.cview(), head.view(), ids.cview(), 1, scratch, log_p.view(), lse.view(), entropy.view());
        }) == nothing);
  CHECK(wasteful([&] {
          log_prob_backward(b, h.cview(), head.view(), ids.cview(), 1, scratch, lse.cview(), log_p.cview(),
                            entropy.cview(), log_p.cview(), dh.view(), {});
        }) == nothing);
}
#endif
