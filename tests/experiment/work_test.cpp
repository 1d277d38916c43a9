// The formulas of experiment/work.hpp against the library's own calls, walked over a backend that counts.
#include "../../bench/counted_step.hpp"

#include "catch.hpp"

using namespace atmanrl;
namespace work_test {

using atmanrl_bench::counted_step;

namespace {

model_config small_shape(bool tied) {
  model_config c;
  c.layers = 3, c.hidden = 24, c.heads = 6, c.kv_heads = 2, c.head_dim = 8, c.ffn = 40,
  c.vocab = 2500;  // three chunks of vocabulary
  c.max_positions = 512, c.tied_head = tied;
  return c;
}

void same(phase_work const& formula, phase_work const& counted) {
  auto const equal = [](work const& a, work const& b) {
    CHECK(a.operations == Approx(b.operations).epsilon(1e-12));
    CHECK(a.bytes == Approx(b.bytes).epsilon(1e-12));
  };
  SECTION("products") { equal(formula.products, counted.products); }
  SECTION("weight gradients") { equal(formula.weight_gradients, counted.weight_gradients); }
  SECTION("attention") { equal(formula.attention, counted.attention); }
  SECTION("rest") { equal(formula.rest, counted.rest); }
}

template <class W>
void compare_all(model_config const& c, step_shape shape) {
  shape.weight_bytes = sizeof(W);
  counted_step<W> step(c, shape);
  SECTION("prefill") {
    step.sample(1);
    same(prefill_work(c, shape), step.backend.total());
  }
  SECTION("prefill and decoding") {
    step.sample(shape.completion);
    same(prefill_work(c, shape) + decoding_work(c, shape), step.backend.total());
  }
  SECTION("mask training") {
    step.train_masks(shape.mask_steps);
    same(mask_training_work(c, shape), step.backend.total());
  }
  SECTION("policy update") {
    step.update(shape.passes);
    same(policy_update_work(c, shape), step.backend.total());
  }
}

step_shape small_step() {
  step_shape s;
  s.prompts = 2, s.group = 3, s.prompt = 11, s.completion = 17, s.cot = 13, s.delimiter = 2, s.answer = 3,
  s.mask_steps = 4;
  return s;
}

}  // namespace

TEST_CASE("work: the formulas count what the library does, pairs in all later rows") {
  compare_all<bf16>(small_shape(true), small_step());
}

TEST_CASE("work: the formulas count what the library does, columns in answer rows") {
  step_shape s = small_step();
  s.shape = mask_shape::column;
  s.rows = mask_rows::answer_rows;
  compare_all<float>(small_shape(true), s);
}

TEST_CASE("work: the formulas count what the library does, with a head of its own and several micro-batches") {
  step_shape s = small_step();
  s.row_budget = 50;  // a prompt and two of its three rollouts
  s.rows = mask_rows::answer_rows;
  compare_all<bf16>(small_shape(false), s);
}

TEST_CASE("work: more rows than one block of the head") {
  step_shape s = small_step();
  s.group = 20, s.completion = 20;  // 800 scored rows in blocks of 256
  s.shape = mask_shape::column;
  compare_all<bf16>(small_shape(true), s);
}

TEST_CASE("work: one row of a matrix product is bound by memory, a thousand rows by arithmetic") {
  machine_limits const h100;
  auto const product = [](double rows) { return work{2 * rows * 3072 * 3072, 2 * 3072 * 3072 + 8 * rows * 3072}; };
  CHECK(h100.floor(work_kind::products, product(1)) == product(1).bytes / h100.bandwidth);
  CHECK(h100.floor(work_kind::products, product(1024)) == product(1024).operations / h100.products);
  CHECK(h100.floor(work_kind::rest, {67e12, 1}) == 1.0);
}

TEST_CASE("work: six operations per parameter and token in training, two in sampling") {
  model_config const c = atmanrl_bench::llama_3_2_3b();
  step_shape s;
  s.passes = 1;
  double const tokens = 200 + 8 * 399.0, parameters = 28.0 * (3072.0 * 5120 + 3072.0 * 3072 + 3 * 3072.0 * 8192);
  double const head = 128256.0 * 3072 * 8 * 400;
  // The head's logits are computed again in the backward pass.
  phase_work const update = policy_update_work(c, s);
  CHECK(update.products.operations + update.weight_gradients.operations ==
        Approx(6 * parameters * tokens + 8 * head).epsilon(1e-9));
  CHECK(prefill_work(c, s).products.operations == Approx(2 * parameters * 200 + 2 * 128256.0 * 3072).epsilon(1e-9));
}

}  // namespace work_test
