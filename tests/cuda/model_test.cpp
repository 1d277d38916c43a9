// The whole two-layer model on the CUDA backend against the plain loops: logits, losses, all gradients.
#include "catch.hpp"
#include "cuda/small_device_model.hpp"
#include "cuda/thread_orders.hpp"

using namespace atmanrl_test;

namespace {

struct outcome {
  std::vector<double> logits, log_p, entropy, gradient;
};

struct post_norm_block : llama_block {
  static constexpr std::string_view model_type = "post_norm";
  using residual = nn::post_norm;
  static architecture files() { return {.class_name = "PostNormForCausalLM"}; }
};

/// One forward and backward pass over a ragged tree.
template <class W, class B>
outcome run(B& backend, model_config const& config, lora_config const* adapters = nullptr,
            kv_storage storage = kv_storage::full) {
  using T = compute_t<W>;
  auto model = random_model<B, W>(backend, config);
  model.set_kv_storage(storage);
  if (adapters) {
    model.attach(*adapters, 1);
    // Numbers that a bf16 holds, which is what a device keeps adapters of models in bf16 as.
    auto values = random_values(model.trainable_layout().size(), 70, 0.4);
    for (double& x : values) x = double(float(bf16(float(x))));
    model.assign_trainable(on_backend<B, T>(backend, values).cview());
  }
  auto const tree = ragged_tree(config.vocab);
  laid_out<B, T> on(backend, config, tree, 0, storage);
  forward_pass<B, T> pass(backend);
  model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::parameters});
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
  auto gradient =
      on_backend<B, T>(backend, std::vector<double>(std::size_t(model.trainable_layout().size()), 0.25));  // added to
  auto const dlog_p = converted<T>(random_values(index_t(scored.size()), 21)),
             dentropy = converted<T>(random_values(index_t(scored.size()), 22));
  model.backward(on.cache, pass, {.log_p = dlog_p, .entropy = dentropy}, {.parameters = gradient.view()});
  o.gradient = as_doubles(gradient);
  for (double& x : o.gradient) x -= 0.25;
  return o;
}

/// Every parameter by itself, so that a small one cannot hide after a large one.
void compare(outcome const& got, outcome const& expected, parameter_layout const& layout, double tolerance) {
  CHECK(relative_difference(got.logits, expected.logits) < tolerance);
  CHECK(relative_difference(got.log_p, expected.log_p) < tolerance);
  CHECK(relative_difference(got.entropy, expected.entropy) < tolerance);
  for (parameter_info const& p : layout.all()) {
    INFO(p.name);
    auto const part = [&](std::vector<double> const& all) {
      return std::span(all).subspan(std::size_t(p.offset), std::size_t(p.size()));
    };
    CHECK(relative_difference(part(got.gradient), part(expected.gradient)) < tolerance);
  }
}

/// Log-probabilities of tokens[2..]: the first two rows in one call, each later one by itself over the cache, as in
/// decoding.
template <class W, class B>
std::vector<double> decoded(B& backend, model_config const& config, std::vector<int> const& tokens,
                            kv_storage storage) {
  using T = compute_t<W>;
  auto model = random_model<B, W>(backend, config);
  model.set_kv_storage(storage);
  auto cache = model.new_cache(index_t(tokens.size()));
  int const sequence = cache.add_sequence(index_t(tokens.size()));
  std::vector<double> all;
  for (std::size_t at = 0; at + 1 < tokens.size();) {
    std::size_t const next = at == 0 ? 2 : at + 1;
    forward_pass<B, T> pass(backend);
    ragged_batch batch;
    batch.add(sequence, std::vector<int>(tokens.begin() + std::ptrdiff_t(at), tokens.begin() + std::ptrdiff_t(next)));
    model.forward(cache, batch, pass);
    model.log_probs(pass, std::vector<scored_token>{{batch.rows() - 1, tokens[next]}}, 1);
    all.push_back(double(pass.log_p()[0]));
    at = next;
  }
  return all;
}

}  // namespace

TEST_CASE("cuda model: logits, losses and every gradient are those of the plain loops") {
  cuda_backend device;
  reference_backend plain;
  for (model_config const& config : {device_config(), rich_device_config()}) {
    auto const expected = run<double>(plain, config);
    parameter_layout const layout(config, standard_kind(config));
    compare(run<double>(device, config), expected, layout, 1e-11);
    compare(run<float>(device, config), expected, layout, 3e-5);
    // A product with bf16 weights rounds its activations to bf16, an error of up to 2^-9 in each factor.
    compare(run<bf16>(device, config), run<bf16>(plain, config), layout, 0.06);
  }
}

TEST_CASE("cuda model: adapters over frozen weights have the gradients of the plain loops") {
  cuda_backend device;
  reference_backend plain;
  model_config const config = device_config();
  for (lora_config const& l : {lora_config{.rank = 3, .alpha = 5, .targets = {"q_proj", "v_proj", "o_proj", "up_proj"}},
                               lora_config{.rank = 4, .alpha = 4}}) {
    parameter_layout const layout(config, standard_kind(config), l);
    compare(run<float>(device, config, &l), run<double>(plain, config, &l), layout, 3e-5);
    // What goes between A and B, and its gradient, are rounded once more, and so are both factors of A's and B's own.
    compare(run<bf16>(device, config, &l), run<bf16>(plain, config, &l), layout, 0.1);
  }
}

TEST_CASE("cuda model: norms after the halves of a layer, whose products read the stream as it is, rounded") {
  cuda_backend device({.bf16_weight_gradients = true});
  reference_backend plain;
  auto const run_block = [](auto& backend, bool recompute) {
    using B = std::remove_reference_t<decltype(backend)>;
    model_config config = device_config();
    config.architecture = post_norm_block::model_type;
    decoder<B, bf16, post_norm_block> model(backend, config);
    index_t const size = model.layout().size();
    model.assign(on_backend<B, float>(backend, random_values(size, 3, 0.5)).cview());
    laid_out<B, float> on(backend, config, ragged_tree(config.vocab), 0);
    forward_pass<B, float> pass(backend);
    pass.set_recompute(recompute);
    model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::parameters});
    auto const scored = score_all(on.batch.rows(), config.vocab);
    model.log_probs(pass, scored);
    auto gradient = tensor<B, float, 1>::zeros(backend, {size});
    auto const dlog_p = converted<float>(random_values(index_t(scored.size()), 21));
    model.backward(on.cache, pass, {.log_p = dlog_p}, {.parameters = gradient.view()});
    return std::vector{converted<double>(pass.log_p()), as_doubles(gradient)};
  };
  auto const got = run_block(device, false), expected = run_block(plain, false);
  for (std::size_t i = 0; i < 2; ++i) CHECK(relative_difference(got[i], expected[i]) < 0.02);
  CHECK(run_block(device, true) == got);
}

TEST_CASE(
    "cuda model: keys and values in bf16 give the results and gradients of the plain loops, in training and decoding") {
  cuda_backend device;
  reference_backend plain;
  model_config const config = rich_device_config();
  auto const in = [&]<class W>(auto& backend, W, kv_storage storage) {
    return run<W>(backend, config, nullptr, storage);
  };
  auto const rounded = in(plain, float{}, kv_storage::bf16), full = in(plain, float{}, kv_storage::full);
  parameter_layout const layout(config, standard_kind(config));
  compare(in(device, float{}, kv_storage::bf16), rounded, layout, 3e-5);
  compare(in(device, bf16{}, kv_storage::bf16), in(plain, bf16{}, kv_storage::bf16), layout, 0.06);
  CHECK(relative_difference(rounded.log_p, full.log_p) > 3e-4);  // so the comparison tells the two storages apart

  auto const tokens = random_tokens(9, config.vocab, 40);
  auto const expected = decoded<float>(plain, config, tokens, kv_storage::bf16);
  CHECK(relative_difference(decoded<float>(device, config, tokens, kv_storage::bf16), expected) < 3e-5);
  CHECK(relative_difference(decoded<float>(plain, config, tokens, kv_storage::full), expected) > 3e-4);
}

TEST_CASE(
    "cuda model: keys and values in bf16 are refused by a model in double, and a cache of the other storage by any") {
  cuda_backend device;
  auto doubles = random_model<cuda_backend, double>(device, device_config());
  CHECK_THROWS_WITH(doubles.set_kv_storage(kv_storage::bf16), Catch::Contains("16-bit keys and values"));
  auto model = random_model<cuda_backend, float>(device, device_config());
  auto cache = model.new_cache(4);
  model.set_kv_storage(kv_storage::bf16);
  forward_pass<cuda_backend, float> pass(device);
  ragged_batch batch;
  batch.add(cache.add_sequence(4), std::vector<int>{1, 2});
  CHECK_THROWS_WITH(model.forward(cache, batch, pass), Catch::Contains("the cache stores full scalars"));
}

TEST_CASE("cuda model: weight gradients in bf16 and products in TF32 are what the options ask for") {
  reference_backend plain;
  model_config const config = rich_device_config();
  auto const expected = run<double>(plain, config);
  parameter_layout const layout(config, standard_kind(config));
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
