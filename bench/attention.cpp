// Attention of the CPU backend at the shape of SmolLM2-135M (9 query heads, 3 key-value heads of 64): GFLOP/s of the
// products alone (2 forward, 5 backward), and their share of what the machine can do.
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include <benchmark/benchmark.h>

#include "machine.hpp"

using namespace atmanrl;

namespace {

struct setting {
  cpu_backend backend;
  atmanrl_bench::machine machine = atmanrl_bench::measure(backend);
};

// A prompt and `rollouts` sequences that see it; `cached` tokens of each are there already, `fresh` are new.
struct problem {
  attention_extents extents{0, 9, 3, 64};
  std::vector<attention_sequence> sequences;
  std::vector<attention_segment> segments;
  std::vector<int> trees{0};
  int rows = 0, cache = 0, longest = 0;
  double pairs = 0;

  problem(int prompt, bool prompt_is_new, int rollouts, int cached, int fresh) {
    attention_segment const shared{0, 0, prompt, prompt_is_new ? 0 : -1};
    cache = prompt;
    if (prompt_is_new) add({shared}, prompt, 0, -1);
    for (int i = 0; i < rollouts; ++i) {
      std::vector<attention_segment> path;
      if (prompt > 0) path.push_back(shared);
      if (cached > 0) path.push_back({cache, prompt, cached, -1});
      path.push_back({cache + cached, prompt + cached, fresh, rows});
      cache += cached + fresh;
      add(path, fresh, prompt + cached, i);
    }
    trees.push_back(int(sequences.size()));
  }
  void add(std::vector<attention_segment> const& path, int fresh, int position, int tag) {
    sequences.push_back({rows, fresh, position, int(segments.size()), int(path.size()), tag});
    segments.insert(segments.end(), path.begin(), path.end());
    rows += fresh;
    longest = std::max(longest, position + fresh);
    for (int r = 0; r < fresh; ++r) pairs += position + r + 1;
  }
  attention_plan<> plan() const {
    return {{sequences.data(), {index_t(sequences.size())}},
            {segments.data(), {index_t(segments.size())}},
            {trees.data(), {index_t(trees.size())}},
            longest};
  }
};

tensor<cpu_backend, float, 3> filled(cpu_backend& b, index_t rows, index_t heads, int period) {
  tensor<cpu_backend, float, 3> t(b, {rows, heads, 64});
  for (index_t i = 0; i < t.size(); ++i) t.data()[i] = float(i % period) / float(period) - 0.5f;
  return t;
}

template <class Params>
void run(benchmark::State& state, setting& s, problem const& p, Params params, std::vector<float> const& values,
         bool backward) {
  cpu_backend& b = s.backend;
  auto const qkv = filled(b, p.rows, 15, 89), keys = filled(b, p.cache, 3, 97), v = filled(b, p.cache, 3, 83);
  auto out = filled(b, p.rows, 9, 3), dout = filled(b, p.rows, 9, 79), dqkv = filled(b, p.rows, 15, 3);
  tensor<cpu_backend, float, 2> lse(b, {p.rows, 9});
  auto dvalues = tensor<cpu_backend, float, 2>::zeros(b, {3, index_t(values.size())});
  auto const forward = [&] {
    attention_forward(b, p.extents, qkv.cview(), keys.cview(), v.cview(), p.plan(), params, values.data(), out.view(),
                      lse.view());
  };
  forward();
  double best = 1e9;
  for (auto _ : state) {
    double const start = atmanrl_bench::now();
    if (!backward)
      forward();
    else
      attention_backward(b, p.extents, qkv.cview(), keys.cview(), v.cview(), p.plan(), params, values.data(),
                         out.cview(), lse.cview(), dout.cview(), dqkv.view(), dvalues.view());
    double const seconds = atmanrl_bench::now() - start;
    state.SetIterationTime(seconds);
    best = std::min(best, seconds);
  }
  double const flops = p.pairs * 9 * 64 * 2 * (backward ? 5 : 2);
  state.counters["best_us"] = best * 1e6;
  state.counters["GFLOP/s"] = flops / best * 1e-9;
  state.counters["of_peak"] = flops / best / s.machine.flops;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  setting s;
  auto const add = [&](std::string const& name, problem const& p, bool backward) {
    benchmark::RegisterBenchmark(
        name.c_str(),
        [&s, p, backward](benchmark::State& state) { run(state, s, p, attention::none::params_type{}, {}, backward); })
        ->UseManualTime()
        ->MinTime(0.2)
        ->Unit(benchmark::kMicrosecond);
  };
  add("forward/decode 1 x 500", {0, false, 1, 499, 1}, false);
  add("forward/decode 8 x (128 shared + 200)", {128, false, 8, 199, 1}, false);
  add("forward/decode 16 x (1000 shared + 200)", {1000, false, 16, 199, 1}, false);
  add("forward/prefill 512", {0, false, 1, 0, 512}, false);
  problem const unshared(0, false, 8, 0, 300), shared(200, true, 8, 0, 100);
  for (bool const backward : {false, true}) {
    std::string const name = backward ? "backward" : "forward";
    add(name + "/8 x 300", unshared, backward);
    add(name + "/200 shared + 8 x 100", shared, backward);
  }
  // Masks over 90 CoT tokens of each of 8 rollouts after a cached prompt.
  problem const masked(200, false, 8, 0, 100);
  for (mask_shape const shape : {mask_shape::pair, mask_shape::column}) {
    std::vector<mask_extent> extents;
    index_t offset = 0;
    for (int i = 0; i < 8; ++i) {
      extents.push_back(make_mask_extent(shape, mask_rows::all_later, 200, 290, 300, offset));
      offset += extents.back().count;
    }
    std::vector<float> const values(std::size_t(offset), -0.01f);
    auto const policy = std::make_shared<attention::learned_mask<cpu_backend>>(s.backend, shape, extents);
    for (bool const backward : {false, true})
      benchmark::RegisterBenchmark(fmt::format("{}/{} mask, 200 cached + 8 x 100", backward ? "backward" : "forward",
                                               shape == mask_shape::pair ? "pair" : "column")
                                       .c_str(),
                                   [&s, masked, policy, values, backward](benchmark::State& state) {
                                     run(state, s, masked, policy->params(), values, backward);
                                   })
          ->UseManualTime()
          ->MinTime(0.2)
          ->Unit(benchmark::kMicrosecond);
  }
  add("forward/no mask, 200 cached + 8 x 100", masked, false);
  add("backward/no mask, 200 cached + 8 x 100", masked, true);
  benchmark::RunSpecifiedBenchmarks();
}
