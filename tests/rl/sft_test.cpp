#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/sft.hpp>
#include <atmanrl/tasks/arithmetic.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "strangers.hpp"

#include <limits>

using namespace atmanrl;
using namespace atmanrl_test;
namespace sft_test {

using Catch::Matchers::Contains;

namespace {

model_config small_config() {
  model_config c;
  c.layers = 2;
  c.hidden = 16;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 4;
  c.ffn = 24;
  c.vocab = 20;
  c.max_positions = 64;
  return c;
}

template <Backend B, class W>
llama<B, W> small_model(B& backend, unsigned seed = 5) {
  using T = compute_t<W>;
  llama<B, W> model(backend, small_config());
  std::vector<double> const values = random_values(model.layout().size(), seed, 0.3);
  tensor<B, T, 1> flat(backend, {model.layout().size()});
  flat.assign(converted<T>(values));
  model.assign(flat.cview());
  return model;
}

std::vector<sft_example> examples() {
  return {{{1, 2, 3}, {4, 5}},
          {{6}, {7, 8, 9, 10, 11, 0}},
          {{1, 2, 3, 4, 5, 6, 7, 8}, {12}},
          {{13, 2}, {14, 15, 0}},
          {{3, 3}, {16, 0}}};
}

template <Backend B, class T>
std::vector<T> host(view_on<B, T const, 1> v) {
  return {v.data(), v.data() + v.size()};
}

sft_options plain(int micro_batches = 1) {
  return {.steps = 50, .micro_batches = micro_batches, .learning_rate = 0.01, .max_gradient_norm = 0};
}

}  // namespace

TEST_CASE("the loss is the mean over all completion tokens of the batch, prompts left out") {
  reference_backend backend;
  auto model = small_model<reference_backend, double>(backend);
  double expected = 0, tokens = 0;
  index_t rows = 0;
  for (sft_example const& e : examples()) {
    kv_cache<reference_backend, double> cache(backend, model.config(), 32);
    forward_pass<reference_backend, double> pass(backend);
    std::vector<int> all = e.prompt;
    all.insert(all.end(), e.completion.begin(), e.completion.end());
    ragged_batch batch;
    batch.add(cache.add_sequence(32), all);
    model.forward(cache, batch, pass);
    std::vector<scored_token> scored;
    for (std::size_t i = e.prompt.size(); i < all.size(); ++i) scored.push_back({int(i) - 1, all[i]});
    model.log_probs(pass, scored);
    for (double const lp : pass.log_p()) expected -= lp;
    tokens += double(e.completion.size());
    rows += index_t(all.size()) - 1;
  }
  sft_trainer trainer(model, plain());
  sft_report const report = trainer.step(examples());
  CHECK(report.loss == Approx(expected / tokens).epsilon(1e-12));
  CHECK(report.completion_tokens == index_t(tokens));
  CHECK(report.rows == rows);
  CHECK(report.step == 1);
}

TEST_CASE("any number of micro-batches gives the same loss, gradient and update") {
  reference_backend backend;
  auto whole = small_model<reference_backend, double>(backend);
  sft_trainer one(whole, plain(1));
  sft_report const first = one.step(examples());
  auto const gradient = host<reference_backend, double>(one.gradient()),
             weights = host<reference_backend, double>(one.master_weights());
  CHECK(first.gradient_norm > 0.01);
  for (int const parts : {2, 3, 5, 8}) {
    auto model = small_model<reference_backend, double>(backend);
    sft_trainer trainer(model, plain(parts));
    sft_report const report = trainer.step(examples());
    CHECK(report.loss == Approx(first.loss).epsilon(1e-12));
    CHECK(report.gradient_norm == Approx(first.gradient_norm).epsilon(1e-12));
    CHECK(relative_difference(host<reference_backend, double>(trainer.gradient()), gradient) < 1e-12);
    CHECK(relative_difference(host<reference_backend, double>(trainer.master_weights()), weights) < 1e-9);
  }
}

TEST_CASE("the gradient is that of the loss") {
  reference_backend backend;
  auto model = small_model<reference_backend, double>(backend);
  std::vector<double> weights(std::size_t(model.layout().size()));
  model.read(as(weights, {model.layout().size()}));
  sft_trainer trainer(model, plain());
  trainer.step(examples());
  auto const gradient = host<reference_backend, double>(trainer.gradient());
  auto const loss_at = [&](std::size_t i, double value) {
    auto moved = small_model<reference_backend, double>(backend);
    std::vector<double> w = weights;
    w[i] = value;
    moved.assign(as(std::as_const(w), {moved.layout().size()}));
    return sft_trainer(moved, plain()).step(examples()).loss;
  };
  for (std::size_t i = 3; i < weights.size(); i += weights.size() / 12) {
    double const h = 1e-5, slope = (loss_at(i, weights[i] + h) - loss_at(i, weights[i] - h)) / (2 * h);
    CHECK(gradient[i] == Approx(slope).epsilon(1e-5).margin(1e-8));
  }
}

TEST_CASE("an update is clipped and follows the schedule") {
  reference_backend backend;
  auto model = small_model<reference_backend, double>(backend);
  std::vector<double> weights(std::size_t(model.layout().size()));
  model.read(as(weights, {model.layout().size()}));
  sft_options options{.steps = 10, .learning_rate = 0.1, .max_gradient_norm = 0.25};
  optim::adamw const optimizer{.beta1 = 0.8, .beta2 = 0.9, .weight_decay = 0.01};
  sft_trainer trainer(model, options, schedules::linear{.warmup = 4, .floor = 0.1}, optimizer);
  std::vector<double> m(weights.size()), v(weights.size()), rates;
  index_t const n = model.layout().size();
  for (std::uint64_t step = 1; step <= 10; ++step) {
    sft_report const report = trainer.step(examples());
    rates.push_back(report.learning_rate);
    auto const gradient = host<reference_backend, double>(trainer.gradient());
    double norm = 0;
    for (double const g : gradient) norm += g * g;
    CHECK(std::sqrt(norm) == Approx(std::min(0.25, report.gradient_norm)).epsilon(1e-5));
    adamw_step(backend, as(weights, {n}), as(gradient, {n}), as(m, {n}), as(v, {n}),
               optimizer.with_rate(report.learning_rate), step);
    CHECK(relative_difference(host<reference_backend, double>(trainer.master_weights()), weights) < 1e-12);
  }
  CHECK(rates[0] == Approx(0.025));
  CHECK(rates[3] == Approx(0.1));
  CHECK(rates[9] < 0.03);
  // The model computes with the new weights.
  std::vector<double> now(weights.size());
  model.read(as(now, {n}));
  CHECK(now == host<reference_backend, double>(trainer.master_weights()));
}

TEST_CASE("a run learns its examples by heart") {
  cpu_backend backend({.threads = 1});
  auto model = small_model<cpu_backend, float>(backend);
  auto const all = examples();
  std::vector<double> losses;
  std::vector<std::uint64_t> asked;
  sft_trainer trainer(model, {.steps = 150, .batch_size = 5, .learning_rate = 0.02}, schedules::cosine{.warmup = 10});
  trainer.run([&](std::uint64_t i) { return asked.push_back(i), all[i % all.size()]; },
              [&](sft_report const& r) { losses.push_back(r.loss); });
  REQUIRE(losses.size() == 150);
  CHECK(losses.front() > 2);
  CHECK(losses.back() < 0.05);
  for (std::size_t i = 0; i < asked.size(); ++i) REQUIRE(asked[i] == i);
}

TEST_CASE("a callback that returns false ends the run") {
  reference_backend backend;
  auto model = small_model<reference_backend, float>(backend);
  auto const all = examples();
  sft_trainer trainer(model, {.steps = 50, .batch_size = 2});
  std::uint64_t last = 0;
  trainer.run([&](std::uint64_t i) { return all[i % all.size()]; },
              [&](sft_report const& r) { return (last = r.step) < 3; });
  CHECK(last == 3);
}

TEST_CASE("the CPU backend takes the same steps as the reference") {
  reference_backend slow;
  cpu_backend fast({.threads = 2});
  auto a = small_model<reference_backend, float>(slow);
  auto b = small_model<cpu_backend, float>(fast);
  sft_trainer first(a, plain(2));
  sft_trainer second(b, plain(2));
  for (int step = 0; step < 5; ++step) {
    sft_report const x = first.step(examples()), y = second.step(examples());
    CHECK(y.loss == Approx(x.loss).epsilon(1e-4));
    CHECK(y.gradient_norm == Approx(x.gradient_norm).epsilon(1e-3));
  }
}

TEST_CASE("an optimizer of somebody's own updates the weights, at the schedule's rate") {
  reference_backend backend;
  auto model = small_model<reference_backend, double>(backend);
  sft_options options = plain();
  options.learning_rate = 1e-3;
  sft_trainer trainer(model, options, schedules::constant{.warmup = 2}, strangers::sign_momentum{});
  auto const before = host<reference_backend, double>(trainer.master_weights());
  double const first = trainer.step(examples()).loss;
  auto const after = host<reference_backend, double>(trainer.master_weights());
  auto const gradient = host<reference_backend, double>(trainer.gradient());
  for (std::size_t i = 0; i < before.size(); ++i)
    CHECK(after[i] == before[i] - (gradient[i] > 0 ? 0.5e-3 : gradient[i] < 0 ? -0.5e-3 : 0));
  for (int i = 0; i < 20; ++i) trainer.step(examples());
  CHECK(trainer.step(examples()).loss < first - 0.1);
}

TEST_CASE("updates too small for bf16 add up in the master weights") {
  reference_backend backend;
  auto model = small_model<reference_backend, bf16>(backend);
  sft_options options = plain();
  options.learning_rate = 1e-5;  // bf16 steps near 0.3 are 2e-3
  options.steps = 1000;
  sft_trainer trainer(model, options, schedules::constant{});
  auto const before = host<reference_backend, float>(trainer.master_weights());
  for (int i = 0; i < 20; ++i) trainer.step(examples());
  auto const after = host<reference_backend, float>(trainer.master_weights());
  parameter_info const& p = *model.layout().find("model.layers.0.mlp.down_proj.weight");
  std::vector<float> rounded(std::size_t(p.size()));
  model.read_rows(p, 0, as(rounded, {p.rows, p.columns}));
  double moved = 0;
  for (index_t i = 0; i < p.size(); ++i) {
    float const w = after[std::size_t(p.offset + i)];
    moved = std::max(moved, std::abs(double(w) - double(before[std::size_t(p.offset + i)])));
    REQUIRE(rounded[std::size_t(i)] == float(bf16(w)));
  }
  CHECK(moved > 1.5e-4);
  CHECK(moved < 2.5e-4);
}

TEST_CASE("a loss that is not finite stops with the step and the example, and the weights stay") {
  reference_backend backend;
  auto model = small_model<reference_backend, float>(backend);
  auto const all = examples();
  {
    sft_trainer trainer(model, plain(2));
    trainer.step(all);
    std::vector<float> broken = host<reference_backend, float>(trainer.master_weights());
    // With a tied head one bad number in the embedding spoils every softmax.
    broken[std::size_t(13 * 16)] = std::numeric_limits<float>::quiet_NaN();
    model.assign(as(std::as_const(broken), {model.layout().size()}));
  }
  sft_trainer trainer(model, plain(2));
  auto const bits = [&] {
    std::vector<std::uint32_t> out;
    for (float const w : host<reference_backend, float>(trainer.master_weights()))
      out.push_back(std::bit_cast<std::uint32_t>(w));
    return out;
  };
  auto const before = bits();
  CHECK_THROWS_AS(trainer.step(all), numeric_error);
  try {
    trainer.step(all);
  } catch (numeric_error const& e) {
    CHECK_THAT(e.what(), Contains("step 1") && Contains("example 0"));
  }
  CHECK(bits() == before);
}

TEST_CASE("examples and options that cannot be used are refused") {
  reference_backend backend;
  auto model = small_model<reference_backend, float>(backend);
  sft_trainer trainer(model, plain());
  CHECK_THROWS_AS(trainer.step(std::vector<sft_example>{}), usage_error);
  CHECK_THROWS_AS(trainer.step(std::vector<sft_example>{{{}, {1}}}), usage_error);
  CHECK_THROWS_AS(trainer.step(std::vector<sft_example>{{{1}, {}}}), usage_error);
  CHECK_THROWS_AS(trainer.step(std::vector<sft_example>{{{1}, {20}}}), usage_error);
  CHECK_THROWS_AS((sft_trainer(model, sft_options{.steps = 0})), usage_error);
  CHECK_THROWS_AS((sft_trainer(model, sft_options{.micro_batches = 0})), usage_error);
}

TEST_CASE("a bound on rows per pass changes neither loss nor gradient") {
  reference_backend backend;
  auto a = small_model<reference_backend, double>(backend), b = small_model<reference_backend, double>(backend);
  sft_options bounded = plain();
  bounded.row_budget = 8;
  sft_trainer whole(a, plain()), parts(b, bounded);
  sft_report const x = whole.step(examples()), y = parts.step(examples());
  CHECK(y.loss == Approx(x.loss).epsilon(1e-12));
  CHECK(y.rows == x.rows);
  CHECK(relative_difference(host<reference_backend, double>(parts.gradient()),
                            host<reference_backend, double>(whole.gradient())) < 1e-12);
}

TEST_CASE("the evaluation loss is that of a step, and changes nothing") {
  reference_backend backend;
  auto model = small_model<reference_backend, double>(backend);
  sft_options options = plain();
  options.batch_size = 2;
  sft_trainer trainer(model, options);
  auto const before = host<reference_backend, double>(trainer.master_weights());
  double const loss = trainer.evaluate(examples());
  CHECK(host<reference_backend, double>(trainer.master_weights()) == before);
  CHECK(trainer.step(examples()).loss == Approx(loss).epsilon(1e-12));
  CHECK(trainer.evaluate(examples()) < loss);
  CHECK_THROWS_AS(trainer.evaluate(std::vector<sft_example>{}), usage_error);
}

TEST_CASE("a list is gone through once per epoch, in an order drawn by the seed") {
  reference_backend backend;
  auto const all = examples();
  CHECK(sft_steps(all.size(), 1, 2) == 10);
  CHECK(sft_steps(7, 2, 1) == 4);
  CHECK(sft_steps(7, 2, 0.5) == 2);
  CHECK_THROWS_AS(sft_steps(0, 2, 1), usage_error);
  auto const tokens_of_run = [&](std::uint64_t seed) {
    auto model = small_model<reference_backend, float>(backend);
    sft_trainer trainer(model, {.steps = 10, .batch_size = 1});
    std::vector<index_t> rows;
    trainer.run(std::span<sft_example const>(all), seed, [&](sft_report const& r) { rows.push_back(r.rows); });
    return rows;
  };
  auto const one = tokens_of_run(1);
  std::vector<index_t> expected, first(one.begin(), one.begin() + 5), second(one.begin() + 5, one.end());
  for (sft_example const& e : all) expected.push_back(e.rows());
  std::ranges::sort(expected);
  std::ranges::sort(first);
  std::ranges::sort(second);
  CHECK(first == expected);
  CHECK(second == expected);
  CHECK(tokens_of_run(1) == one);
  CHECK(tokens_of_run(2) != one);
}

TEST_CASE("examples of a task: prompt, reference solution, end token of the chat format") {
  byte_bpe const words(arithmetic_text::vocabulary());
  arithmetic const task;
  task_item const item = task.training_item(0, 0);
  CHECK(answer_end_id(words, {}) == words.eos());
  sft_example const e = make_sft_example(task, item, words, words.eos());
  CHECK(e.prompt == task.prompt(item, words));
  CHECK(e.completion.back() == words.eos());
  CHECK(words.decode(std::span(e.completion).first(e.completion.size() - 1)) == " " + item.solution);
  CHECK(e.rows() == index_t(e.prompt.size() + e.completion.size()) - 1);
  task_item without = item;
  without.solution.clear();
  CHECK_THROWS_AS(make_sft_example(task, without, words, words.eos()), usage_error);

  byte_bpe_spec spec = arithmetic_text::vocabulary();
  for (char const* const name : {"<|im_start|>", "<|im_end|>"}) {
    spec.tokens.emplace_back(name);
    spec.kinds.push_back(token_kind::special);
  }
  byte_bpe const chatml(spec);
  CHECK(answer_end_id(chatml, named_chat(chatml, "chatml")) == chatml.token_id("<|im_end|>"));
  CHECK(answer_end_id(chatml, {}) == words.eos());
  spec.eos = -1;
  CHECK(answer_end_id(byte_bpe(spec), {}, std::vector{7, 8}) == 7);
  CHECK_THROWS_AS(answer_end_id(byte_bpe(spec), {}), usage_error);
}

}  // namespace sft_test
