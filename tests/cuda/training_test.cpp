// Sampling and policy updates on the CUDA backend against the other backends.
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/rl/policy_gradient.hpp>
#include <atmanrl/rl/samplers/any.hpp>
#ifndef __CUDACC__  // nvcc 13.0 does not compile the CPU's vector types (internal error)
#  include <atmanrl/cpu/cpu_backend.hpp>
#endif

#include "catch.hpp"
#include "cuda/small_device_model.hpp"
#include "cuda/thread_orders.hpp"

using namespace atmanrl_test;

namespace {

/// Rollouts of two prompts with log-probabilities and advantages that are given, not computed.
struct fixed_rollouts {
  std::vector<std::vector<int>> prompts{random_tokens(5, 37, 1), random_tokens(9, 37, 2)}, completions;
  std::vector<std::vector<float>> old;
  std::vector<training_rollout> all;

  fixed_rollouts() {
    for (int i = 0; i < 8; ++i) {
      completions.push_back(random_tokens(std::size_t(3 + 2 * i), 37, unsigned(10 + i)));
      old.push_back(converted<float>(random_values(index_t(completions.back().size()), unsigned(20 + i), 0.5)));
      for (float& x : old.back()) x -= 3.6f;
    }
    for (int i = 0; i < 8; ++i)
      all.push_back(
          {prompts[std::size_t(i / 4)], completions[std::size_t(i)], old[std::size_t(i)], float(i % 3 - 1) + 0.2f});
  }
};

struct training_outcome {
  std::vector<double> losses, log_p, norms, weights;
};

#ifdef __CUDACC__
auto host_backend() { return reference_backend(); }
#else
auto host_backend() { return cpu_backend({.threads = 1}); }
#endif

/// Ten updates on fixed rollouts.
template <class W, class B>
training_outcome ten_steps(B& backend) {
  fixed_rollouts const r;
  auto model = random_model<B, W>(backend, rich_device_config());
  trainable_policy policy(model);
  training_outcome o;
  for (int step = 0; step < 10; ++step) {
    policy.zero_gradient();
    auto const report = add_policy_gradient(policy, std::span<training_rollout const>(r.all), losses::grpo{},
                                            {.micro_batch = step % 3 * 3, .entropy_bonus = 0.01});
    o.losses.push_back(report.loss);
    for (auto const& log_p : report.log_p) o.log_p.insert(o.log_p.end(), log_p.begin(), log_p.end());
    o.norms.push_back(policy.update(1e-3, 1));
  }
  o.weights = as_doubles(policy.master());
  return o;
}

std::vector<std::vector<completion>> sampled(auto& model, auto const& sampler, double temperature, int tokens = 12) {
  generate_options o;
  o.group_size = 3;
  o.max_new_tokens = tokens;
  o.temperature = temperature;
  o.stop_ids = {0, 1};
  o.seed = 5;
  std::vector<std::vector<int>> const prompts{random_tokens(4, 37, 1), random_tokens(7, 37, 2)};
  return generate(model, std::span<std::vector<int> const>(prompts), o, sampler);
}

}  // namespace

TEST_CASE("cuda training: ten steps of GRPO on fixed rollouts and rewards are those of the other backends") {
  cuda_backend device;
  reference_backend plain;
  auto host = host_backend();
  // In double, where rounding cannot turn AdamW's steps.
  auto const exact = ten_steps<double>(plain), got = ten_steps<double>(device);
  CHECK(relative_difference(got.losses, exact.losses) < 1e-9);
  CHECK(relative_difference(got.norms, exact.norms) < 1e-9);
  CHECK(relative_difference(got.weights, exact.weights) < 1e-8);
  auto const on_host = ten_steps<float>(host), in_float = ten_steps<float>(device);
  CHECK(relative_difference(in_float.losses, on_host.losses) < 1e-4);
  CHECK(relative_difference(in_float.log_p, on_host.log_p) < 1e-4);
  CHECK(relative_difference(in_float.norms, on_host.norms) < 1e-4);
  CHECK(relative_difference(in_float.weights, on_host.weights) < 1e-3);
  auto const host_bf16 = ten_steps<bf16>(host), in_bf16 = ten_steps<bf16>(device);
  // Of the first pass; after it AdamW makes whole steps of what rounding left of small gradients.
  CHECK(relative_difference(std::span(in_bf16.log_p).first(80), std::span(host_bf16.log_p).first(80)) < 0.02);
  CHECK(relative_difference(in_bf16.losses, host_bf16.losses) < 0.05);
}

TEST_CASE("cuda training: a run repeats bit for bit, in every order of threads") {
  cuda_backend device;
  CHECK(same_in_every_thread_order([&] {
    auto o = ten_steps<bf16>(device);
    o.weights.insert(o.weights.end(), o.losses.begin(), o.losses.end());
    return o.weights;
  }));
}

TEST_CASE("cuda sampling: generate draws the tokens of the host, on the device and with a sampler of the user's own") {
  cuda_backend device;
  reference_backend plain;
  auto on_device = random_model<cuda_backend, double>(device, device_config(), 3, 0.8);
  auto on_host = random_model<reference_backend, double>(plain, device_config(), 3, 0.8);
  struct own {
    int operator()(std::span<float const> z, double t, double u) const { return samplers::multinomial{}(z, t, 1 - u); }
  };
  auto const compare = [&](auto const& sampler, double temperature) {
    auto const a = sampled(on_device, sampler, temperature), b = sampled(on_host, sampler, temperature);
    for (std::size_t p = 0; p < b.size(); ++p) {
      for (std::size_t m = 0; m < b[p].size(); ++m) {
        CHECK(a[p][m].ids == b[p][m].ids);
        CHECK(a[p][m].truncated == b[p][m].truncated);
        CHECK(relative_difference(a[p][m].log_probs, b[p][m].log_probs) < 1e-6);
        CHECK(relative_difference(a[p][m].entropies, b[p][m].entropies) < 1e-6);
      }
    }
  };
  compare(samplers::multinomial{}, 1);
  compare(samplers::multinomial{.top_k = 9, .top_p = 0.9, .min_p = 0.01}, 0.7);
  compare(samplers::greedy{}, 1);
  compare(samplers::multinomial{}, 0);
  compare(samplers::any(samplers::multinomial{.top_p = 0.8}), 1.2);
  compare(own{}, 1);
}

TEST_CASE("cuda training: right after sampling the ratios are close to 1") {
  cuda_backend device;
  auto model = random_model<cuda_backend, bf16>(device, device_config(), 3, 0.8);
  auto const groups = sampled(model, samplers::multinomial{}, 1);
  std::vector<std::vector<int>> const prompts{random_tokens(4, 37, 1), random_tokens(7, 37, 2)};
  std::vector<training_rollout> rollouts;
  for (std::size_t p = 0; p < groups.size(); ++p)
    for (auto const& c : groups[p]) rollouts.push_back({prompts[p], c.ids, c.log_probs, 1.0f});
  trainable_policy policy(model);
  auto const report = add_policy_gradient(policy, std::span<training_rollout const>(rollouts), losses::grpo{}, {});
  CHECK(report.ratio_min > 0.98);
  CHECK(report.ratio_max < 1.02);
}
