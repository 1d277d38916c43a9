#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/rl/policy_gradient.hpp>
#include <atmanrl/rl/reference.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"
#include "strangers.hpp"

#include <limits>

using namespace atmanrl_test;

namespace policy_gradient_test {
namespace {

model_config pg_config() {
  model_config c = rich_config();
  c.hidden = 36;
  c.ffn = 40;
  c.vocab = 70;
  return c;
}

/// Sampled rollouts of three prompts, one of them a single token long, with advantages of both signs.
struct sampled {
  std::vector<std::vector<int>> prompts{random_tokens(5, 70, 1), random_tokens(1, 70, 2), random_tokens(9, 70, 3)};
  std::vector<std::vector<completion>> groups;
  std::vector<training_rollout> rollouts;

  template <class Model>
  sampled(Model& model, double temperature) {
    generate_options o;
    o.group_size = 3;
    o.max_new_tokens = 20;
    o.temperature = temperature;
    for (int id = 0; id < 7; ++id) o.stop_ids.push_back(id);
    groups = generate(model, std::span<std::vector<int> const>(prompts), o, samplers::multinomial{});
    groups[1][2] = {{5}, {-3.5f}, {1.0f}, false};  // a completion of one token has no row of its own
    for (std::size_t p = 0; p < groups.size(); ++p)
      for (completion const& c : groups[p])
        rollouts.push_back({prompts[p], c.ids, c.log_probs, float(int(rollouts.size()) % 3 - 1) + 0.25f});
  }
};

template <class Model>
std::vector<typename Model::scalar> gradient_of(trainable_policy<Model>& policy,
                                                std::span<training_rollout const> rollouts, auto const& loss,
                                                policy_gradient_options const& options,
                                                policy_gradient_report* report = nullptr) {
  policy.zero_gradient();
  auto const r = add_policy_gradient(policy, rollouts, loss, options);
  if (report) *report = r;
  return policy.gradient().to_host();
}

}  // namespace

TEMPLATE_TEST_CASE("policy gradient: right after sampling every ratio is exactly 1 and nothing is clipped", "", float,
                   bf16) {
  cpu_backend backend({.threads = 2});
  auto model = random_model<cpu_backend, TestType>(backend, pg_config(), 4, 0.7);
  auto const storage = GENERATE(kv_storage::full, kv_storage::bf16);
  model.set_kv_storage(storage);
  sampled s(model, 0.9);
  s.rollouts.erase(s.rollouts.begin() + 5);  // the one that was not sampled
  trainable_policy policy(model, optim::adamw{});
  for (int const micro_batch : {0, 1, 3}) {
    auto const r = add_policy_gradient(policy, std::span<training_rollout const>(s.rollouts), losses::grpo{},
                                       {.temperature = 0.9, .micro_batch = micro_batch, .recompute = micro_batch == 3});
    CHECK(r.ratio_min == 1.0);
    CHECK(r.ratio_max == 1.0);
    CHECK(r.ratio_mean == 1.0);
    CHECK(r.clip_share == 0.0);
    REQUIRE(r.log_p.size() == s.rollouts.size());
    for (std::size_t i = 0; i < r.log_p.size(); ++i)
      CHECK(std::equal(r.log_p[i].begin(), r.log_p[i].end(), s.rollouts[i].old_log_p.begin(),
                       s.rollouts[i].old_log_p.end()));
  }
}

TEMPLATE_TEST_CASE("policy gradient: any split into micro-batches gives one gradient and one loss", "", double, float) {
  using B = std::conditional_t<std::is_same_v<TestType, double>, reference_backend, cpu_backend>;
  B backend;
  auto model = random_model<B, TestType>(backend, pg_config(), 4, 0.7);
  sampled const s(model, 1);
  std::span<training_rollout const> const all(s.rollouts);
  trainable_policy policy(model, optim::adamw{});
  policy_gradient_report whole;
  auto const expected = gradient_of(policy, all, losses::grpo{}, {.row_budget = 100000}, &whole);
  auto const check = [&](policy_gradient_options const& options) {
    policy_gradient_report r;
    CHECK(relative_difference(gradient_of(policy, all, losses::grpo{}, options, &r), expected) <
          (std::is_same_v<TestType, double> ? 1e-12 : 1e-6));
    CHECK(r.loss == Approx(whole.loss).epsilon(1e-6));
    CHECK(r.token_loss == whole.token_loss);
  };
  for (int const micro_batch : {1, 2, 4, 5, 9, 100}) check({.micro_batch = micro_batch});
  for (index_t const budget : {1, 30, 60}) check({.row_budget = budget});
  auto const reinforced = gradient_of(policy, all, strangers::reinforce{}, {.row_budget = 100000});
  CHECK(relative_difference(gradient_of(policy, all, strangers::reinforce{}, {.micro_batch = 2}), reinforced) < 1e-6);
}

TEST_CASE("policy gradient: it is the derivative of the reported loss") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, pg_config(), 4, 0.7);
  sampled const s(model, 0.8);
  std::vector<float> shifted[9];
  std::vector<training_rollout> rollouts = s.rollouts;
  for (std::size_t i = 0; i < rollouts.size();
       ++i) {  // old log-probabilities with ratios on both sides of the clips, no kink near
    for (std::size_t t = 0; t < rollouts[i].old_log_p.size(); ++t)
      shifted[i].push_back(rollouts[i].old_log_p[t] + 0.1f * float(int(t + i) % 9 - 4));
    rollouts[i].old_log_p = shifted[i];
  }
  trainable_policy policy(model, optim::adamw{});
  policy_gradient_options const options{.temperature = 0.8};
  policy_gradient_report report;
  auto const gradient =
      gradient_of(policy, std::span<training_rollout const>(rollouts), losses::grpo{}, options, &report);
  CHECK(report.clip_share > 0.05);
  CHECK(report.clip_share < 0.5);
  CHECK(report.ratio_min < 0.8);
  CHECK(report.ratio_max > 1.2);
  auto const flat = random_parameters(model.config(), 4, 0.7);
  for (unsigned const seed : {1u, 2u, 3u}) {
    auto const direction = random_values(index_t(flat.size()), 90 + seed, 0.1);
    double const h = 1e-3;
    auto const loss_at = [&](double step) {
      auto moved = flat;
      for (std::size_t i = 0; i < flat.size(); ++i) moved[i] += step * direction[i];
      set_parameters(model, moved);
      return add_policy_gradient(policy, std::span<training_rollout const>(rollouts), losses::grpo{}, options).loss;
    };
    double const slope = (loss_at(h) - loss_at(-h)) / (2 * h);
    CHECK(weighted_sum(gradient, direction) == Approx(slope).epsilon(3e-3));
  }
}

TEST_CASE(
    "policy gradient: every loss with a KL term, an entropy bonus and masked rollouts gives one gradient for any "
    "split, bnpo excepted") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, pg_config(), 4, 0.7);
  auto frozen = random_model<reference_backend, double>(backend, pg_config(), 5, 0.7);
  sampled s(model, 0.8);
  s.rollouts[1].masked = s.rollouts[6].masked = true;
  auto const reference = reference_log_probs(frozen, std::span<training_rollout const>(s.rollouts), 0.8);
  for (std::size_t i = 0; i < s.rollouts.size(); ++i) s.rollouts[i].reference_log_p = reference[i];
  auto const moved = random_parameters(model.config(), 4, 0.72);  // ratios away from 1
  set_parameters(model, moved);
  trainable_policy policy(model, optim::adamw{});
  std::span<training_rollout const> const all(s.rollouts);
  for (auto const name : losses::names) {
    CAPTURE(name);
    auto const loss = losses::add_kl(losses::by_name(name), "k3", 0.1);
    policy_gradient_options options{.temperature = 0.8, .row_budget = 100000, .max_tokens = 20, .entropy_bonus = 0.05};
    policy_gradient_report whole, part;
    auto const expected = gradient_of(policy, all, loss, options, &whole);
    CHECK(whole.ratio_max > 1.01);
    CHECK(whole.kl.value() > 0);
    CHECK(whole.entropy.value() > 0);
    CHECK(whole.loss == Approx(whole.policy_loss - 0.05 * whole.entropy.value()));
    CHECK(whole.log_p[1].empty());
    for (int const micro_batch : {1, 2, 3, 5}) {
      options.micro_batch = micro_batch;
      double const difference = relative_difference(gradient_of(policy, all, loss, options, &part), expected);
      if (name == "bnpo") {
        CHECK(difference > 1e-3);
      } else {
        CHECK(difference < 1e-12);
        CHECK(part.loss == Approx(whole.loss));
      }
    }
  }
}

TEST_CASE("policy gradient: with a KL term and an entropy bonus it is the derivative of the reported loss") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, pg_config(), 4, 0.7);
  auto frozen = random_model<reference_backend, double>(backend, pg_config(), 5, 0.7);
  sampled s(model, 0.8);
  auto const reference = reference_log_probs(frozen, std::span<training_rollout const>(s.rollouts), 0.8);
  for (std::size_t i = 0; i < s.rollouts.size(); ++i) s.rollouts[i].reference_log_p = reference[i];
  trainable_policy policy(model, optim::adamw{});
  std::span<training_rollout const> const all(s.rollouts);
  policy_gradient_options const options{.temperature = 0.8, .entropy_bonus = 0.3};
  auto const flat = random_parameters(model.config(), 4, 0.7);
  for (auto const& loss : {losses::add_kl(losses::dapo{}, "k3", 0.5), losses::add_kl(losses::grpo{}, "k2", 0.5)}) {
    set_parameters(model, flat);
    auto const gradient = gradient_of(policy, all, loss, options);
    for (unsigned const seed : {1u, 2u, 3u}) {
      auto const direction = random_values(index_t(flat.size()), 90 + seed, 0.1);
      double const h = 1e-3;
      auto const loss_at = [&](double step) {
        auto moved = flat;
        for (std::size_t i = 0; i < flat.size(); ++i) moved[i] += step * direction[i];
        set_parameters(model, moved);
        return add_policy_gradient(policy, all, loss, options).loss;
      };
      CHECK(weighted_sum(gradient, direction) == Approx((loss_at(h) - loss_at(-h)) / (2 * h)).epsilon(3e-3));
    }
  }
}

TEST_CASE("policy gradient: masked rollouts leave no trace, and a step of nothing else has no gradient") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, pg_config(), 4, 0.7);
  sampled s(model, 1);
  trainable_policy policy(model, optim::adamw{});
  auto rollouts = s.rollouts;
  rollouts[4].masked = true;
  auto const masked = gradient_of(policy, std::span<training_rollout const>(rollouts), losses::dapo{}, {});
  rollouts.erase(rollouts.begin() + 4);
  CHECK(relative_difference(
            masked, gradient_of(policy, std::span<training_rollout const>(rollouts), losses::dapo{}, {})) < 1e-12);
  for (auto& r : rollouts) r.masked = true;
  policy_gradient_report report;
  auto const none = gradient_of(policy, std::span<training_rollout const>(rollouts), losses::dapo{}, {}, &report);
  CHECK(std::all_of(none.begin(), none.end(), [](double x) { return x == 0; }));
  CHECK(report.loss == 0);
  CHECK(report.ratio_mean == 1);
}

TEST_CASE("reference: a model is its own reference to the last bit, in any batches") {
  cpu_backend backend;
  auto model = random_model<cpu_backend, float>(backend, pg_config(), 4, 0.7);
  sampled s(model, 0.9);
  s.rollouts[3].masked = true;
  for (int const micro_batch : {0, 1, 4}) {
    auto const log_p =
        reference_log_probs(model, std::span<training_rollout const>(s.rollouts), 0.9, {.micro_batch = micro_batch});
    for (std::size_t i = 0; i < log_p.size(); ++i) {
      if (i == 5) continue;  // not sampled
      if (i == 3)
        CHECK(log_p[i].empty());
      else
        CHECK(std::equal(log_p[i].begin(), log_p[i].end(), s.rollouts[i].old_log_p.begin(),
                         s.rollouts[i].old_log_p.end()));
    }
  }
}

TEST_CASE("policy gradient: without advantages there is none, to the last bit") {
  cpu_backend backend;
  auto model = random_model<cpu_backend, float>(backend, pg_config(), 4, 0.7);
  sampled s(model, 1);
  for (auto& r : s.rollouts) r.advantage = 0;
  trainable_policy policy(model, optim::adamw{});
  auto const g = gradient_of(policy, std::span<training_rollout const>(s.rollouts), losses::grpo{}, {});
  CHECK(std::all_of(g.begin(), g.end(), [](float x) { return x == 0; }));
}

TEST_CASE("policy gradient: it is the derivative of the reported loss where tokens have advantages of their own") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, pg_config(), 4, 0.7);
  sampled s(model, 1);
  std::vector<std::vector<float>> each;
  for (auto const& r : s.rollouts)
    each.push_back(converted<float>(random_values(std::ptrdiff_t(r.completion.size()), unsigned(each.size()) + 20)));
  each[5] = {0};  // that token was not sampled, so its ratio is not 1
  for (std::size_t i = 0; i < each.size(); ++i) s.rollouts[i].advantage = std::span<float const>(each[i]);
  trainable_policy policy(model, optim::adamw{});
  policy_gradient_report report;
  auto const g = gradient_of(policy, std::span<training_rollout const>(s.rollouts), losses::dapo{}, {}, &report);
  // The first ratio is 1: the loss is that of the advantages alone, and log p has the slope -A / tokens.
  double tokens = 0, sum = 0;
  for (auto const& a : each)
    for (float const x : a) ++tokens, sum += double(x);
  CHECK(report.policy_loss == Approx(-sum / tokens));
  auto const flat = random_parameters(model.config(), 4, 0.7);
  auto const direction = random_values(index_t(flat.size()), 91, 0.1);
  auto const loss_at = [&](double step) {
    auto moved = flat;
    for (std::size_t i = 0; i < flat.size(); ++i) moved[i] += step * direction[i];
    set_parameters(model, moved);
    return add_policy_gradient(policy, std::span<training_rollout const>(s.rollouts), losses::dapo{}, {}).loss;
  };
  CHECK(weighted_sum(g, direction) == Approx((loss_at(1e-3) - loss_at(-1e-3)) / 2e-3).epsilon(3e-3));
}

TEST_CASE("policy gradient: rollouts that do not fit together are refused") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, pg_config(), 4);
  trainable_policy policy(model, optim::adamw{});
  std::vector<int> const ids{1, 2};
  std::vector<float> const one{-1.0f}, two{-1.0f, -2.0f};
  auto const add = [&](training_rollout const& r) {
    add_policy_gradient(policy, std::span(&r, 1), losses::grpo{}, {});
  };
  CHECK_THROWS_WITH(add({ids, ids, one, 1}), ATMANRL_CONTAINS("2 completion tokens and 1 log-probabilities"));
  CHECK_THROWS_AS(add({{}, ids, two, 1}), shape_error);
  CHECK_THROWS_AS(add({ids, {}, {}, 1}), shape_error);
  CHECK_THROWS_WITH(add({ids, ids, two, std::span<float const>(one)}),
                    ATMANRL_CONTAINS("2 completion tokens has the advantages of another number of tokens"));
  CHECK_NOTHROW(add({ids, ids, two, 1}));
  CHECK_THROWS_AS(add_policy_gradient(policy, std::span<training_rollout const>(), losses::grpo{}, {}), usage_error);
}

TEST_CASE("policy gradient: a log-probability that is not finite names its rollout") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, pg_config(), 4, 0.7);
  sampled s(model, 1);
  trainable_policy policy(model, optim::adamw{});
  std::vector<float> broken(s.rollouts[4].old_log_p.begin(), s.rollouts[4].old_log_p.end());
  broken.back() = std::numeric_limits<float>::quiet_NaN();
  s.rollouts[4].old_log_p = broken;
  CHECK_THROWS_WITH(gradient_of(policy, std::span<training_rollout const>(s.rollouts), losses::grpo{}, {}),
                    ATMANRL_CONTAINS("loss of rollout 4"));
}

TEST_CASE("trainable_policy: an update clips, moves master weights and rounds them into the model") {
  cpu_backend backend;
  auto model = random_model<cpu_backend, bf16>(backend, pg_config(), 4);
  trainable_policy policy(model, optim::adamw{});
  auto const before = policy.master().to_host();
  CHECK(before == read_parameters(model));
  index_t const n = model.layout().size();
  policy.gradient().assign(std::vector<float>(std::size_t(n), 2.0f));
  CHECK(policy.update(1e-5, 1) == Approx(2 * std::sqrt(double(n))));
  CHECK(policy.gradient().to_host()[0] == Approx(1 / std::sqrt(double(n))).epsilon(1e-4));
  auto const after = policy.master().to_host();
  std::vector<float> const expected(after.size(), -1e-5f);
  std::vector<float> moved(after.size());
  for (std::size_t i = 0; i < after.size(); ++i) moved[i] = after[i] - before[i];
  CHECK(relative_difference(moved, expected) < 0.02);  // float spacing around the largest weights
  // So small a step is lost in bf16 matrices, but not in the master weights that the next one starts from.
  auto const rounded = read_parameters(model);
  auto const gain = model.layout().find("model.norm.weight");
  CHECK(rounded[std::size_t(gain->offset)] == after[std::size_t(gain->offset)]);
  CHECK(rounded[0] == float(bf16(after[0])));
}

TEST_CASE("trainable_policy: a gradient that is not finite names its tensor and changes nothing") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, pg_config(), 4);
  trainable_policy policy(model, optim::adamw{});
  auto const before = policy.master().to_host();
  std::vector<double> g(before.size(), 1.0);
  g[std::size_t(model.layout().find("model.layers.1.mlp.up_proj.weight")->offset + 3)] = std::numeric_limits<double>::infinity();
  policy.gradient().assign(g);
  CHECK_THROWS_WITH(policy.update(0.1, 1), ATMANRL_CONTAINS("model.layers.1.mlp.up_proj.weight"));
  CHECK(policy.master().to_host() == before);
  CHECK(read_parameters(model) == before);
  CHECK(policy.optimizer().steps() == 0);
}

}  // namespace policy_gradient_test
