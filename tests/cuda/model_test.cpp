// The whole two-layer model on the CUDA backend against the plain loops: logits, losses, all gradients.
#include "catch.hpp"
#include "cuda/small_device_model.hpp"
#include "cuda/thread_orders.hpp"

using namespace atmanrl_test;

namespace {

struct outcome {
  std::vector<double> logits, log_p, entropy, gradient;
};

/// One forward and backward pass over a ragged tree.
template <class W, class B>
outcome run(B& backend, model_config const& config, lora_config const* adapters = nullptr) {
  using T = compute_t<W>;
  auto model = random_model<B, W>(backend, config);
  if (adapters) {
    model.attach(*adapters, 1);
    model.assign_trainable(uploaded<B, T>(backend, random_values(model.trainable_layout().size(), 70, 0.4)).cview());
  }
  auto const tree = ragged_tree(config.vocab);
  laid_out<B, T> on(backend, config, tree);
  forward_pass<B, T> pass(backend);
  model.forward(on.cache, on.batch, pass, gradient_mode::parameters);
  outcome o;
  tensor<B, T, 2> logits;
  std::vector<int> rows(std::size_t(on.batch.rows()));
  for (std::size_t r = 0; r < rows.size(); ++r) rows[r] = int(r);
  model.logits(pass, rows, logits);
  o.logits = as_doubles(logits);
  auto const scored = score_all(on.batch.rows(), config.vocab);
  model.log_probs(pass, scored, 0.8, true);
  o.log_p = converted<double>(pass.log_p());
  o.entropy = converted<double>(pass.entropy());
  auto gradient = uploaded<B, T>(backend, std::vector<double>(std::size_t(model.trainable_layout().size()), 0.25));  // added to
  auto const dlog_p = converted<T>(random_values(index_t(scored.size()), 21)), dentropy = converted<T>(random_values(index_t(scored.size()), 22));
  model.backward(on.cache, pass, std::span<T const>(dlog_p), std::span<T const>(dentropy), gradient.view());
  o.gradient = as_doubles(gradient);
  for (double& x : o.gradient) x -= 0.25;
  return o;
}

/// Every parameter by itself, so that a small one cannot hide behind a large one.
void compare(outcome const& got, outcome const& expected, parameter_layout const& layout, double tolerance) {
  CHECK(relative_difference(got.logits, expected.logits) < tolerance);
  CHECK(relative_difference(got.log_p, expected.log_p) < tolerance);
  CHECK(relative_difference(got.entropy, expected.entropy) < tolerance);
  for (parameter_info const& p : layout.all()) {
    INFO(p.name);
    auto const part = [&](std::vector<double> const& all) { return std::span(all).subspan(std::size_t(p.offset), std::size_t(p.size())); };
    CHECK(relative_difference(part(got.gradient), part(expected.gradient)) < tolerance);
  }
}

}  // namespace

TEST_CASE("cuda model: logits, losses and every gradient are those of the plain loops") {
  cuda_backend device;
  reference_backend plain;
  for (model_config const& config : {device_config(), rich_device_config()}) {
    auto const expected = run<double>(plain, config);
    parameter_layout const layout(config);
    compare(run<double>(device, config), expected, layout, 1e-11);
    compare(run<float>(device, config), expected, layout, 3e-5);
    // A product with bf16 weights rounds its activations to bf16, an error of up to 2^-9 in each factor.
    compare(run<bf16>(device, config), run<bf16>(plain, config), layout, 0.06);
  }
}

TEST_CASE("cuda model: adapters over frozen weights have the gradients of the plain loops") {
  cuda_backend device;
  reference_backend plain;
  using enum lora_target;
  model_config const config = device_config();
  for (lora_config const& l : {lora_config{.rank = 3, .alpha = 5, .targets = {q_proj, v_proj, o_proj, up_proj}}, lora_config{.rank = 4, .alpha = 4}}) {
    parameter_layout const layout(config, l);
    compare(run<float>(device, config, &l), run<double>(plain, config, &l), layout, 3e-5);
    compare(run<bf16>(device, config, &l), run<bf16>(plain, config, &l), layout, 0.06);
  }
}

TEST_CASE("cuda model: weight gradients in bf16 and products in TF32 are what the options ask for") {
  reference_backend plain;
  model_config const config = rich_device_config();
  auto const expected = run<double>(plain, config);
  parameter_layout const layout(config);
  cuda_backend rounded({.bf16_weight_gradients = true}), tf32({.tf32 = true});
  auto const with_bf16 = run<float>(rounded, config), with_tf32 = run<float>(tf32, config);
  compare(with_bf16, expected, layout, 0.02);
  compare(with_tf32, expected, layout, 0.02);
  CHECK(relative_difference(with_bf16.gradient, expected.gradient) > 1e-4);
  CHECK(relative_difference(with_bf16.log_p, expected.log_p) < 3e-5);  // gradients of weights alone are rounded
  CHECK(relative_difference(with_tf32.log_p, expected.log_p) > 3e-5);
}

TEST_CASE("cuda model: a forward and backward pass has the same bits in every order of threads") {
  cuda_backend device;
  CHECK(same_in_every_thread_order([&] {
    auto const o = run<bf16>(device, rich_device_config());
    std::vector<double> all = o.logits;
    for (auto const* v : {&o.log_p, &o.entropy, &o.gradient}) all.insert(all.end(), v->begin(), v->end());
    return all;
  }));
}
