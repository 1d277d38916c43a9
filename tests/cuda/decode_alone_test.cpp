// What a decoded row gives where products of few rows have their own order of additions: the same bits whatever other
// rows its batch has. The emulation's cuBLAS adds in one order for any number of rows, so what shows here is that no
// product is left to it, and that attention cuts keys alike; on a device both.
#include <atmanrl/ops/attention.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/testing/on_backends.hpp>

#include "catch.hpp"
#include "cuda/launches_of.hpp"
#include "cuda/small_device_model.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <tuple>

namespace decode_alone_test {
using namespace atmanrl_test;

namespace {

/// Extents that whole packs of 16 bytes divide, and heads whose halves are rotated where they are projected.
model_config whole_packs() {
  model_config c = device_config();
  c.hidden = 24;
  c.head_dim = 16;
  c.ffn = 16;
  c.max_positions = 320;
  c.tied_head = false;
  c.stop_ids.clear();
  return c;
}

using model_type = llama<cuda_backend, bf16>;

/// Logits of one more token of each of the sequences of these lengths, whose prompts are computed one by one.
std::vector<std::vector<float>> next_logits(model_type& model, std::vector<int> const& lengths) {
  auto const space = model.borrow_pass(std::accumulate(lengths.begin(), lengths.end(), 0) + index_t(lengths.size()));
  ragged_batch rows;
  for (int const n : lengths) {
    int const id = space->cache.add_sequence(n + 1);
    ragged_batch prompt;
    prompt.add(id, random_tokens(n, 37, unsigned(n)));
    model.forward(space->cache, prompt, space->pass);
    rows.add(id, random_tokens(1, 37, unsigned(n) + 1000));
  }
  model.forward(space->cache, rows, space->pass);
  std::vector<int> all(lengths.size());
  std::iota(all.begin(), all.end(), 0);
  tensor<cuda_backend, float, 2> logits;
  model.logits(space->pass, all, logits);
  auto const values = logits.to_host();
  std::vector<std::vector<float>> each;
  for (std::size_t i = 0; i < lengths.size(); ++i)
    each.emplace_back(values.begin() + std::ptrdiff_t(37 * i), values.begin() + std::ptrdiff_t(37 * (i + 1)));
  return each;
}

/// Rollouts of one prompt, so many.
std::vector<completion> sampled(bool graphs, bool skinny, int rollouts, int tokens) {
  cuda_backend device({.skinny_products = skinny, .graphs = graphs});
  model_type model = random_model<cuda_backend, bf16>(device, whole_packs(), 3, 0.8);
  std::vector<std::vector<int>> const prompts{random_tokens(11, 37, 1)};
  generate_options o;
  o.group_size = rollouts;
  o.max_new_tokens = tokens;
  o.seed = 5;
  return generate(model, std::span(prompts), o, samplers::multinomial{})[0];
}

}  // namespace

TEST_CASE("cuda decoding alone: a row has the same logits among fifteen others, whatever their lengths") {
  cuda_backend device({.skinny_products = true});
  model_type model = random_model<cuda_backend, bf16>(device, whole_packs(), 3, 0.8);
  std::vector<int> const lengths{1, 2, 3, 5, 8, 13, 20, 4, 63, 64, 6, 9, 7, 130, 10, 11};
  auto const together = next_logits(model, lengths);
  for (std::size_t const i : {0u, 5u, 8u, 9u, 13u}) {
    CAPTURE(lengths[i]);
    CHECK(next_logits(model, {lengths[i]})[0] == together[i]);
    CHECK(next_logits(model, {lengths[(i + 1) % 16], lengths[i], 2})[1] == together[i]);
  }
}

namespace {

/// Attention of one row of each of some of 16 sequences, whose keys are cached: outputs and log-sum-exps, which a
/// model's products see rounded.
std::vector<std::vector<float>> attended(cuda_backend& device, std::vector<int> const& shown) {
  // So many heads that the keys of 16 sequences would be cut into longer parts than those of one.
  attention_extents const e{.heads = 10, .kv_heads = 10, .head_dim = 8, .bf16_weights = true};
  testing::inputs<cuda_backend, float> const in(device);
  auto const keys = in.random({16 * 300, 10, 8}, 1), values = in.random({16 * 300, 10, 8}, 2);
  std::vector<double> const all_qkv = random_values(16 * 30 * 8, 3);
  std::vector<attention_sequence> sequences;
  std::vector<attention_segment> segments;
  std::vector<int> trees{0};
  std::vector<float> qkv;
  attention_plan<device_space> plan;
  plan.most_rows = 1;
  for (int const s : shown) {
    int const length = std::array{1, 64, 65, 128, 200, 257, 300, 13}[std::size_t(s) % 8], i = int(segments.size());
    sequences.push_back({i, 1, length - 1, i, 1, 0});
    segments.push_back({300 * s, 0, length, -1});
    trees.push_back(i + 1);
    qkv.insert(qkv.end(), all_qkv.begin() + s * 240, all_qkv.begin() + (s + 1) * 240);
    plan.longest = std::max(plan.longest, length);
  }
  auto const on_device = std::tuple(in.array(sequences), in.array(segments), in.array(trees), in.array(qkv));
  plan.sequences = std::get<0>(on_device).cview();
  plan.segments = std::get<1>(on_device).cview();
  plan.trees = std::get<2>(on_device).cview();
  index_t const rows = index_t(shown.size());
  auto out = in.empty({rows, 10, 8});
  auto lse = in.empty({rows, 10});
  attention_forward(device, e, view<float const, 3, device_space>(std::get<3>(on_device).data(), {rows, 30, 8}),
                    keys.cview(), values.cview(), plan, attention::none::params_type{}, nullptr, out.view(),
                    lse.view());
  auto const o = out.to_host(), l = lse.to_host();
  std::vector<std::vector<float>> each;
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    each.emplace_back(o.begin() + 80 * r, o.begin() + 80 * (r + 1));
    each.back().insert(each.back().end(), l.begin() + 10 * r, l.begin() + 10 * (r + 1));
  }
  return each;
}

}  // namespace

TEST_CASE("cuda decoding alone: attention of a row has the same bits, whatever other rows and keys there are") {
  cuda_backend device({.skinny_products = true});
  std::vector<int> all(16);
  std::iota(all.begin(), all.end(), 0);
  auto const together = attended(device, all);
  for (int const s : all) {
    CAPTURE(s);
    CHECK(attended(device, {s})[0] == together[std::size_t(s)]);
  }
  CHECK(attended(device, {5, 3, 0})[1] == together[3]);
}

TEST_CASE("cuda decoding alone: a rollout has the same tokens and log-probabilities in a group of sixteen") {
  for (bool const graphs : {true, false}) {
    auto const group = sampled(graphs, true, 16, 6), alone = sampled(graphs, true, 1, 6);
    CHECK(alone[0].ids == group[0].ids);
    CHECK(alone[0].log_probs == group[0].log_probs);
    CHECK(alone[0].entropies == group[0].entropies);
  }
}

TEST_CASE("cuda decoding alone: a backend that only counts takes the memory that sampling takes") {
  auto const peak = [](bool counts) {
    cuda_backend device({.skinny_products = true, .only_counts = counts});
    model_type model(device, whole_packs());
    std::vector<std::vector<int>> const prompts{random_tokens(70, 37, 1)};
    generate_options o;
    o.group_size = 3;
    o.max_new_tokens = 3;
    generate(model, std::span(prompts), o, samplers::multinomial{});
    return device.peak_bytes();
  };
  CHECK(peak(true) == peak(false));
}

namespace {

/// Logits of some rows of one sequence, and the kernels that its layers took.
std::pair<std::vector<float>, std::uint64_t> logits_of(model_type& model, forward_options options) {
  auto const space = model.borrow_pass(5);
  ragged_batch rows;
  rows.add(space->cache.add_sequence(5), random_tokens(5, 37, 1));
  std::uint64_t kernels = 0;
#if defined(ATMANRL_CUDA_EMULATION)
  auto& launches = cuda_emulation::calls().by_name["cudaLaunchKernelEx"];
  kernels = launches;
#endif
  model.forward(space->cache, rows, space->pass, options);
#if defined(ATMANRL_CUDA_EMULATION)
  kernels = launches - kernels;
#endif
  tensor<cuda_backend, float, 2> logits;
  model.logits(space->pass, std::vector<int>{0, 1, 2, 3, 4}, logits);
  return {logits.to_host(), kernels};
}

/// Gradients of the parameters after those rows.
std::vector<float> gradient_of(model_type& model) {
  auto const space = model.borrow_pass(5);
  ragged_batch rows;
  rows.add(space->cache.add_sequence(5), random_tokens(5, 37, 1));
  model.forward(space->cache, rows, space->pass, {.mode = gradient_mode::parameters});
  auto const scored = score_all(5, 37);
  model.log_probs(space->pass, scored);
  auto gradient = tensor<cuda_backend, float, 1>::zeros(model.backend(), {model.layout().size()});
  std::vector<float> const dlog_p(scored.size(), 1);
  model.backward(space->cache, space->pass, {.log_p = dlog_p}, {.parameters = gradient.view()});
  return gradient.to_host();
}

}  // namespace

// In a layer's products are the rotation and the activation. A pass that keeps its products for the backward pass has
// the activation in a kernel of its own, and so has a layer that adds to the product first, of that and of the
// rotation.
TEST_CASE(
    "cuda decoding alone: logits are those without kernels for two, also with biases, adapters and kept products") {
  cuda_backend device({.skinny_products = true}), other;
  model_config const plain = whole_packs();
  std::uint64_t of_plain = 0;
  auto const check = [&](model_config const& c, std::vector<std::string> const& adapted, std::uint64_t more_a_layer,
                         std::uint64_t kept_more_a_layer, adapters are = adapters::on) {
    auto const model_on = [&](cuda_backend& b) {
      model_type model = random_model<cuda_backend, bf16>(b, c, 3, 0.8);
      if (adapted.empty()) return model;
      model.attach({.rank = 8, .alpha = 8, .targets = adapted}, 1);
      auto const values = random_values(model.trainable_layout().size(), 7, 0.4);
      model.assign_trainable(on_backend<cuda_backend, float>(b, values).cview());
      return model;
    };
    model_type model = model_on(device), of_cublas = model_on(other);
    auto const got = logits_of(model, {.mode = gradient_mode::none, .adapters = are}),
               kept = logits_of(model, {.mode = gradient_mode::activations, .adapters = are});
    CHECK(kept.first == got.first);
    // Products are rounded differently, and what is computed of them.
    CHECK(relative_difference(got.first, logits_of(of_cublas, {.adapters = are}).first) < 0.03);
#if defined(ATMANRL_CUDA_EMULATION)
    if (of_plain == 0) of_plain = got.second;
    CHECK(got.second - of_plain == more_a_layer * std::uint64_t(c.layers));
    CHECK(kept.second - got.second == kept_more_a_layer * std::uint64_t(c.layers));
#endif
  };
  check(plain, {}, 0, 1);
  model_config with_biases = plain;
  with_biases.qkv_bias = true;
  check(with_biases, {}, 2, 1);  // the bias, the rotation
  with_biases = plain;
  with_biases.mlp_bias = true;
  check(with_biases, {}, 3, 0);     // the biases of both matrices, the activation
  check(plain, {"q_proj"}, 3, 1);   // the adapter's two products, the rotation
  check(plain, {"up_proj"}, 3, 0);  // likewise the activation
  check(plain, {"q_proj", "up_proj"}, 0, 1, adapters::off);
}

TEST_CASE("cuda decoding alone: gradients are those without kernels for two, which leave keys in the cache alone") {
  cuda_backend device({.skinny_products = true}), other;
  model_type model = random_model<cuda_backend, bf16>(device, whole_packs(), 3, 0.8),
             of_cublas = random_model<cuda_backend, bf16>(other, whole_packs(), 3, 0.8);
  CHECK(relative_difference(gradient_of(model), gradient_of(of_cublas)) < 0.03);
}

#if defined(ATMANRL_CUDA_EMULATION)
TEST_CASE("cuda decoding alone: no product of a decoded token is cuBLAS', and each is a kernel") {
  auto const of_token = [](bool skinny, int rollouts) {
    auto const counts = launches_of(2, 3, [&](int tokens) { sampled(false, skinny, rollouts, tokens); });
    return std::pair(counts.kernels, counts.products);
  };
  CHECK(of_token(false, 2) == std::pair(std::uint64_t{19}, std::uint64_t{9}));
  CHECK(of_token(true, 2) ==
        std::pair(std::uint64_t{24}, std::uint64_t{0}));  // rotations and activations of two layers
  CHECK(of_token(true, 17) == std::pair(std::uint64_t{19}, std::uint64_t{9}));
}
#endif

}  // namespace decode_alone_test
