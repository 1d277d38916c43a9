// What the counting backend counts while the library walks a step over it, against sums by hand.
#include "../../bench/counted_step.hpp"

#include <array>

#include "catch.hpp"

using namespace atmanrl;
namespace counting_test {

using atmanrl_bench::counted_step;
using atmanrl_bench::step_shape;

namespace {

model_config small_shape(bool tied) {
  model_config c;
  c.layers = 3, c.hidden = 24, c.heads = 6, c.kv_heads = 2, c.head_dim = 8, c.ffn = 40,
  c.vocab = 2500;  // three chunks of vocabulary
  c.max_positions = 512, c.tied_head = tied;
  return c;
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

/// Of a part of a step.
template <class W, class Block = standard_block, class Walk>
phase_work counted(model_config const& c, step_shape const& s, Walk const& walk) {
  counted_step<W, Block> step(c, s);
  walk(step);
  return step.backend.total();
}

}  // namespace

TEST_CASE("counting: what one layer more costs in prefill is its parts' work by hand, for Llama, Qwen3 and Gemma 2") {
  step_shape s;
  s.prompts = 1, s.prompt = 2;
  // Of one layer, two rows; the width is 24, queries are 6 heads of 8, keys 2 heads of 8, the feed-forward layer 40.
  auto const layer = [&]<class Block>(Block, model_config c) {
    c.per_layer.clear();
    auto less = c;
    --less.layers;
    auto const prefill = [&](model_config const& x) {
      return counted<bf16, Block>(x, s, [](auto& step) { step.sample(1); });
    };
    auto const more = prefill(c), fewer = prefill(less);
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
  // A cap and a window at 4 a pair; 4 norms, each with 24 gains 1 + g; 2 sums of 24 after them; GeGLU at 10.
  CHECK(layer(gemma2_block{}, small_gemma()) ==
        std::array{products, attention + 6 * 3 * 8.0, 4 * (norm + 24) + 2 * 2 * 24.0 + rotation + 2 * 10.0 * 40});
}

TEST_CASE(
    "counting: where products of few rows are asked for, a decoded token's activations and rotations are in products") {
  auto const decoded = [](model_config const& c, step_shape const& s, auto block, bool skinny) {
    std::array<double, 5> all{};  // operations and bytes of products, operations and bytes of the rest, calls
    auto const add = [&](index_t tokens, double sign) {
      counted_step<bf16, decltype(block)> step(c, s, {}, skinny);
      step.sample(tokens);
      phase_work const done = step.backend.total();
      all[0] += sign * done.products.operations, all[1] += sign * done.products.bytes;
      all[2] += sign * done.rest.operations, all[3] += sign * done.rest.bytes;
      for (auto const& [name, k] : step.backend.kernels()) all[4] += sign * k.calls;
    };
    add(3, 1);
    add(2, -1);
    return all;
  };
  // Of 3 layers and 6 rows: 40 numbers at 5 or 10 operations each; gate and up, in float, are not written and not read;
  // the numbers themselves, in bf16, are written by another kernel. Where heads are of 16, 8 that are rotated, 6 of
  // them queries, and 2 of values, at 3 operations a number: all were written and read in float, and afterwards queries
  // are written in float and keys and values into the cache; they are two times 16 more, of the tables, and two
  // integers.
  auto const check = [&](model_config const& c, auto block, double operations) {
    step_shape const s = small_step();
    auto const two = decoded(c, s, block, false), one = decoded(c, s, block, true);
    double const rows = 3 * 6, rotated = c.head_dim % 16 == 0 ? 1 : 0, activated = rows * 40,
                 head = rotated * rows * 16;
    double const into_cache = 4 * (6 + 2 + 2) * head + rotated * rows * (4 * 2 * 8 + 2 * 4);
    CHECK(one[0] - two[0] == operations * activated + 3 * 8 * head);
    CHECK(one[1] - two[1] == (2 - 2 * 4) * activated - 4 * 10 * head + into_cache);
    CHECK(one[2] - two[2] == -operations * activated - 3 * 8 * head);
    CHECK(one[3] - two[3] == -(2 + 2 * 4) * activated - 4 * 10 * head - into_cache);
    CHECK(one[4] - two[4] == -3 * (1 + rotated));
    // With more than 16 rows nothing is.
    step_shape many = s;
    many.group = 9;
    CHECK(decoded(c, many, block, true) == decoded(c, many, block, false));
  };
  check(small_shape(true), standard_block{}, 5);
  check(small_gemma(), gemma2_block{}, 10);
  model_config wide = small_shape(true);
  wide.head_dim = 16;
  check(wide, standard_block{}, 5);
}

TEST_CASE(
    "counting: a score is 4 head_dim + 5 operations of attention for every pair of a query and a key that it sees") {
  model_config const c = small_shape(true);
  step_shape const s = small_step();
  double const head = 4.0 * 8 + 5, heads = 3 * 6;        // of three layers
  double pairs = 2 * (11.0 * 12 / 2);                    // two prompts
  for (int t = 1; t < 17; ++t) pairs += 6 * (11.0 + t);  // six rollouts, a token each
  auto const sampling = counted<float>(c, s, [](auto& step) { step.sample(17); });
  CHECK(sampling.attention.operations == heads * head * pairs);
}

TEST_CASE("counting: a mask's entries are edits of 4 operations forwards and 6 backwards, and its rows are few") {
  model_config const c = small_shape(true);
  step_shape s = small_step();
  s.shape = mask_shape::column;
  s.rows = mask_rows::answer_rows;
  // The rows of a rollout that see the mask: delimiter and answer but its last token, each all of the chain.
  double const rollouts = 6, rows = 2 + 3 - 1, before = 11 + 13, entries = rows * 13, heads = 3 * 6;
  double const fresh = rows * (rows + 1) / 2, cached = rows * before;
  auto const of = [&](index_t steps) {
    return counted<float>(c, s, [&](auto& step) { step.train_masks(steps); }).attention.operations;
  };
  double const up = (fresh + cached) * (4.0 * 8 + 5) + 4 * entries,
               down = fresh * (10.0 * 8 + 6) + cached * (6.0 * 8 + 6) + 6 * entries + 2 * rows * 8;
  CHECK(of(3) - of(2) == rollouts * heads * (up + down));
}

TEST_CASE("counting: an update's bytes hold every weight's gradient, moments and new value, and its norm") {
  model_config const c = small_shape(true);
  auto const weights = counted<bf16>(c, small_step(), [](auto& step) { step.new_weights(); });
  double const n = double(parameter_layout(c, standard_kind(c)).size()), vectors = (2 * 3 + 1) * 24,
               matrices = n - vectors;
  // Read for the norm, then AdamW's seven, on whose way new weights are stored: matrices as bf16, vectors as float.
  CHECK(weights.rest.bytes == 4 * n * (1 + 7) + 2 * matrices + 4 * vectors);
  CHECK(weights.rest.operations == n * (2 + 1 + 14));
}

TEST_CASE("counting: what is allocated is known by what it is for, at the moment when it is most") {
  counting_backend backend;
  {
    memory_use_scope const weights(backend, memory_use::weights);
    tensor<counting_backend, float, 1> a(backend, {100});
    {
      memory_use_scope const masks(backend, memory_use::masks);
      tensor<counting_backend, float, 1> b(backend, {index_t(1) << 40});  // more than any machine has
      b.fill_zero();
    }
    tensor<counting_backend, float, 1> c(backend, {50});
    CHECK(backend.ledger()->now()[memory_use::weights] == 600);
    CHECK(backend.ledger()->now()[memory_use::masks] == 0);
  }
  CHECK(backend.ledger()->peak()[memory_use::weights] == 400);
  CHECK(backend.ledger()->peak()[memory_use::masks] == std::size_t{4} << 40);
  CHECK(backend.allocated_bytes() == 0);
}

TEST_CASE("counting: one row of a matrix product is bound by memory, a thousand rows by arithmetic") {
  machine_limits const h100;
  auto const product = [](double rows) { return work{2 * rows * 3072 * 3072, 2 * 3072 * 3072 + 8 * rows * 3072}; };
  CHECK(h100.floor(work_kind::products, product(1)) == product(1).bytes / h100.bandwidth);
  CHECK(h100.floor(work_kind::products, product(1024)) == product(1024).operations / h100.products);
  CHECK(h100.floor(work_kind::rest, {67e12, 1}) == 1.0);
}

TEST_CASE("counting: six operations per parameter and token in training, two in sampling") {
  model_config const c = atmanrl_bench::llama_3_2_3b();
  step_shape s;
  s.passes = 1;
  double const tokens = 200 + 8 * 399.0, parameters = 28.0 * (3072.0 * 5120 + 3072.0 * 3072 + 3 * 3072.0 * 8192);
  double const head = 128256.0 * 3072 * 8 * 400;
  // The head's logits are computed again in the backward pass.
  auto const update = counted<bf16>(c, s, [](auto& step) { step.update(1); });
  CHECK(update.products.operations + update.weight_gradients.operations ==
        Approx(6 * parameters * tokens + 8 * head).epsilon(1e-9));
  auto const prefill = counted<bf16>(c, s, [](auto& step) { step.sample(1); });
  CHECK(prefill.products.operations == Approx(2 * parameters * 200 + 2 * 128256.0 * 3072).epsilon(1e-9));
}

}  // namespace counting_test
