// Mask training on the CUDA backend against the plain loops.
#include "catch.hpp"
#include "cuda/small_device_model.hpp"
#include "cuda/thread_orders.hpp"
#include "saliency/items.hpp"

using namespace atmanrl_test;

namespace {

struct mask_outcome {
  std::vector<double> unmasked, suppressed, gradient;
};

template <class W, class B>
mask_outcome evaluate(B& backend, mask_options const& options) {
  using T = compute_t<W>;
  model_config const config = device_config();
  auto model = random_model<B, W>(backend, config);
  auto const items = ragged_items(config.vocab);
  auto const views = views_of(items);
  mask_batch<llama<B, W>> batch(model, views, options);
  mask_outcome o;
  o.unmasked = batch.unmasked();
  // Values on both sides of the clamp, and one on it.
  auto values = random_values(batch.parameter_count(), 40, 0.2);
  for (double& v : values) v -= 0.3;
  values[0] = 0;
  batch.values().assign(converted<T>(values));
  o.suppressed = batch.cross_entropies_and_gradient();
  o.gradient = as_doubles(batch.gradient());
  return o;
}

template <class F>
void for_each_option(F const& f) {
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    mask_options o;
    o.shape = shape;
    o.rows = rows;
    f(o, combination(shape, rows));
  });
  for (mask_sharing const sharing : {mask_sharing::per_layer, mask_sharing::per_head}) {
    mask_options o;
    o.shape = mask_shape::column;
    o.sharing = sharing;
    f(o, "separate masks");
    o.layers = {1};
    f(o, "separate masks of one layer");
  }
}

template <class B>
std::vector<saliency_result> trained(B& backend, mask_options const& o) {
  using W = std::conditional_t<std::is_same_v<B, reference_backend>, double, double>;
  model_config const config = device_config();
  auto model = random_model<B, W>(backend, config);
  auto const items = ragged_items(config.vocab);
  return train_masks(model, std::span<saliency_item const>(views_of(items)), o);
}

}  // namespace

TEST_CASE(
    "cuda masks: cross-entropies and the mask's gradient are those of the plain loops, for every shape and row "
    "choice") {
  cuda_backend device;
  reference_backend plain;
  for_each_option([&](mask_options const& o, std::string const& name) {
    INFO(name);
    auto const expected = evaluate<double>(plain, o);
    auto const compare = [&](mask_outcome const& got, double tolerance) {
      CHECK(relative_difference(got.unmasked, expected.unmasked) < tolerance);
      CHECK(relative_difference(got.suppressed, expected.suppressed) < tolerance);
      CHECK(relative_difference(got.gradient, expected.gradient) < tolerance);
    };
    compare(evaluate<double>(device, o), 1e-11);
    compare(evaluate<float>(device, o), 3e-5);
    compare(evaluate<bf16>(device, o), 0.06);
  });
}

TEST_CASE("cuda masks: twenty steps of training end with the masks of the plain loops") {
  cuda_backend device;
  reference_backend plain;
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    INFO(combination(shape, rows));
    mask_options o = mask_options{}.in_steps(20);
    o.shape = shape;
    o.rows = rows;
    o.sparsity = 0.1;
    auto const got = trained(device, o), expected = trained(plain, o);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CHECK(relative_difference(got[i].mask, expected[i].mask) < 1e-6);
      CHECK(got[i].ce_end == Approx(expected[i].ce_end).epsilon(1e-8));
      CHECK(got[i].re_enabled == Approx(expected[i].re_enabled).epsilon(1e-6));
    }
  });
}

TEST_CASE("cuda masks: an objective over distributions and a mask that stops early do as on the host") {
  cuda_backend device;
  reference_backend plain;
  mask_options o = mask_options{}.in_steps(20);
  o.shape = mask_shape::column;
  for (bool const divergence : {true, false}) {
    o.objective = objectives::by_name(divergence ? "kl_to_unmasked" : "cross_entropy");
    o.stop_tolerance = divergence ? std::optional<double>() : std::optional<double>(0.05);
    auto const got = trained(device, o), expected = trained(plain, o);
    int fewest = 20;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CHECK(got[i].steps == expected[i].steps);
      CHECK(relative_difference(got[i].mask, expected[i].mask) < 1e-6);
      fewest = std::min(fewest, expected[i].steps);
    }
    if (!divergence) CHECK(fewest < 20);
  }
}

TEST_CASE("cuda masks: gradients have the same bits in every order of threads") {
  cuda_backend device;
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    mask_options o;
    o.shape = shape;
    o.rows = rows;
    CHECK(same_in_every_thread_order([&] { return evaluate<float>(device, o).gradient; }));
  });
}
