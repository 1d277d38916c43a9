// Ten GRPO steps on fixed rollouts and rewards against PyTorch: losses, ratios, clipping, gradient norms, the end
// result.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/rl/policy_gradient.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace grpo_fixture_test {
namespace {

struct stored_completion {
  std::vector<int> prompt, ids;
  std::vector<float> old_log_p;
};

template <class B, class W>
void check_steps(int micro_batch, double tolerance) {
  json const f = read_json_file(fixture("grpo/grpo.json"));
  B backend;
  using model_type = llama<B, W>;
  model_type model = model_type::load(backend, fixture("llama") / f.at("model").get<std::string>());
  CAPTURE(B::name, sizeof(W), micro_batch);

  std::vector<stored_completion> stored;
  std::vector<float> rewards;
  std::vector<double> expected_advantages;
  for (auto const& group : f.at("groups")) {
    for (auto const& c : group.at("completions")) {
      stored.push_back({group.at("prompt_ids"), c.at("ids"), c.at("logprobs")});
      rewards.push_back(c.at("reward"));
    }
    for (double const a : group.at("advantages").get<std::vector<double>>()) expected_advantages.push_back(a);
  }
  REQUIRE(stored.size() == 8);
  std::vector<float> advantages(rewards.size());
  advantages::mean_centered{}(rewards, 4, advantages);
  CHECK(relative_difference(advantages, expected_advantages) < 1e-6);

  std::vector<training_rollout> rollouts;
  std::size_t longest = 0;
  for (std::size_t i = 0; i < stored.size(); ++i) {
    rollouts.push_back({stored[i].prompt, stored[i].ids, stored[i].old_log_p, advantages[i]});
    longest = std::max(longest, stored[i].ids.size());
  }
  trainable_policy<model_type> policy(
      model,
      {.beta1 = f.at("beta1"), .beta2 = f.at("beta2"), .eps = f.at("eps"), .weight_decay = f.at("weight_decay")});
  losses::grpo const loss{.clip_low = f.at("clip"), .clip_high = f.at("clip")};
  policy_gradient_options options;
  options.temperature = f.at("temperature");
  options.micro_batch = micro_batch;
  options.max_tokens = longest;

  REQUIRE(f.at("steps").size() == 10);
  std::size_t step = 0;
  for (json const& expected : f.at("steps")) {
    CAPTURE(step);
    policy.zero_gradient();
    auto const report = add_policy_gradient(policy, std::span<training_rollout const>(rollouts), loss, options);
    double const norm = policy.update(f.at("learning_rate"), f.at("max_gradient_norm"));
    auto const near = [&](char const* field) {
      return Approx(expected.at(field).get<double>()).epsilon(tolerance).margin(tolerance);
    };
    CHECK(report.loss == near("loss"));
    CHECK(norm == near("gradient_norm"));
    CHECK(report.ratio_min == near("ratio_min"));
    CHECK(report.ratio_mean == near("ratio_mean"));
    CHECK(report.ratio_max == near("ratio_max"));
    CHECK(report.clip_share == Approx(expected.at("clip_share").get<double>()).epsilon(1e-9));
    if (step++ > 0) continue;
    for (std::size_t i = 0; i < rollouts.size(); ++i) {
      auto const token_losses = expected.at("token_losses").at(i).get<std::vector<double>>();
      REQUIRE(report.token_loss[i].size() == token_losses.size());
      for (std::size_t t = 0; t < token_losses.size(); ++t)
        CHECK(report.token_loss[i][t] == Approx(token_losses[t]).epsilon(1e-5).margin(1e-6));
    }
  }

  kv_cache<B, typename model_type::scalar> cache(backend, model.config(), 16);
  forward_pass<B, typename model_type::scalar> pass(backend);
  ragged_batch batch;
  std::vector<int> const probe = f.at("probe_ids");
  batch.add(cache.add_sequence(index_t(probe.size())), probe);
  model.forward(cache, batch, pass);
  tensor<B, typename model_type::scalar, 2> logits;
  std::vector<int> const last{int(probe.size()) - 1};
  model.logits(pass, last, logits);
  CHECK(relative_difference(logits.to_host(), f.at("probe_logits").get<std::vector<double>>()) < tolerance);
}

}  // namespace

TEST_CASE("grpo: ten steps on fixed rollouts equal PyTorch's, in double and in one batch") {
  check_steps<reference_backend, double>(8, 1e-5);
}

TEST_CASE("grpo: ten steps on fixed rollouts equal PyTorch's, whatever the micro-batch") {
  check_steps<reference_backend, double>(1, 1e-5);
  check_steps<reference_backend, double>(3, 1e-5);
  check_steps<reference_backend, double>(0, 1e-5);
}

TEST_CASE("grpo: ten steps on fixed rollouts equal PyTorch's, in float and on the CPU backend") {
  check_steps<reference_backend, float>(0, 1e-3);
  check_steps<cpu_backend, float>(0, 1e-3);
}

}  // namespace grpo_fixture_test
