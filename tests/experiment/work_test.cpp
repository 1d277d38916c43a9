// The formulas of experiment/work.hpp against the library's own calls, walked over a backend that counts.
#include "../../bench/counted_step.hpp"

#include <array>

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

template <class W, class Block = standard_block>
void compare_all(model_config const& c, step_shape shape) {
  shape.weight_bytes = sizeof(W);
  counted_step<W, Block> step(c, shape);
  SECTION("prefill") {
    step.sample(1);
    same(prefill_work<Block>(c, shape), step.backend.total());
  }
  SECTION("prefill and decoding") {
    step.sample(shape.completion);
    same(prefill_work<Block>(c, shape) + decoding_work<Block>(c, shape), step.backend.total());
  }
  SECTION("mask training") {
    step.train_masks(shape.mask_steps);
    same(mask_training_work<Block>(c, shape), step.backend.total());
  }
  SECTION("policy update") {
    step.update(shape.passes);
    same(policy_update_work<Block>(c, shape), step.backend.total());
  }
}

model_config small_gemma() {
  model_config c = small_shape(true);
  c.architecture = "gemma2";
  c.score_cap = 50, c.embedding_scale = 3;
  c.per_layer.resize(3);
  c.per_layer[0].window = c.per_layer[2].window = 5;
  return c;
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

TEST_CASE("work: the formulas count what the library does, heads normed one by one") {
  model_config c = small_shape(false);
  c.architecture = "qwen3";
  compare_all<bf16>(c, small_step());
}

TEST_CASE("work: the formulas count what the library does, biases everywhere and a layer that is not rotated") {
  model_config c = small_shape(true);
  c.architecture = "smollm3";
  c.qkv_bias = c.out_bias = c.mlp_bias = true;
  c.per_layer.resize(3);
  c.per_layer[1].rotary = false;
  step_shape s = small_step();
  s.rows = mask_rows::answer_rows;
  compare_all<float>(c, s);
}

TEST_CASE("work: the formulas count what the library does, two norms around each half, capped scores and windows") {
  compare_all<bf16, gemma2_block>(small_gemma(), small_step());
}

TEST_CASE("work: what one layer more costs in prefill is its parts' work by hand, for Llama, Qwen3 and Gemma 2") {
  step_shape s;
  s.prompts = 1, s.prompt = 2;
  // Of one layer, two rows; the width is 24, queries are 6 heads of 8, keys 2 heads of 8, the feed-forward layer 40.
  auto const layer = [&]<class Block>(Block, model_config c) {
    c.per_layer.clear();
    auto less = c;
    --less.layers;
    auto const more = prefill_work<Block>(c, s), fewer = prefill_work<Block>(less, s);
    return std::array{more.products.operations - fewer.products.operations,
                      more.attention.operations - fewer.attention.operations,
                      more.rest.operations - fewer.rest.operations};
  };
  // Products: 24 to 80, 48 to 24, 24 to 80, 40 to 24.
  double const products = 2 * 2 * (24.0 * 80 + 48 * 24 + 24 * 80 + 40 * 24);
  // Three pairs of a query and a key in each of 6 heads: 8 + 8 products and sums twice, 5 for the softmax.
  double const attention = 6 * 3 * (4.0 * 8 + 5);
  // Two rows: norms of 24 at 4 a number, the rotation of 8 heads at 3, SwiGLU of 40 at 5.
  double const norm = 2 * 4.0 * 24, rotation = 2 * 3.0 * 64;
  CHECK(layer(standard_block{}, small_shape(true)) ==
        std::array{products, attention, 2 * norm + rotation + 2 * 5.0 * 40});
  model_config qwen3 = small_shape(true);
  qwen3.architecture = "qwen3";
  CHECK(layer(standard_block{}, qwen3) ==
        std::array{products, attention, 2 * norm + 2 * 4.0 * 64 + rotation + 2 * 5.0 * 40});
  // A cap and a window at 4 a pair; 4 norms, each with 24 gains 1 + g; 2 sums of 24 behind them; GeGLU at 10.
  CHECK(layer(gemma2_block{}, small_gemma()) ==
        std::array{products, attention + 6 * 3 * 8.0, 4 * (norm + 24) + 2 * 2 * 24.0 + rotation + 2 * 10.0 * 40});
}

TEST_CASE("work: numbers of a model that the block does not stand for are refused") {
  CHECK_THROWS_WITH(prefill_work(small_gemma(), small_step()), ATMANRL_CONTAINS("gemma2"));
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
