// Blocks that are not Llama's against PyTorch and transformers, read from Hugging Face folders and from GGUF files:
// logits, loss, every parameter's gradient, and the gradient of masks that are added to a model's own score edit.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/blocks.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/saliency/mask_batch.hpp>
#include <atmanrl/testing/block.hpp>

#include "catch.hpp"
#include "model_fixture.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace block_fixture_test {
namespace {

struct tolerances {
  double logits, gradients, cross_entropies, masks;
};

// All rollouts of the fixture in one packed batch, at the mask's start.
template <class Model>
void check_masks(std::string const& name, std::filesystem::path const& files, tolerances const& allowed) {
  using T = typename Model::scalar;
  json const f = read_json_file(fixture("blocks") / (name + ".mask.json"));
  std::vector<std::vector<int>> ids;
  for (auto const& r : f.at("rollouts"))
    for (char const* const part : {"prompt", "cot", "delimiter", "answer"}) ids.push_back(r.at(part));
  std::vector<saliency_item> items;
  for (std::size_t i = 0; i < ids.size(); i += 4) items.push_back({ids[i], ids[i + 1], ids[i + 2], ids[i + 3]});
  json const& cases = f.at("cases");
  REQUIRE(cases.size() == 2 * items.size());

  typename Model::backend_type backend;
  Model model = Model::load(backend, files);
  for (std::size_t first = 0; first < cases.size(); first += items.size()) {
    json const& settings = cases[first];
    REQUIRE(settings.at("rows") == "all_later");
    mask_shape const shape = settings.at("shape") == "pair" ? mask_shape::pair : mask_shape::column;
    mask_batch<Model> batch(model, items, shape, mask_rows::all_later, settings.at("scale"), f.at("clamp"));
    std::vector<double> const unmasked = batch.unmasked();
    batch.values().assign(std::vector<T>(std::size_t(batch.parameter_count()), T(f.at("init").get<double>())));
    std::vector<double> const start = batch.cross_entropies_and_gradient();
    auto const gradient = batch.gradient().to_host();
    for (std::size_t i = 0; i < items.size(); ++i) {
      json const& expected = cases[first + i];
      CAPTURE(files.filename().string(), Model::backend_type::name, sizeof(T), settings.at("shape"), i);
      REQUIRE(expected.at("rollout") == i);
      mask_extent const& e = batch.extents()[i];
      REQUIRE(e.count == expected.at("parameters").get<index_t>());
      CHECK(std::abs(unmasked[i] - expected.at("ce_unmasked").get<double>()) < allowed.cross_entropies);
      CHECK(std::abs(start[i] - expected.at("ce_start").get<double>()) < allowed.cross_entropies);
      std::vector<T> const mine(gradient.begin() + e.offset, gradient.begin() + e.offset + e.count);
      CHECK(relative_difference(mine, expected.at("gradient").get<std::vector<double>>()) < allowed.masks);
    }
  }
}

template <class Model>
void check(std::string const& name, tolerances const& allowed) {
  for (char const* const ending : {"", ".gguf"}) {
    auto const files = fixture("blocks") / (name + ending);
    check_model<Model>(fixture("blocks") / name, files, allowed.logits, allowed.gradients);
    check_masks<Model>(name, files, allowed);
  }
}

template <class B, class W>
void check_all(tolerances const& allowed) {
  for (char const* const name : {"llama_bias", "qwen3", "smollm3"}) check<decoder<B, W>>(name, allowed);
  check<decoder<B, W, gemma2_block>>("gemma2", allowed);
}

}  // namespace

TEST_CASE(
    "blocks: logits, gradients and mask gradients of Qwen3, Gemma 2, SmolLM3 and a Llama with biases equal PyTorch's, "
    "from folders and GGUF files, in double") {
  check_all<reference_backend, double>({.logits = 2e-6, .gradients = 1e-6, .cross_entropies = 1e-9, .masks = 1e-9});
}

TEST_CASE(
    "blocks: logits, gradients and mask gradients of Qwen3, Gemma 2, SmolLM3 and a Llama with biases equal PyTorch's, "
    "from folders and GGUF files, in float") {
  check_all<reference_backend, float>({.logits = 1e-4, .gradients = 1e-4, .cross_entropies = 1e-5, .masks = 1e-4});
}

TEST_CASE(
    "blocks: logits, gradients and mask gradients of Qwen3, Gemma 2, SmolLM3 and a Llama with biases equal PyTorch's, "
    "from folders and GGUF files, on the CPU backend") {
  check_all<cpu_backend, float>({.logits = 1e-4, .gradients = 1e-4, .cross_entropies = 1e-5, .masks = 1e-4});
}

TEST_CASE("blocks: Gemma 2's keeps what a block promises") {
  model_config c = testing::config_of_checked_block();
  c.architecture = "gemma2";
  c.score_cap = 0.7;
  c.embedding_scale = 3;
  c.per_layer = {{.window = 3}, {}};
  testing::check_block<gemma2_block>(c);
}

}  // namespace block_fixture_test
