// Matrix products of the CPU backend on the shapes of SmolLM2-135M, weights cold as they are in a model: GFLOP/s, GB/s
// of weights, and the shares of what the machine can do. bf16 is the way that the backend chooses, the others of
// `bf16_products` that the machine has stand beside it; bench/bf16_products compares them round by round.
// Eigen's product of the same matrices stands beside them, and packed weights of each type on larger ones.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/cpu/eigen.hpp>

#include <benchmark/benchmark.h>

#include <map>
#include <memory>

#include "machine.hpp"

using namespace atmanrl;

namespace {

struct setting {
  cpu_backend backend;
  atmanrl_bench::machine machine = atmanrl_bench::measure(backend);

  // A backend for each way of computing products with bf16 weights that is there.
  std::map<bf16_products, std::unique_ptr<cpu_backend>> ways;
  setting() {
    for (bf16_products const way :
         {bf16_products::floats, bf16_products::pairs, bf16_products::amx, bf16_products::bfmmla})
      try {
        ways[way] = std::make_unique<cpu_backend>(cpu_options{.products = way});
      } catch (usage_error const&) {  // not there
      }
  }
};

enum class product { forward, backward_input, backward_weight };

// Copies of the weight take turns, so that it comes from memory each time unless it alone fills the caches.
// \param type  f32: weights of `W`, else packed ones
template <class W>
void run(benchmark::State& state, setting& s, cpu_backend& b, product what, index_t outputs, index_t inputs,
         gguf_type type) {
  index_t const rows = state.range(0);
  std::vector<typed_rows> const all_rows{{outputs, type}};
  index_t const bytes = index_t(weight<cpu_backend, W>::bytes(all_rows, inputs));
  std::vector<weight<cpu_backend, W>> weights;
  auto dense = tensor<cpu_backend, float, 2>::zeros(b, {outputs, inputs});
  for (index_t i = 0; i < dense.size(); ++i) dense.data()[i] = float(i % 97) * 1e-3f;
  for (index_t total = 0; total < (index_t{96} << 20); total += bytes) {
    weights.emplace_back(b, inputs, all_rows);
    if (is_quantised(type))
      weights.back().assign_blocks(
          b, 0, type, std::vector<std::byte>(std::size_t(bytes_of(type, outputs * inputs)), std::byte{17}));
    else
      weights.back().assign_rows(b, 0, dense.cview());
  }
  auto x = tensor<cpu_backend, float, 2>::zeros(b, {rows, inputs}),
       y = tensor<cpu_backend, float, 2>::zeros(b, {rows, outputs});
  for (index_t i = 0; i < x.size(); ++i) x.data()[i] = float(i % 89) * 1e-2f;
  for (index_t i = 0; i < y.size(); ++i) y.data()[i] = float(i % 83) * 1e-2f;
  double best = 1e9;
  std::size_t turn = 0;
  for (auto _ : state) {
    auto const w = weights[turn++ % weights.size()].view();
    double const start = atmanrl_bench::now();
    if (what == product::forward) matmul(b, x.cview(), w, y.view());
    if (what == product::backward_input) matmul_backward_input(b, y.cview(), w, x.view());
    if (what == product::backward_weight) matmul_backward_weight(b, y.cview(), x.cview(), dense.view());
    double const seconds = atmanrl_bench::now() - start;
    state.SetIterationTime(seconds);
    best = std::min(best, seconds);
  }
  double const flops = 2.0 * double(rows) * double(outputs) * double(inputs);
  state.counters["GFLOP/s"] = flops / best * 1e-9;
  bool const rounds = std::is_same_v<W, bf16> && b.products() != bf16_products::floats &&
                      b.products() == s.backend.products() && what != product::backward_weight;
  state.counters["of_peak"] = flops / best / (rounds ? s.machine.bf16_flops : s.machine.flops);
  state.counters["GB/s"] = double(bytes) / best * 1e-9;
  state.counters["of_memory"] = double(bytes) / best / s.machine.bandwidth;
}

// Eigen's own product with the weight as written, on the threads that OpenMP gives it.
void run_eigen(benchmark::State& state, setting& s, index_t outputs, index_t inputs) {
  index_t const rows = state.range(0);
  std::vector<tensor<cpu_backend, float, 2>> weights;
  for (index_t total = 0; total < (index_t{96} << 20); total += outputs * inputs * index_t(sizeof(float)))
    weights.push_back(tensor<cpu_backend, float, 2>::zeros(s.backend, {outputs, inputs}));
  auto x = tensor<cpu_backend, float, 2>::zeros(s.backend, {rows, inputs}),
       y = tensor<cpu_backend, float, 2>::zeros(s.backend, {rows, outputs});
  double best = 1e9;
  std::size_t turn = 0;
  for (auto _ : state) {
    auto const& w = weights[turn++ % weights.size()];
    double const start = atmanrl_bench::now();
    as_eigen(y.view()).noalias() = as_eigen(x.cview()) * as_eigen(w.cview()).transpose();
    double const seconds = atmanrl_bench::now() - start;
    state.SetIterationTime(seconds);
    best = std::min(best, seconds);
  }
  double const flops = 2.0 * double(rows) * double(outputs) * double(inputs);
  state.counters["GFLOP/s"] = flops / best * 1e-9;
  state.counters["of_peak"] = flops / best / s.machine.flops;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  setting s;
  struct shape {
    index_t outputs, inputs;
  };
  auto const add = [&](std::string const& name, auto weight_type, product what, shape w,
                       std::vector<index_t> const& rows, bf16_products way = bf16_products::by_processor,
                       gguf_type type = gguf_type::f32) {
    auto* const bench = benchmark::RegisterBenchmark(
        fmt::format("{}/{}x{}", name, w.outputs, w.inputs).c_str(),
        [&s, what, w, weight_type, way, type](benchmark::State& state) {
          run<decltype(weight_type)>(state, s, way == bf16_products::by_processor ? s.backend : *s.ways.at(way), what,
                                     w.outputs, w.inputs, type);
        });
    for (index_t const r : rows) bench->Arg(r);
    bench->UseManualTime()->MinTime(0.2)->Unit(benchmark::kMicrosecond);
  };
  for (shape const w : {shape{576, 576}, shape{1536, 576}, shape{576, 1536}}) {
    add("forward/f32", float{}, product::forward, w, {1, 8, 16, 64, 512});
    add("forward/bf16", bf16{}, product::forward, w, {1, 8, 16, 64, 512});
    auto* const eigen =
        benchmark::RegisterBenchmark(fmt::format("forward/Eigen f32/{}x{}", w.outputs, w.inputs).c_str(),
                                     [&s, w](benchmark::State& state) { run_eigen(state, s, w.outputs, w.inputs); });
    for (index_t const r : {1, 8, 16, 64, 512}) eigen->Arg(r);
    eigen->UseManualTime()->MinTime(0.2)->Unit(benchmark::kMicrosecond);
    add("backward_input/f32", float{}, product::backward_input, w, {1, 8, 64, 512});
    add("backward_input/bf16", bf16{}, product::backward_input, w, {8, 512});
    for (auto const& [way, backend] : s.ways) {
      if (way == s.backend.products()) continue;
      add(fmt::format("forward/bf16 {}", cpu::text(way)), bf16{}, product::forward, w, {1, 8, 16, 64, 512}, way);
      add(fmt::format("backward_input/bf16 {}", cpu::text(way)), bf16{}, product::backward_input, w, {8, 512}, way);
    }
    add("backward_weight", float{}, product::backward_weight, w, {8, 64, 512, 1024});
  }
  add("forward/f32", float{}, product::forward, {49152, 576}, {1, 8, 64});
  add("forward/bf16", bf16{}, product::forward, {49152, 576}, {1, 8, 64});
  add("forward/f32", float{}, product::forward, {3072, 3072}, {1, 8, 16, 512});
  add("backward_input/f32", float{}, product::backward_input, {3072, 3072}, {16, 512});
  for (gguf_type_info const& t : detail::gguf_type_table) {
    if (!is_quantised(t.type)) continue;
    add(fmt::format("forward/{}", t.name), float{}, product::forward, {3072, 3072}, {1, 8, 16, 512},
        bf16_products::by_processor, t.type);
    add(fmt::format("backward_input/{}", t.name), float{}, product::backward_input, {3072, 3072}, {16, 512},
        bf16_products::by_processor, t.type);
  }
  add("backward_input/f32", float{}, product::backward_input, {1024, 576}, {256});
  add("backward_weight", float{}, product::backward_weight, {1024, 576}, {256});
  benchmark::RunSpecifiedBenchmarks();
}
