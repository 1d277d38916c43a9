#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/nn/model_calls.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"
#include "tiny_model.hpp"

#include <cmath>
#include <concepts>
#include <utility>
#include <vector>

using namespace atmanrl_test;

namespace model_calls_test {
namespace {

using B = reference_backend;
using model_type = llama<B, double>;

/// score + layer-wide value, and neither copied nor moved.
struct shift {
  struct params_type {
    index_t parameter(score_site at) const { return at.layer; }
    template <class T>
    T operator()(T score, T value, score_site at) const {
      return score + value * T(real_t<T>(at.key));
    }
  };
  explicit shift(index_t n) : layers(n) {}
  shift(shift const&) = delete;
  params_type params() const { return {}; }
  index_t parameter_count() const { return layers; }
  index_t layers;
};
static_assert(TrainableAttentionPolicy<shift>);

template <class M, class Values>
concept RunsWith = requires(detail::calls_of<M> a, shift const& policy, Values values) {
  a.model.forward(a.cache, a.batch, a.pass, {}, edited{policy, values});
};

struct setting {
  B backend;
  model_config config = rich_config();
  model_type model = random_model<B, double>(backend, config);
  laid_out<B, double> on{backend, config, ragged_tree(config.vocab)};
  forward_pass<B, double> pass{backend};
  shift policy{config.layers};
  std::vector<double> values = random_values(config.layers, 3),
                      gradient = std::vector<double>(std::size_t(config.kv_heads * config.layers));
  view<double, 2> edit_gradient = as(gradient, {config.kv_heads, config.layers});
  view<double, 1> at = as(values, {config.layers});
  std::vector<scored_token> scored = score_all(on.batch.rows(), config.vocab);
  std::vector<double> dlog_p = random_values(index_t(scored.size()), 4);
};

}  // namespace

TEST_CASE("edited: the policy is referred to, values of either constness are seen as constants, or there are none") {
  shift const policy(2);
  std::vector<double> numbers{1, 2};
  view<double, 1> const values(numbers);
  auto const with = edited{policy, values};
  STATIC_REQUIRE(std::same_as<decltype(with), edited<shift, view<double const, 1>> const>);
  STATIC_REQUIRE(
      std::same_as<decltype(edited{policy, view<double const, 1>(values)}), std::remove_const_t<decltype(with)>>);
  STATIC_REQUIRE(std::same_as<decltype(edited{policy}), edited<shift, no_values>>);
  STATIC_REQUIRE(std::same_as<decltype(edited{attention::none{}}), edited<>>);
  CHECK(&with.policy == &policy);
  CHECK(with.values.data() == numbers.data());
  CHECK(with.values.size() == 2);
  view<float const, 1, device_space> const nothing = edited{policy}.values;
  CHECK(nothing.empty());
}

TEST_CASE("edited: a model reads values of its own scalar and memory, no others") {
  STATIC_REQUIRE(RunsWith<model_type, view<double, 1>>);
  STATIC_REQUIRE(RunsWith<model_type, view<double const, 1>>);
  STATIC_REQUIRE_FALSE(RunsWith<model_type, view<float const, 1>>);
  STATIC_REQUIRE_FALSE(RunsWith<model_type, view<double const, 1, device_space>>);
  STATIC_REQUIRE_FALSE(RunsWith<tiny_model<B, double>, view<float const, 1>>);
}

TEST_CASE_METHOD(setting, "calls: an edit with parameters and without values is refused by every member") {
  CHECK_THROWS_WITH(model.forward(on.cache, on.batch, pass, {}, edited{policy}),
                    ATMANRL_CONTAINS("0 values for an attention policy with 2 parameters"));
  model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::activations}, edited{policy, at});
  model.log_probs(pass, scored);
  tensor<B, double, 2> out(backend, {0, 0});
  CHECK_THROWS_AS(model.backward(on.cache, pass, {.log_p = dlog_p}, {.edit = edit_gradient}, edited{policy}),
                  shape_error);
  CHECK_THROWS_AS(model.mean_attention(on.cache, pass, 0, out, edited{policy}), shape_error);
  model.backward(on.cache, pass, {.log_p = dlog_p}, {.edit = edit_gradient}, edited{policy, at});
  double sum = 0;
  for (double const g : gradient) sum += std::abs(g);
  CHECK(sum > 0);
}

TEST_CASE_METHOD(setting, "calls: a gradient of an edit that has no parameters is refused") {
  model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::activations}, edited{policy, at});
  model.log_probs(pass, scored);
  CHECK_THROWS_WITH(model.backward(on.cache, pass, {.log_p = dlog_p}, {.edit = edit_gradient}),
                    ATMANRL_CONTAINS("for an attention policy without parameters"));
}

TEST_CASE("calls: the gradient of the input is the same from log-probabilities and from logits") {
  std::vector<scored_token> const tokens{{3, 4}, {7, 9}};
  auto const gradient = [&](bool from_logits) {
    setting s;  // a backward pass uses up what the forward pass kept
    s.model.forward(s.on.cache, s.on.batch, s.pass, {.mode = gradient_mode::activations}, edited{s.policy, s.at});
    std::vector<double> dx(std::size_t(s.pass.rows() * s.config.hidden), 7.0);  // overwritten
    auto const input = as(dx, {s.pass.rows(), s.config.hidden});
    if (!from_logits) {
      s.model.log_probs(s.pass, tokens);
      std::vector<double> const minus{-1, -1};
      s.model.backward(s.on.cache, s.pass, {.log_p = minus}, {.input = input}, edited{s.policy, s.at});
      return dx;
    }
    std::vector<int> const rows{3, 7};
    tensor<B, double, 2> z(s.backend, {0, 0});
    s.model.logits(s.pass, rows, z);
    auto d = z.to_host();
    for (std::size_t r = 0; r < 2; ++r) {
      double sum = 0;
      auto const row = std::span(d).subspan(r * std::size_t(s.config.vocab), std::size_t(s.config.vocab));
      for (double& x : row) sum += x = std::exp(x);
      for (double& x : row) x /= sum;
      row[std::size_t(tokens[r].target)] -= 1;
    }
    view<double const, 2> const dlogits(d.data(), {2, s.config.vocab});
    CHECK_THROWS_AS(s.model.backward_from_logits(s.on.cache, s.pass, dlogits, {.input = as(dx, {1, s.config.hidden})},
                                                 edited{s.policy, s.at}),
                    shape_error);
    s.model.backward_from_logits(s.on.cache, s.pass, dlogits, {.input = input}, edited{s.policy, s.at});
    return dx;
  };
  CHECK(relative_difference(gradient(true), gradient(false)) < 1e-12);
}

}  // namespace model_calls_test
