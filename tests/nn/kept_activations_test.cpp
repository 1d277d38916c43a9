// What can be read from a forward pass that kept its activations: the embedded tokens, their gradient, and attention.
#include <atmanrl/backend/reference_backend.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"

using namespace atmanrl_test;

namespace kept_activations_test {
namespace {

struct passed {
  reference_backend backend;
  model_config config = rich_config();
  llama<reference_backend, double> model = random_model<reference_backend, double>(backend, config);
  std::vector<branch> tree = ragged_tree(config.vocab);
  laid_out<reference_backend, double> on{backend, config, tree};
  forward_pass<reference_backend, double> pass{backend};
  std::vector<double> dlog_p;

  explicit passed(gradient_mode mode) {
    model.forward(on.cache, on.batch, pass, {.mode = mode});
    auto const scored = score_all(on.batch.rows(), config.vocab);
    model.log_probs(pass, scored);
    dlog_p = random_values(index_t(scored.size()), 21);
  }
  std::vector<double> input_gradient(std::vector<double> gradient = {}) {
    std::vector<double> dx(std::size_t(pass.rows() * config.hidden), 7.0);
    model.backward(
        on.cache, pass, {.log_p = dlog_p},
        {.parameters = as(gradient, {index_t(gradient.size())}), .input = as(dx, {pass.rows(), config.hidden})});
    return dx;
  }
};

}  // namespace

TEST_CASE("llama: the input of a pass is the embedding, and its gradients add up to the embedding's") {
  passed with(gradient_mode::parameters);
  parameter_info const& p = *with.model.layout().find("model.embed_tokens.weight");
  auto const parameters = read_parameters(with.model);
  auto const input = with.pass.input();
  for (index_t r = 0; r < with.pass.rows(); ++r)
    for (index_t c = 0; c < with.config.hidden; ++c)
      CHECK(input(r, c) == parameters[std::size_t(p.offset + with.on.batch.tokens()[std::size_t(r)] * p.columns + c)]);

  std::vector<double> gradient(std::size_t(with.model.layout().size()));
  std::vector<double> dx(std::size_t(with.pass.rows() * with.config.hidden));
  with.model.backward(with.on.cache, with.pass, {.log_p = with.dlog_p},
                      {.parameters = as(gradient, {index_t(gradient.size())}),
                       .input = as(dx, {with.pass.rows(), with.config.hidden})});
  std::vector<double> by_token(std::size_t(p.size()));
  for (std::size_t i = 0; i < dx.size(); ++i) {
    std::size_t const hidden = std::size_t(with.config.hidden), token = std::size_t(with.on.batch.tokens()[i / hidden]);
    by_token[token * hidden + i % hidden] += dx[i];
  }
  CHECK(relative_difference(by_token, std::span(gradient).subspan(std::size_t(p.offset), std::size_t(p.size()))) <
        1e-13);
  CHECK(relative_difference(passed(gradient_mode::activations).input_gradient(), dx) < 1e-13);
}

TEST_CASE("llama: attention of every layer sums to 1 over the keys of a row") {
  passed with(gradient_mode::activations);
  tensor<reference_backend, double, 2> attention(with.backend, {0, 0});
  for (index_t layer = 0; layer < with.config.layers; ++layer) {
    with.model.mean_attention(with.on.cache, with.pass, layer, attention);
    CHECK(attention.extent(0) == with.pass.rows());
    CHECK(attention.extent(1) == 9);  // 5 positions of the prompt and the first child, then 4
    auto const p = attention.to_host();
    for (index_t r = 0; r < attention.extent(0); ++r) {
      double sum = 0;
      for (index_t v = 0; v < attention.extent(1); ++v) sum += p[std::size_t(r * attention.extent(1) + v)];
      CHECK(sum == Approx(1).epsilon(1e-13));
    }
  }
}

TEST_CASE(
    "llama: a pass that kept the layers' inputs alone has the same attention, bit for bit, in any order of layers") {
  passed kept(gradient_mode::activations);
  passed again(gradient_mode::none);
  again.pass.set_recompute(true);
  laid_out<reference_backend, double> fresh{again.backend, again.config, again.tree};
  again.model.forward(fresh.cache, fresh.batch, again.pass, {.mode = gradient_mode::activations});
  again.model.log_probs(again.pass, score_all(fresh.batch.rows(), again.config.vocab));
  tensor<reference_backend, double, 2> a(kept.backend, {0, 0}), b(again.backend, {0, 0});
  for (index_t const layer : {1, 0, 1}) {
    kept.model.mean_attention(kept.on.cache, kept.pass, layer, a);
    again.model.mean_attention(fresh.cache, again.pass, layer, b);
    CHECK(a.to_host() == b.to_host());
  }
  std::vector<double> dx(std::size_t(again.pass.rows() * again.config.hidden));
  again.model.backward(fresh.cache, again.pass, {.log_p = kept.dlog_p},
                       {.input = as(dx, {again.pass.rows(), again.config.hidden})});
  CHECK(dx == kept.input_gradient());
}

TEST_CASE("llama: a pass that kept nothing, an unknown layer and a gradient of another shape are refused") {
  passed without(gradient_mode::none), with(gradient_mode::activations);
  tensor<reference_backend, double, 2> attention(with.backend, {0, 0});
  CHECK_THROWS_WITH(without.pass.input(), ATMANRL_CONTAINS("did not keep its activations"));
  CHECK_THROWS_WITH(without.model.mean_attention(without.on.cache, without.pass, 0, attention),
                    ATMANRL_CONTAINS("kept its activations"));
  CHECK_THROWS_WITH(with.model.mean_attention(with.on.cache, with.pass, 2, attention),
                    ATMANRL_CONTAINS("layer 2 of a model of 2 layers"));
  std::vector<double> dx(10);
  CHECK_THROWS_WITH(with.model.backward(with.on.cache, with.pass, {.log_p = with.dlog_p}, {.input = as(dx, {1, 10})}),
                    ATMANRL_CONTAINS("a gradient [1, 10] for an input [25, 10]"));
}

}  // namespace kept_activations_test
