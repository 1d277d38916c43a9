#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/nn/prefix_tree_batch.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "tiny_model.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

using namespace atmanrl_test;

namespace language_model_test {
namespace {

constexpr int vocab = 11;
template <class T>
using tiny = tiny_model<reference_backend, T>;

/// Two prompts, one of them with two continuations, and tokens that are scored after all of them.
prefix_tree_batch small_tree() {
  prefix_tree_batch tree;
  int const first = tree.add(-1, std::vector{3, 1, 4});
  tree.score(first, {}, std::vector{1, 5, 9});
  tree.score(first, {std::vector{2, 6}}, std::vector{5, 3});
  tree.score(-1, {std::vector{7}}, std::vector{8, 10, 2});
  return tree;
}

/// A scalar of everything that log_probs gives, under the parameters.
template <class T>
struct evaluated {
  T loss{};
  std::vector<double> gradient;

  explicit evaluated(std::vector<T> const& parameters) {
    reference_backend backend;
    tiny<T> model(backend, tiny_config(vocab));
    set_trainable(model, parameters);
    prefix_tree_batch const tree = small_tree();
    auto const space = model.borrow_pass(tree.cache_rows());
    tree.open(model, space->cache, space->pass);
    model.forward(space->cache, tree.batch(), space->pass, {.mode = gradient_mode::parameters});
    model.log_probs(space->pass, tree.scored(), 1.5, true);
    auto const n = std::ptrdiff_t(tree.scored().size());
    auto const dlog_p = random_values(n, 5), dentropy = random_values(n, 6);
    loss = weighted_sum(space->pass.log_p(), dlog_p) + weighted_sum(space->pass.entropy(), dentropy);
    if constexpr (std::same_as<T, double>) {
      gradient.resize(parameters.size());
      model.backward(space->cache, space->pass, {.log_p = dlog_p, .entropy = dentropy},
                     {.parameters = as(gradient, {std::ptrdiff_t(gradient.size())})});
    }
  }
};

}  // namespace

TEST_CASE("decoders are language models that can be trained and take adapters") {
  STATIC_REQUIRE(LanguageModel<llama<reference_backend, double>>);
  STATIC_REQUIRE(TrainableModel<llama<cpu_backend, float>>);
  STATIC_REQUIRE(TrainableModel<llama<reference_backend, bf16>>);
  STATIC_REQUIRE(AdaptableModel<llama<reference_backend, bf16>>);
  STATIC_REQUIRE(AdaptableModel<decoder<cpu_backend, float, gemma2_block>>);
  STATIC_REQUIRE(detail::TakesLogitGradients<llama<cpu_backend, float>>);
  STATIC_REQUIRE(detail::ShowsAttention<llama<cpu_backend, float>>);
  STATIC_REQUIRE(detail::GivesInputGradients<llama<cpu_backend, float>>);
}

TEST_CASE("a model needs no members for adapters, attention maps and other gradients") {
  STATIC_REQUIRE(TrainableModel<tiny<double>>);
  STATIC_REQUIRE(TrainableModel<tiny_model<cpu_backend, float>>);
  STATIC_REQUIRE_FALSE(AdaptableModel<tiny<double>>);
  STATIC_REQUIRE_FALSE(detail::TakesLogitGradients<tiny<double>>);
  STATIC_REQUIRE_FALSE(detail::ShowsAttention<tiny<double>>);
  STATIC_REQUIRE_FALSE(detail::GivesInputGradients<tiny<double>>);
  STATIC_REQUIRE_FALSE(LanguageModel<int>);
}

TEST_CASE("tiny model: the gradient of every parameter is that of the complex step") {
  reference_backend backend;
  auto const parameters = read_trainable(random_tiny_model<reference_backend, double>(backend, vocab, 3));
  auto const slope =
      complex_step_gradient(parameters, [](std::vector<complex> const& at) { return evaluated<complex>(at).loss; });
  CHECK(relative_difference(evaluated<double>(parameters).gradient, slope) < 1e-12);
}

TEST_CASE("nothing below rl and saliency names a decoder") {
  auto const top = std::filesystem::path(ATMANRL_FIXTURES).parent_path().parent_path() / "include" / "atmanrl";
  std::size_t headers = 0;
  for (char const* folder : {"rl", "saliency"})
    for (auto const& entry : std::filesystem::recursive_directory_iterator(top / folder)) {
      if (!entry.is_regular_file()) continue;
      ++headers;
      std::ifstream in(entry.path());
      std::string const text{std::istreambuf_iterator<char>(in), {}};
      CAPTURE(entry.path().string());
      CHECK(text.find("nn/decoder") == std::string::npos);
      for (std::size_t at = text.find("llama"); at != std::string::npos; at = text.find("llama", at + 1))
        CHECK(text.compare(at, 8, "llama2.c") == 0);  // a format of files
    }
  CHECK(headers > 50);
}

}  // namespace language_model_test
