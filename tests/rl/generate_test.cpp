#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"
#include "strangers.hpp"

#include <limits>

using namespace atmanrl_test;

namespace generate_test {
namespace {

model_config sampling_config() {
  model_config c = rich_config();
  c.hidden = 44;
  c.head_dim = 10;
  c.ffn = 50;
  c.vocab = 1100;  // two chunks of the softmax
  c.max_positions = 120;
  return c;
}

std::vector<std::vector<int>> some_prompts() {
  return {random_tokens(5, 1100, 1), random_tokens(1, 1100, 2), random_tokens(17, 1100, 3), random_tokens(40, 1100, 4)};
}

generate_options sampling(int group) {
  generate_options o;
  o.group_size = group;
  o.max_new_tokens = 30;
  o.temperature = 0.8;
  o.seed = 7;
  o.step = 3;
  for (int id = 0; id < 40; ++id) o.stop_ids.push_back(id);  // so many that lengths vary
  return o;
}

bool same_bits(completion const& a, completion const& b) {
  return a.ids == b.ids && a.log_probs == b.log_probs && a.entropies == b.entropies && a.truncated == b.truncated;
}

}  // namespace

TEMPLATE_TEST_CASE("generate: one seed gives one set of tokens, for any batch, split into groups and number of threads",
                   "", float, bf16) {
  cpu_backend one({.threads = 1}), two({.threads = 2});
  auto model = random_model<cpu_backend, TestType>(one, sampling_config(), 5, 0.5);
  auto same_model = random_model<cpu_backend, TestType>(two, sampling_config(), 5, 0.5);
  auto const prompts = some_prompts();
  auto const all = generate(model, std::span(prompts), sampling(4), samplers::multinomial{});
  auto const threads = generate(same_model, std::span(prompts), sampling(4), samplers::multinomial{});
  std::set<std::size_t> lengths;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    auto options = sampling(2);
    options.first_prompt = std::uint32_t(p);
    auto const alone = generate(model, std::span(prompts).subspan(p, 1), options, samplers::multinomial{});
    for (std::size_t m = 0; m < 4; ++m) {
      CHECK(same_bits(threads[p][m], all[p][m]));
      if (m < 2) CHECK(same_bits(alone[0][m], all[p][m]));
      lengths.insert(all[p][m].ids.size());
    }
    CHECK(all[p][0].ids != all[p][1].ids);
  }
  CHECK(lengths.size() > 3);
  auto other = sampling(4);
  other.seed = 8;
  CHECK(generate(model, std::span(prompts), other, samplers::multinomial{})[0][0].ids != all[0][0].ids);
  other = sampling(4);
  other.step = 4;
  CHECK(generate(model, std::span(prompts), other, samplers::multinomial{})[0][0].ids != all[0][0].ids);
}

TEMPLATE_TEST_CASE("generate: the recorded log-probabilities have the bits of teacher forcing", "", float, bf16) {
  cpu_backend backend({.threads = 2});
  auto model = random_model<cpu_backend, TestType>(backend, sampling_config(), 5, 0.5);
  auto const prompts = some_prompts();
  samplers::multinomial const cut{.top_k = 50, .top_p = 0.9};  // which do not enter the recorded numbers
  auto const all = generate(model, std::span(prompts), sampling(3), cut);
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    for (completion const& c : all[p]) {
      std::vector<int> tokens = prompts[p];
      tokens.insert(tokens.end(), c.ids.begin(), c.ids.end());
      auto const log_p = teacher_forced(model, tokens, 0.8);
      CHECK(c.log_probs == std::vector<float>(log_p.end() - std::ptrdiff_t(c.ids.size()), log_p.end()));
      REQUIRE(c.entropies.size() == c.ids.size());
      for (float const h : c.entropies) CHECK((h > 0 && h < std::log(1100.0f)));
    }
  }
}

TEST_CASE("generate: a completion ends with its stop token, or is truncated at the limit") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config(), 5, 1.5);
  std::vector<std::vector<int>> const prompts{{1, 2, 3}, {4}};
  generate_options o;
  o.group_size = 20;
  o.max_new_tokens = 6;
  o.stop_ids = {0, 5};
  int stopped = 0, truncated = 0;
  for (auto const& group : generate(model, std::span(prompts), o, samplers::multinomial{})) {
    for (completion const& c : group) {
      auto const stop = std::find_if(c.ids.begin(), c.ids.end(), [](int id) { return id == 0 || id == 5; });
      CHECK(c.truncated == (stop == c.ids.end()));
      if (c.truncated)
        CHECK(c.ids.size() == 6);
      else
        CHECK(stop == c.ids.end() - 1);
      CHECK(c.log_probs.size() == c.ids.size());
      ++(c.truncated ? truncated : stopped);
    }
  }
  CHECK(stopped > 0);
  CHECK(truncated > 0);
  o.max_new_tokens = 1;
  auto const single = generate(model, std::span(prompts), o, samplers::multinomial{});
  for (completion const& c : single[0]) CHECK(c.ids.size() == 1);
}

TEST_CASE("generate: greedy decoding follows the largest logit, with the log-probabilities of temperature 1") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config(), 5, 1.5);
  std::vector<std::vector<int>> const prompts{{1, 2, 3}};
  generate_options o;
  o.temperature = 0;
  o.max_new_tokens = 12;
  auto const c = generate(model, std::span(prompts), o, samplers::multinomial{})[0][0];
  auto const again = generate(model, std::span(prompts), o, samplers::greedy{})[0][0];
  CHECK(again.ids == c.ids);
  std::vector<int> tokens = prompts[0];
  for (std::size_t t = 0; t < c.ids.size(); ++t) {
    int best = 0;
    double best_log_p = -INFINITY;
    for (int id = 0; id < 11; ++id) {
      tokens.push_back(id);
      double const lp = teacher_forced(model, tokens).back();
      tokens.pop_back();
      if (lp > best_log_p) best = id, best_log_p = lp;
    }
    CHECK(c.ids[t] == best);
    CHECK(double(c.log_probs[t]) == Approx(best_log_p).epsilon(1e-6));
    tokens.push_back(c.ids[t]);
  }
}

TEST_CASE("generate: somebody's own sampler chooses, progress counts tokens and finished rollouts") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config(), 5, 1.5);
  std::vector<std::vector<int>> const prompts{{1, 2}, {3}};
  generate_options o;
  o.group_size = 2;
  o.max_new_tokens = 3;
  std::vector<std::array<index_t, 3>> calls;
  o.on_progress = [&](int finished, int all, index_t tokens) { calls.push_back({finished, all, tokens}); };
  auto const ours = generate(model, std::span(prompts), o, strangers::second_best{});
  auto const best = generate(model, std::span(prompts), o, samplers::greedy{});
  CHECK(ours[0][0].ids != best[0][0].ids);
  CHECK(ours[0][0].ids == ours[0][1].ids);  // it does not look at the random number
  REQUIRE(calls.size() == 6);
  CHECK(calls[1] == std::array<index_t, 3>{0, 4, 8});
  CHECK(calls[2] == std::array<index_t, 3>{4, 4, 12});
}

TEST_CASE("generate: the model's positions end a completion, and a prompt that fills them is an error") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config(), 5);
  generate_options o;
  o.max_new_tokens = 50;
  std::vector<std::vector<int>> prompts{std::vector<int>(60, 1), {2}};
  auto const c = generate(model, std::span(prompts), o, samplers::multinomial{});
  CHECK(c[0][0].ids.size() == 4);
  CHECK(c[0][0].truncated);
  CHECK(c[1][0].ids.size() == 50);
  prompts[0].resize(64);
  CHECK_THROWS_WITH(generate(model, std::span(prompts), o, samplers::multinomial{}),
                    ATMANRL_CONTAINS("prompt of 64 tokens") && ATMANRL_CONTAINS("limit is 64"));
  prompts[0].clear();
  CHECK_THROWS_AS(generate(model, std::span(prompts), o, samplers::multinomial{}), usage_error);
  prompts[0] = {99};
  CHECK_THROWS_WITH(generate(model, std::span(prompts), o, samplers::multinomial{}), ATMANRL_CONTAINS("token id 99"));
  prompts[0] = {1};
  for (auto const& change :
       {+[](generate_options& x) { x.group_size = 0; }, +[](generate_options& x) { x.max_new_tokens = 0; },
        +[](generate_options& x) { x.temperature = -1; },
        +[](generate_options& x) { x.temperature = std::numeric_limits<double>::quiet_NaN(); }}) {
    auto bad = o;
    change(bad);
    CHECK_THROWS_AS(generate(model, std::span(prompts), bad, samplers::multinomial{}), usage_error);
  }
  prompts.clear();
  CHECK(generate(model, std::span(prompts), o, samplers::multinomial{}).empty());
}

TEST_CASE("generate: weights that are not finite stop it and name the rollout") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config(), 5);
  auto flat = random_parameters(model.config(), 5);
  flat.back() = std::numeric_limits<double>::quiet_NaN();
  set_parameters(model, flat);
  std::vector<std::vector<int>> const prompts{{1, 2}};
  CHECK_THROWS_AS(generate(model, std::span(prompts), {}, samplers::multinomial{}), numeric_error);
  CHECK_THROWS_WITH(generate(model, std::span(prompts), {}, samplers::multinomial{}),
                    ATMANRL_CONTAINS("prompt 0, rollout 0") && ATMANRL_CONTAINS("token 0 is nan"));
}

}  // namespace generate_test
