// Mask training against PyTorch: cross-entropies, gradient at the start, the trained mask and both readings of the
// reward.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/saliency/mask_training.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace mask_fixture_test {
namespace {

struct stored_rollout {
  std::vector<int> prompt, cot, delimiter, answer;
  saliency_item item() const { return {prompt, cot, delimiter, answer}; }
};

struct tolerances {
  double ce, gradient, mask;
};

// All rollouts of the fixture in one packed batch, for every shape, rows, scale and sparsity.
template <class B, class W>
void check_masks(tolerances const& allowed) {
  json const f = read_json_file(fixture("llama/mask.json"));
  B backend;
  using model_type = llama<B, W>;
  using T = typename model_type::scalar;
  model_type model = model_type::load(backend, fixture("llama") / f.at("model").get<std::string>());
  std::vector<stored_rollout> rollouts;
  for (auto const& r : f.at("rollouts"))
    rollouts.push_back({r.at("prompt"), r.at("cot"), r.at("delimiter"), r.at("answer")});
  std::vector<saliency_item> items;
  for (auto const& r : rollouts) items.push_back(r.item());

  json const& cases = f.at("cases");
  REQUIRE(cases.size() == 8 * items.size());
  for (std::size_t first = 0; first < cases.size(); first += items.size()) {
    json const& settings = cases[first];
    mask_options options;
    options.shape = settings.at("shape") == "pair" ? mask_shape::pair : mask_shape::column;
    options.rows = settings.at("rows") == "all_later" ? mask_rows::all_later : mask_rows::answer_rows;
    options.init = f.at("init");
    options.clamp = f.at("clamp");
    options.scale = settings.at("scale");
    options.sparsity = settings.at("sparsity");
    options.steps = f.at("steps");
    options.learning_rate = f.at("lr");
    options.optimizer = {
        .beta1 = f.at("beta1"), .beta2 = f.at("beta2"), .eps = f.at("eps"), .weight_decay = f.at("weight_decay")};

    mask_batch<model_type> batch(model, items, options.shape, options.rows, options.scale, options.clamp);
    batch.values().assign(std::vector<T>(std::size_t(batch.parameter_count()), T(options.init)));
    auto const ce_start = batch.cross_entropies_and_gradient();
    auto const gradient = batch.gradient().to_host();
    auto const trained = train_masks(model, std::span<saliency_item const>(items), options);
    REQUIRE(trained.size() == items.size());

    for (std::size_t i = 0; i < items.size(); ++i) {
      json const& expected = cases[first + i];
      CAPTURE(B::name, sizeof(W), settings.at("shape"), settings.at("rows"), options.scale, i);
      REQUIRE(expected.at("rollout") == i);
      mask_extent const& e = batch.extents()[i];
      REQUIRE(e.count == expected.at("parameters").get<index_t>());
      auto const near = [&](char const* field, double margin) {
        return Approx(expected.at(field).get<double>()).epsilon(0).margin(margin);
      };
      CHECK(ce_start[i] == near("ce_start", allowed.ce));
      CHECK(trained[i].ce_unmasked == near("ce_unmasked", allowed.ce));
      CHECK(trained[i].ce_start == near("ce_start", allowed.ce));
      std::vector<T> const mine(gradient.begin() + e.offset, gradient.begin() + e.offset + e.count);
      CHECK(relative_difference(mine, expected.at("gradient").get<std::vector<double>>()) < allowed.gradient);

      CHECK(trained[i].ce_end == near("ce_end", 20 * allowed.mask));
      CHECK(relative_difference(trained[i].mask, expected.at("mask").get<std::vector<double>>()) < allowed.mask);
      CHECK(relative_difference(trained[i].token_saliency, expected.at("token_saliency").get<std::vector<double>>()) <
            2 * allowed.mask);
      CHECK(trained[i].re_enabled == near("re_enabled", allowed.mask));
      CHECK(trained[i].as_printed == near("as_printed", allowed.mask));
    }
  }
}

}  // namespace

TEST_CASE(
    "mask training: gradients, trained masks, saliency and rewards of every shape and rows equal PyTorch's, in "
    "double") {
  check_masks<reference_backend, double>({.ce = 1e-9, .gradient = 1e-9, .mask = 1e-6});
}

TEST_CASE(
    "mask training: gradients, trained masks, saliency and rewards of every shape and rows equal PyTorch's, in float") {
  check_masks<reference_backend, float>({.ce = 1e-5, .gradient = 1e-4, .mask = 1e-3});
}

TEST_CASE(
    "mask training: gradients, trained masks, saliency and rewards of every shape and rows equal PyTorch's, on the CPU "
    "backend") {
  check_masks<cpu_backend, float>({.ce = 1e-5, .gradient = 1e-4, .mask = 1e-3});
}

}  // namespace mask_fixture_test
