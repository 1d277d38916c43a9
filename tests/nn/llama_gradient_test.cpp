// Every parameter's gradient against the complex step through the whole model, in double.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/testing/block.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"
#include "strangers.hpp"

using namespace atmanrl_test;

namespace llama_gradient_test {
namespace {

/// An attention policy under test, and values of its parameters where it has some.
template <class P>
struct policy_with_values {
  P policy;
  std::vector<double> values = {};
};

template <class P = attention::none>
struct problem {
  policy_with_values<P> edit;
  model_config config;
  std::vector<branch> tree;
  double temperature = 1;
  std::vector<double> dlog_p, dentropy;  // per scored token; dentropy may be empty

  problem(model_config c, std::vector<branch> t, double temperature_, bool with_entropy, policy_with_values<P> e = {})
      : edit(std::move(e)), config(std::move(c)), tree(std::move(t)), temperature(temperature_) {
    index_t const n = index_t(scored().size());
    dlog_p = random_values(n, 21);
    if (with_entropy) dentropy = random_values(n, 22);
  }
  std::vector<scored_token> scored() const {
    return score_all(int(laid_out<reference_backend, double>::rows(tree)), config.vocab);
  }

  template <class T>
  T loss(std::vector<T> const& flat, std::vector<T> const& values) const {
    reference_backend backend;
    llama<reference_backend, T> model(backend, config);
    model.assign(as(flat, {index_t(flat.size())}));
    laid_out<reference_backend, T> on(backend, config, tree);
    forward_pass<reference_backend, T> pass(backend);
    model.forward(on.cache, on.batch, pass, {}, edited{edit.policy, as(values, {index_t(values.size())})});
    model.log_probs(pass, scored(), temperature, !dentropy.empty());
    T sum = weighted_sum(pass.log_p(), dlog_p);
    if (!dentropy.empty()) sum += weighted_sum(pass.entropy(), dentropy);
    return sum;
  }

  /// Of the parameters and, summed over key-value heads, of the policy's values.
  std::pair<std::vector<double>, std::vector<double>> gradient(std::vector<double> const& flat) const {
    reference_backend backend;
    llama<reference_backend, double> model(backend, config);
    model.assign(as(flat, {index_t(flat.size())}));
    laid_out<reference_backend, double> on(backend, config, tree);
    forward_pass<reference_backend, double> pass(backend);
    auto const values = as(edit.values, {index_t(edit.values.size())});
    model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::parameters}, edited{edit.policy, values});
    model.log_probs(pass, scored(), temperature, !dentropy.empty());
    std::vector<double> g(flat.size(), 0.5);  // added to
    std::vector<double> per_head(std::size_t(config.kv_heads) * edit.values.size()), of_values(edit.values.size());
    model.backward(on.cache, pass, {.log_p = dlog_p, .entropy = dentropy},
                   {.parameters = as(g, {index_t(g.size())}),
                    .edit = as(per_head, {config.kv_heads, index_t(edit.values.size())})},
                   edited{edit.policy, values});
    for (double& x : g) x -= 0.5;
    for (std::size_t i = 0; i < per_head.size(); ++i) of_values[i % of_values.size()] += per_head[i];
    return {g, of_values};
  }

  /// Checks each parameter by itself, so that a small one cannot hide after a large one.
  void check() const {
    std::vector<double> const flat = random_parameters(config);
    auto const [ours, of_values] = gradient(flat);
    std::vector<double> const exact = complex_step_gradient(
        flat, [&](std::vector<complex> const& x) { return loss(x, converted<complex>(edit.values)); });
    parameter_layout const layout(config, standard_kind(config));
    for (parameter_info const& p : layout.all()) {
      INFO(p.name);
      auto const part = [&](std::vector<double> const& all) {
        return std::span(all).subspan(std::size_t(p.offset), std::size_t(p.size()));
      };
      CHECK(relative_difference(part(ours), part(exact)) < 1e-9);
      CHECK(relative_difference(part(exact), std::vector<double>(std::size_t(p.size()), 0.0)) ==
            INFINITY);  // it is used at all
    }
    if (edit.values.empty()) return;
    auto const exact_values = complex_step_gradient(
        edit.values, [&](std::vector<complex> const& x) { return loss(converted<complex>(flat), x); });
    CHECK(relative_difference(of_values, exact_values) < 1e-9);
    CHECK(relative_difference(exact_values, std::vector<double>(exact_values.size(), 0.0)) == INFINITY);
  }
};

}  // namespace

TEST_CASE("llama: the gradient of every parameter is exact on a ragged prefix tree with a tied head") {
  problem<>(small_config(), ragged_tree(11), 1, false).check();
}

TEST_CASE(
    "llama: the gradient of every parameter is exact with own head, biases, llama3 rope, temperature and entropy") {
  problem<>(rich_config(), ragged_tree(11), 0.7, true).check();
}

TEST_CASE("llama: the gradient is exact for lengths 1, 2, 3 and 17 side by side") {
  model_config c = small_config();
  c.qkv_bias = true;
  std::vector<branch> tree;
  for (int const n : {1, 2, 3, 17}) tree.push_back({-1, 0, random_tokens(std::size_t(n), c.vocab, unsigned(n))});
  problem<>(c, tree, 1.3, false).check();
}

TEST_CASE("llama: the gradient is exact through somebody's own attention policy") {
  problem<strangers::capped_recency>(small_config(), ragged_tree(11), 1, false).check();
}

TEST_CASE(
    "llama: the gradient of somebody's trainable attention policy is exact, and so are the parameters' beside it") {
  strangers::distance_factors const policy{.tags = 9, .reach = 3};
  problem<strangers::distance_factors>(small_config(), ragged_tree(11), 1, true, {policy, random_values(27, 30)})
      .check();
}

TEST_CASE("blocks: those that one model class serves keep what a block promises") {
  for (char const* const name : {"llama", "qwen2", "qwen3", "smollm3"}) {
    model_config c = rich_config();
    c.architecture = name;
    if (c.architecture == "smollm3") c.per_layer = {{.rotary = false}, {}};
    testing::check_block<standard_block>(c, name);
  }
}

}  // namespace llama_gradient_test
