// The phases of training for the shape of SmolLM2-135M with random weights: prefill, decoding at batch 1, 8 and 16,
// sampling, one forward and backward pass, one mask step, one update. For each: its time (median and best), tokens per
// second, the operations and bytes that it cannot do without, the time that this machine needs for these at least
// (floor), and the floor's share of the best time.
// Usage: phases [--benchmark_filter=REGEX] [--markdown FILE]; threads come from OMP_NUM_THREADS. --markdown writes the
// table between the marks `<!-- phases: begin -->` and `<!-- phases: end -->` of that page as well.
#include <atmanrl/grpo.hpp>

#include <benchmark/benchmark.h>

#include "machine.hpp"
#include "smollm2.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <numeric>
#include <sstream>

namespace {

using namespace atmanrl;

// One model per storage type for the whole program: packing 135 M weights takes longer than most benchmarks.
template <weight_storage S>
llama<cpu_backend>& model() {
  static cpu_backend backend;
  static llama<cpu_backend> m = [] {
    llama<cpu_backend> made(backend, atmanrl_bench::smollm2_shape(), {}, S);
    std::vector<float> weights(std::size_t(made.layout().size()));
    random_stream random(1, 0);
    for (float& w : weights) w = float(random.uniform() - 0.5) * 0.08f;
    made.assign(std::span<float const>(weights));
    return made;
  }();
  return m;
}

std::vector<int> tokens(int count, int stream) {
  std::vector<int> ids;
  random_stream random(2, std::uint32_t(stream));
  for (int i = 0; i < count; ++i) ids.push_back(random.between(0, 49151));
  return ids;
}

atmanrl_bench::machine const& limits() {
  static atmanrl_bench::machine const m = [] {
    cpu_backend backend;
    return atmanrl_bench::measure(backend);
  }();
  return m;
}

// Parameters of the layers' matrices and of the head: what a row passes through.
double layer_parameters(model_config const& c) {
  double all = 0;
  for (index_t l = 0; l < c.layers; ++l)
    for (linear_shape const& each : linear_shapes(standard_kind(c).layer_parameters(c, l))) all += double(each.size());
  return all;
}
double head_parameters(model_config const& c) { return double(c.vocab) * double(c.hidden); }

// Keys that `rows` rows attend to when `before` positions stand in front of the first one.
double keys_seen(double before, double rows) { return rows * before + rows * (rows + 1) / 2; }

// One product of attention (queries with keys, or probabilities with values) over so many keys, all layers and heads.
// Forward takes two of them, backward five: the scores again, and the gradients of values, probabilities, queries,
// keys. The sums of values and the gradients of values and keys are done in float with bf16 weights, too.
double attention_product(model_config const& c, double keys) {
  return 2 * double(c.layers * c.heads * c.head_dim) * keys;
}

struct work {
  double tokens = 0;
  double operations = 0;        // of products and attention, multiplication and addition counted as two
  double float_operations = 0;  // of them those that are done in float with bf16 weights, too
  double bytes = 0;             // read from memory and written
};

// Times f() until the benchmark has enough; the setting of a machine that others use, too, calls for the best time
// beside the median.
template <weight_storage S, class F>
void measure(benchmark::State& state, work const& w, F const& f) {
  atmanrl_bench::machine const& m = limits();
  std::vector<double> seconds;
  f();  // memory is allocated by the first call
  for (auto _ : state) {
    double const start = atmanrl_bench::now();
    f();
    seconds.push_back(atmanrl_bench::now() - start);
    state.SetIterationTime(seconds.back());
  }
  std::sort(seconds.begin(), seconds.end());
  double const median = seconds[seconds.size() / 2];
  double const fast = S == weight_storage::bf16 ? m.bf16_flops : m.flops;
  double const floor =
      std::max((w.operations - w.float_operations) / fast + w.float_operations / m.flops, w.bytes / m.bandwidth);
  state.counters["median_ms"] = median * 1e3;
  state.counters["tokens/s"] = w.tokens / median;
  state.counters["best_ms"] = seconds[0] * 1e3;
  state.counters["GFLOP"] = w.operations * 1e-9;
  state.counters["GB"] = w.bytes * 1e-9;
  state.counters["floor_ms"] = floor * 1e3;
  state.counters["floor/best"] = floor / seconds[0];
}

template <weight_storage S>
double weight_bytes(model_config const& c) {
  return (layer_parameters(c) + head_parameters(c)) * double(S == weight_storage::bf16 ? sizeof(bf16) : sizeof(float));
}
double key_value_bytes(model_config const& c) { return double(c.layers * 2 * c.kv_heads * c.head_dim * 4); }

template <weight_storage S>
void prefill(benchmark::State& state) {
  auto& m = model<S>();
  int const rows = int(state.range(0));
  auto const prompt = tokens(rows, 0);
  kv_cache<cpu_backend, float> cache(m.backend(), m.config(), rows);
  forward_pass<cpu_backend, float> pass(m.backend());
  int const id = cache.add_sequence(rows);
  ragged_batch batch;
  batch.add(id, prompt);
  scored_token const last{rows - 1, 1};
  double const attention = 2 * attention_product(m.config(), keys_seen(0, rows));
  work const w{double(rows), 2 * (layer_parameters(m.config()) * rows + head_parameters(m.config())) + attention,
               attention / 2, weight_bytes<S>(m.config())};
  measure<S>(state, w, [&] {
    cache.truncate(id, 0);
    m.forward(cache, batch, pass);
    m.log_probs(pass, {&last, 1});
  });
}

// One decoding step of `batch` sequences that share a prompt of 128 tokens and hold 64 tokens each, logits included.
template <weight_storage S>
void decode(benchmark::State& state) {
  auto& m = model<S>();
  model_config const& c = m.config();
  int const sequences = int(state.range(0));
  kv_cache<cpu_backend, float> cache(m.backend(), c, 128 + sequences * 66);
  forward_pass<cpu_backend, float> pass(m.backend());
  ragged_batch batch;
  int const root = cache.add_sequence(128);
  batch.add(root, tokens(128, 0));
  m.forward(cache, batch, pass);
  batch.clear();
  std::vector<int> ids;
  for (int s = 0; s < sequences; ++s) {
    ids.push_back(cache.add_child(root, 128, 66));
    batch.add(ids.back(), tokens(64, s + 1));
  }
  m.forward(cache, batch, pass);
  batch.clear();
  std::vector<int> rows;
  for (int s = 0; s < sequences; ++s) rows.push_back(batch.add(ids[std::size_t(s)], tokens(1, s + 100)));
  tensor<cpu_backend, float, 2> logits;
  double const attention = 2 * attention_product(c, 193 * sequences);
  work const w{double(sequences), 2 * (layer_parameters(c) + head_parameters(c)) * sequences + attention, attention / 2,
               weight_bytes<S>(c) + key_value_bytes(c) * (128 + 64 * sequences)};
  measure<S>(state, w, [&] {
    for (int const id : ids) cache.truncate(id, 192);
    m.forward(cache, batch, pass);
    m.logits(pass, rows, logits);
    benchmark::DoNotOptimize(logits.data());
  });
}

// Sampling as rollouts do it: 8 completions of 32 tokens after a prompt of 128, prefill and draws included.
template <weight_storage S>
void generate_group(benchmark::State& state) {
  auto& m = model<S>();
  model_config const& c = m.config();
  int const group = int(state.range(0)), length = 32;
  std::vector<std::vector<int>> const prompts{tokens(128, 0)};
  double const later = double(group * (length - 1));
  double const attention = 2 * attention_product(c, keys_seen(0, 128) + group * keys_seen(128, length - 1));
  work const w{double(group * length),
               2 * (layer_parameters(c) * (128 + later) + head_parameters(c) * (1 + later)) + attention, attention / 2,
               weight_bytes<S>(c) * length};
  generate_options options;
  options.group_size = group;
  options.max_new_tokens = length;
  measure<S>(state, w,
             [&] { benchmark::DoNotOptimize(generate(m, prompts, options, samplers::multinomial{}).size()); });
}

// Loss and all parameters' gradients of 8 rollouts of `range(1)` tokens after a prompt of `range(0)` tokens: one for
// all of them, or one for each.
template <weight_storage S>
void forward_backward(benchmark::State& state) {
  auto& m = model<S>();
  bool const shared = state.range(2) == 1;
  state.SetLabel(shared ? "one prompt" : "8 prompts");
  std::vector<std::vector<int>> prompts, completions;
  for (int g = 0; g < 8; ++g) {
    prompts.push_back(tokens(int(state.range(0)), shared ? 0 : 100 + g));
    completions.push_back(tokens(int(state.range(1)), g + 1));
  }
  std::vector<float> const old(completions[0].size(), -10.0f);
  std::vector<training_rollout> rollouts;
  for (std::size_t g = 0; g < 8; ++g) rollouts.push_back({prompts[g], completions[g], old, 1.0f});
  trainable_policy<llama<cpu_backend>> policy(m);
  double const rows = double((shared ? 1 : 8) * prompts[0].size() + 8 * completions[0].size());
  double const products =
      2 * (layer_parameters(m.config()) * rows + head_parameters(m.config()) * double(8 * completions[0].size()));
  double const n = double(state.range(0)), later = double(state.range(1));
  double const attention =
      7 * attention_product(m.config(), (shared ? 1 : 8) * keys_seen(0, n) + 8 * keys_seen(n, later));
  work const w{rows, 3 * products + attention, products + attention * 3 / 7,
               weight_bytes<S>(m.config()) * 2 + weight_bytes<weight_storage::full>(m.config()) * 2};
  std::span<training_rollout const> const all = rollouts;
  measure<S>(state, w, [&] {
    benchmark::DoNotOptimize(add_policy_gradient(policy, all, losses::grpo{}, {.micro_batch = 8}).loss);
  });
}

// The products alone of one forward and one activation-gradient pass over `rows` rows: what a mask step cannot do
// without.
template <weight_storage S>
class products_alone {
 public:
  products_alone(llama<cpu_backend>& m, index_t rows) : backend_(m.backend()) {
    model_config const& c = m.config();
    auto const shapes = [&](index_t layer) { return linear_shapes(standard_kind(c).layer_parameters(c, layer)); };
    for (linear_shape const& each : shapes(0)) {  // the same in all layers
      x_.push_back(tensor<cpu_backend, float, 2>::zeros(backend_, {rows, each.inputs}));
      y_.push_back(tensor<cpu_backend, float, 2>::zeros(backend_, {rows, each.outputs}));
    }
    for (index_t l = 0; l < c.layers; ++l) {
      for (auto const& [outputs, inputs, biased] : shapes(l)) {
        weights_.emplace_back(backend_, outputs, inputs, S);
        weights_.back().assign_rows(backend_, 0,
                                    tensor<cpu_backend, float, 2>::zeros(backend_, {outputs, inputs}).cview());
      }
    }
  }

  void operator()() {
    for (std::size_t i = 0; i < weights_.size(); ++i)
      matmul(backend_, x_[i % 4].cview(), weights_[i].view(), y_[i % 4].view());
    for (std::size_t i = weights_.size(); i-- > 0;)
      matmul_backward_input(backend_, y_[i % 4].cview(), weights_[i].view(), x_[i % 4].view());
  }

 private:
  cpu_backend& backend_;
  std::vector<weight<cpu_backend, float>> weights_;
  std::vector<tensor<cpu_backend, float, 2>> x_, y_;
};

template <class F>
double seconds_of(F&& f) {
  double const start = atmanrl_bench::now();
  f();
  return atmanrl_bench::now() - start;
}

// One step of mask training for 8 rollouts of 200 prompt + `range(1)` CoT tokens, prompt cached.
template <weight_storage S>
void mask_step(benchmark::State& state) {
  auto& m = model<S>();
  auto const rows = state.range(0) == 0 ? mask_rows::all_later : mask_rows::answer_rows;
  state.SetLabel(state.range(0) == 0 ? "all_later" : "answer_rows");
  auto const prompt = tokens(200, 0), delimiter = tokens(2, 50), answer = tokens(3, 51);
  std::vector<std::vector<int>> cots;
  for (int g = 0; g < 8; ++g) cots.push_back(tokens(int(state.range(1)), g + 1));
  std::vector<saliency_item> items;
  for (auto const& c : cots) items.push_back({prompt, c, delimiter, answer});
  mask_batch<llama<cpu_backend>> batch(m, items, mask_shape::column, rows, 10);
  // Rows of a step: those after the prompt, or those after the chain of thought; the last answer token has none.
  double const cot = double(state.range(1)), each = double(batch.rows_per_step()) / 8;
  double const attention = 7 * attention_product(m.config(), 8 * keys_seen(204 + cot - each, each));
  double const products_of_step =
      layer_parameters(m.config()) * each + head_parameters(m.config()) * double(answer.size());
  work const w{double(batch.rows_per_step()), 4 * 8 * products_of_step + attention, attention * 3 / 7,
               2 * weight_bytes<S>(m.config())};
  auto const step = [&] { benchmark::DoNotOptimize(batch.cross_entropies_and_gradient()); };
  measure<S>(state, w, step);
  // In turns, because a machine that others use is not equally fast all the time; the ratio is the rounds' median.
  products_alone<S> products(m, batch.rows_per_step());
  products();
  std::vector<double> ratios;
  for (int round = 0; round < 9; ++round) {
    double const alone = seconds_of(products);
    ratios.push_back(seconds_of(step) / alone);
  }
  std::nth_element(ratios.begin(), ratios.begin() + 4, ratios.end());
  state.counters["x_products"] = ratios[4];
}

void adamw_update(benchmark::State& state) {
  cpu_backend backend;
  index_t const n = 134515008;
  auto p = tensor<cpu_backend, float, 1>::zeros(backend, {n}), g = tensor<cpu_backend, float, 1>::zeros(backend, {n});
  optim::adamw::state<cpu_backend, float> optimizer({}, backend, {n, {}});
  measure<weight_storage::full>(state, {double(n), 0, 0, 28.0 * double(n)},
                                [&] { optimizer.step(p.view(), g.cview(), 1e-4); });
}

// The console's table, and the same numbers kept for the page.
class keeping_reporter : public benchmark::ConsoleReporter {
 public:
  keeping_reporter() : ConsoleReporter(isatty(STDOUT_FILENO) ? OO_ColorTabular : OO_Tabular) {}

  void ReportRuns(std::vector<Run> const& runs) override {
    ConsoleReporter::ReportRuns(runs);
    for (Run const& run : runs) {
      if (run.run_type != Run::RT_Iteration || run.error_occurred) continue;
      auto const value = [&](char const* name) { return double(run.counters.at(name)); };
      double const gflop = value("GFLOP"), gb = value("GB");
      bool const memory = std::abs(value("floor_ms") - gb * 1e12 / limits().bandwidth) < 1e-6 * value("floor_ms");
      std::string name = run.benchmark_name();
      if (auto const end = name.find("/manual_time"); end != std::string::npos) name.erase(end);
      if (!run.report_label.empty()) name += ", " + run.report_label;
      rows_ += fmt::format("| {} | {} | {:.3g} | {:.4g} | {} | {:.4g} | {:.4g} | {:.0f} % | {:.4g} | {} |\n", name,
                           gflop > 0 ? fmt::format("{:.4g}", gflop) : "–", gb, value("floor_ms"),
                           memory ? "bytes" : "operations", value("median_ms"), value("best_ms"),
                           100 * value("floor_ms") / value("median_ms"), value("tokens/s"),
                           run.counters.count("x_products") ? fmt::format("{:.2f}", value("x_products")) : "");
    }
  }

  std::string table() const {
    return fmt::format("{} threads: {:.0f} GFLOP/s float, {:.0f} GFLOP/s bf16 factors, {:.1f} GB/s.\n\n",
                       cpu_backend{}.threads(), limits().flops * 1e-9, limits().bf16_flops * 1e-9,
                       limits().bandwidth * 1e-9) +
           "| phase | GFLOP | GB | floor, ms | bound by | median, ms | best, ms | floor / median | rows/s | times the "
           "products alone |\n|---|---|---|---|---|---|---|---|---|---|\n" +
           rows_;
  }

 private:
  std::string rows_;
};

// Replaces what stands between the two marks of a page.
void write_between_marks(std::string const& path, std::string const& table) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  std::string page = text.str();
  std::string const begin = "<!-- phases: begin -->\n", end = "<!-- phases: end -->";
  auto const from = page.find(begin), to = page.find(end);
  if (from == std::string::npos || to == std::string::npos || to < from)
    throw error(path + " has no marks <!-- phases: begin --> and <!-- phases: end -->");
  page.replace(from + begin.size(), to - from - begin.size(), table);
  std::ofstream(path) << page;
}

template <class F>
void add(char const* name, F f, std::vector<std::vector<std::int64_t>> const& arguments) {
  auto* const b = benchmark::RegisterBenchmark(name, f);
  for (auto const& a : arguments) b->Args(a);
  b->UseManualTime()->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) try {
  benchmark::Initialize(&argc, argv);
  std::string page;
  if (argc == 3 && argv[1] == std::string("--markdown")) {
    page = argv[2];
  } else if (argc != 1) {
    throw error(std::string("unknown argument ") + argv[1]);
  }
  add("prefill f32", prefill<weight_storage::full>, {{512}});
  add("prefill bf16", prefill<weight_storage::bf16>, {{512}});
  add("decode f32", decode<weight_storage::full>, {{1}, {8}, {16}});
  add("decode bf16", decode<weight_storage::bf16>, {{1}, {8}, {16}});
  add("generate f32", generate_group<weight_storage::full>, {{8}, {16}});
  add("generate bf16", generate_group<weight_storage::bf16>, {{8}, {16}});
  add("mask_step f32", mask_step<weight_storage::full>, {{0, 100}, {1, 100}, {0, 300}, {1, 300}});
  add("mask_step bf16", mask_step<weight_storage::bf16>, {{0, 100}, {1, 100}, {0, 300}, {1, 300}});
  add("forward_backward f32", forward_backward<weight_storage::full>, {{200, 100, 1}, {200, 100, 0}});
  add("forward_backward bf16", forward_backward<weight_storage::bf16>, {{200, 100, 1}, {200, 100, 0}});
  add("adamw", adamw_update, {});
  limits();
  keeping_reporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  if (!page.empty()) write_between_marks(page, reporter.table());
} catch (std::exception const& e) {
  std::cerr << "phases: " << e.what() << '\n';
  return 1;
}
