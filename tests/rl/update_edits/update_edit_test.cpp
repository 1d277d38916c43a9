#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/rl/update_edits/hide_from_answer.hpp>
#include <atmanrl/rl/update_edits/hide_prompt_from_answer.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"
#include "strangers.hpp"

#include <cmath>
#include <limits>

using namespace atmanrl_test;

namespace update_edit_test {
namespace {

constexpr index_t vocab = 50;

model_config small_config() {
  model_config c = rich_config();
  c.hidden = 24;
  c.ffn = 20;
  c.vocab = vocab;
  return c;
}

/// Rollouts of three prompts, two of which share theirs; the fourth has no delimiter, the fifth no chain.
struct written {
  std::vector<std::vector<int>> prompts{random_tokens(6, vocab, 1), random_tokens(1, vocab, 2),
                                        random_tokens(9, vocab, 3)};
  std::vector<std::vector<int>> completions;
  std::vector<std::vector<float>> old_log_p;
  std::vector<training_rollout> rollouts;

  written() {
    completions.reserve(5);
    old_log_p.reserve(5);
    add(0, 9, {{0, 4}, {4, 6}, {6, 8}, true});
    add(0, 7, {{0, 5}, {5, 6}, {6, 7}, true});
    add(1, 8, {{0, 3}, {3, 5}, {5, 8}, true});
    add(2, 6, {{0, 6}, {6, 6}, {6, 6}, false});
    add(2, 7, {{0, 0}, {0, 2}, {2, 6}, true});
  }
  void add(std::size_t prompt, int tokens, completion_spans spans) {
    unsigned const seed = unsigned(completions.size());
    completions.push_back(random_tokens(tokens, vocab, 10 + seed));
    old_log_p.push_back(std::vector<float>(std::size_t(tokens), -4.0f));
    rollouts.push_back({prompts[prompt], completions.back(), old_log_p.back(), float(seed % 3) - 0.75f});
    rollouts.back().spans = spans;
  }
  std::span<training_rollout const> all() const { return rollouts; }
};

/// What hide_from_answer is meant to be, for one rollout without a tree.
struct by_definition {
  struct params_type {
    token_span hidden;
    int first_row;
    template <class T>
    T operator()(T score, score_site at) const {
      using real = decltype(real_part(T{}));
      bool const hides = at.query >= first_row && at.key >= hidden.first && at.key < hidden.last;
      return hides ? T{-std::numeric_limits<real>::infinity()} : score;
    }
  };
  token_span hidden;
  int first_row;
  params_type params() const { return {hidden, first_row}; }
};

/// The tokens from the third to the last but two, of a prompt that has them.
struct inner_part {
  token_span operator()(std::span<int const> prompt) const {
    return prompt.size() > 4 ? token_span{2, index_t(prompt.size()) - 2} : token_span{};
  }
};
/// The same of every prompt.
struct fixed_part {
  token_span part;
  token_span operator()(std::span<int const>) const { return part; }
};
using hide_inner_part = update_edits::hide_from_answer<inner_part>;
static_assert(UpdateEdit<hide_inner_part>);

std::vector<double> log_probs_alone(llama<reference_backend, double>& model, training_rollout const& r,
                                    token_span hidden) {
  int const prompt = int(r.prompt.size());
  std::vector<int> tokens(r.prompt.begin(), r.prompt.end());
  tokens.insert(tokens.end(), r.completion.begin(), r.completion.end());
  auto const space = model.borrow_pass(index_t(tokens.size()));
  auto& [cache, pass] = *space;
  ragged_batch batch;
  batch.add(cache.add_sequence(index_t(tokens.size())), tokens);
  bool const answered = r.spans->has_delimiter;
  by_definition const edit{hidden, answered ? prompt + int(r.spans->delimiter.first) : 1000};
  model.forward(cache, batch, pass, {}, edited{edit});
  std::vector<scored_token> scored;
  for (int t = 0; t < int(r.completion.size()); ++t) scored.push_back({prompt - 1 + t, r.completion[std::size_t(t)]});
  model.log_probs(pass, scored);
  return pass.log_p();
}

grpo_options small_run() {
  grpo_options o;
  o.prompts_per_step = 2;
  o.group_size = 4;
  o.max_new_tokens = 10;
  o.learning_rate = 1e-3;
  o.seed = 11;
  return o;
}

}  // namespace

TEMPLATE_TEST_CASE(
    "update edit: the loss is that of rows after the chain which do not see the prompt, or a part, in any passes", "",
    update_edits::hide_prompt_from_answer, hide_inner_part) {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config(), 4, 0.7);
  written const w;
  trainable_weights policy(model);
  auto const gradient_with = [&](auto const& edit, policy_gradient_options const& options,
                                 policy_gradient_report& report) {
    policy.zero_gradient();
    report = add_policy_gradient(policy, w.all(), losses::grpo{}, options, edit);
    return policy.gradient().to_host();
  };
  policy_gradient_report whole, plain, part;
  auto const expected = gradient_with(TestType{}, {}, whole);
  CHECK(relative_difference(gradient_with(update_edits::none{}, {}, plain), expected) > 1e-3);
  for (std::size_t i = 0; i < w.rollouts.size(); ++i) {
    token_span const all_but_first{1, index_t(w.rollouts[i].prompt.size())};
    token_span const hidden =
        std::is_same_v<TestType, hide_inner_part> ? inner_part{}(w.rollouts[i].prompt) : all_but_first;
    auto const alone = log_probs_alone(model, w.rollouts[i], hidden);
    REQUIRE(alone.size() == whole.log_p[i].size());
    for (std::size_t t = 0; t < alone.size(); ++t) CHECK(double(whole.log_p[i][t]) == Approx(alone[t]).epsilon(1e-6));
    // The row of the first delimiter token is the first that is cut off; its own token is predicted before it.
    bool const cut = w.rollouts[i].spans->has_delimiter && !hidden.empty();
    std::size_t const first = cut ? std::size_t(w.rollouts[i].spans->delimiter.first) + 1 : alone.size();
    for (std::size_t t = 0; t < alone.size(); ++t) CHECK((whole.log_p[i][t] == plain.log_p[i][t]) == (t < first));
  }
  for (int const micro_batch : {1, 2, 3}) {
    CHECK(relative_difference(
              gradient_with(TestType{}, {.micro_batch = micro_batch, .recompute = micro_batch == 2}, part), expected) <
          1e-12);
    CHECK(part.token_loss == whole.token_loss);
  }
}

TEMPLATE_TEST_CASE("update edit: the gradient is the derivative of the reported loss", "",
                   update_edits::hide_prompt_from_answer, hide_inner_part, strangers::short_sight) {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config(), 4, 0.7);
  written w;
  TestType const edit;
  // Denominators on both sides of the clips, no kink near.
  auto const under = update_log_probs(model, w.all(), 0.8, {}, edit);
  for (std::size_t i = 0; i < w.rollouts.size(); ++i)
    for (std::size_t t = 0; t < under[i].size(); ++t)
      w.old_log_p[i][t] = under[i][t] + 0.1f * float(int(t + i) % 9 - 4);
  trainable_weights policy(model);
  policy_gradient_options const options{.temperature = 0.8, .entropy_bonus = 0.1};
  policy.zero_gradient();
  auto const report = add_policy_gradient(policy, w.all(), losses::grpo{}, options, edit);
  CHECK(report.clip_share > 0.05);
  auto const gradient = policy.gradient().to_host();
  auto const flat = random_parameters(model.config(), 4, 0.7);
  for (unsigned const seed : {1u, 2u, 3u}) {
    auto const direction = random_values(index_t(flat.size()), 90 + seed, 0.1);
    double const h = 1e-3;
    auto const loss_at = [&](double step) {
      auto moved = flat;
      for (std::size_t i = 0; i < flat.size(); ++i) moved[i] += step * direction[i];
      set_parameters(model, moved);
      return add_policy_gradient(policy, w.all(), losses::grpo{}, options, edit).loss;
    };
    CHECK(weighted_sum(gradient, direction) == Approx((loss_at(h) - loss_at(-h)) / (2 * h)).epsilon(3e-3));
  }
}

TEST_CASE("update edit: without a chain nothing but the prompt's first token reaches the answer") {
  cpu_backend backend;
  auto model = random_model<cpu_backend, float>(backend, small_config(), 4, 0.7);
  written const w;
  training_rollout r = w.rollouts[4];
  auto other = w.prompts[2];
  for (std::size_t i = 1; i < other.size(); ++i) other[i] = (other[i] + 7) % int(vocab);
  auto const scores = [&](std::vector<int> const& prompt, auto const& edit) {
    r.prompt = prompt;
    return update_log_probs(model, std::span(&r, 1), 1, {}, edit).front();
  };
  auto const tail = [](std::vector<float> const& x) { return std::vector<float>(x.begin() + 1, x.end()); };
  update_edits::hide_prompt_from_answer const hide;
  CHECK(tail(scores(w.prompts[2], hide)) == tail(scores(other, hide)));
  CHECK(scores(w.prompts[2], hide).front() != scores(other, hide).front());  // that row is the prompt's own
  CHECK(tail(scores(w.prompts[2], update_edits::none{})) != tail(scores(other, update_edits::none{})));
  other[0] = (other[0] + 1) % int(vocab);
  CHECK(tail(scores(w.prompts[2], hide)) != tail(scores(other, hide)));
}

TEST_CASE("update edit: rollouts that do not say where their answer is are refused") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config(), 4);
  written w;
  w.rollouts[2].spans.reset();
  trainable_weights policy(model);
  CHECK_THROWS_WITH(add_policy_gradient(policy, w.all(), losses::grpo{}, {}, update_edits::hide_prompt_from_answer{}),
                    ATMANRL_CONTAINS("a rollout of 8 tokens does not say where its answer is"));
  CHECK_NOTHROW(add_policy_gradient(policy, w.all(), losses::grpo{}, {}));
}

TEST_CASE("update edit: a part that does not lie in its prompt is refused") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config(), 4);
  written const w;
  auto const scores = [&](token_span part) {
    return update_log_probs(model, w.all(), 1, {}, update_edits::hide_from_answer{fixed_part{part}});
  };
  CHECK_NOTHROW(scores({0, 1}));
  CHECK_THROWS_WITH(scores({0, 7}), ATMANRL_CONTAINS("the part [0, 7) does not lie in a prompt of 6 tokens"));
  CHECK_THROWS_AS(scores({2, 1}), usage_error);
  CHECK_THROWS_AS(scores({-1, 1}), usage_error);
}

TEST_CASE("update edit: in a trainer only the loss sees it, and the ratios begin at exactly 1") {
  cpu_backend backend;
  toy_tokenizer const tokenizer;
  toy_task const task;
  strangers::likes_token const reward{.id = 19};
  auto const train = [&](auto const& edit, std::vector<grpo_step_report>& steps) {
    auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
    grpo trainer(model, tokenizer, task, reward, small_run(), advantages::mean_centered{}, losses::grpo{},
                 samplers::multinomial{}, schedules::constant{}, optim::adamw{}, edit);
    for (int i = 0; i < 2; ++i) steps.push_back(trainer.step());
    return read_parameters(model);
  };
  std::vector<grpo_step_report> plain, same, edited;
  auto const expected = train(update_edits::none{}, plain);
  // An edit that changes nothing: what is computed again before the first update are the sampler's numbers.
  CHECK(train(strangers::short_sight{.loss = 0}, same) == expected);
  CHECK(train(strangers::short_sight{}, edited) != expected);
  bool unlike_the_sampler = false;
  edited[0].rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
    rollout const& other = plain[0].rollouts.groups[i / 4].rollouts[i % 4];
    CHECK(r.ids == other.ids);
    CHECK(r.log_probs == other.log_probs);
    unlike_the_sampler |= edited[0].passes[0].log_p[i] != r.log_probs;
  });
  CHECK(unlike_the_sampler);
  for (auto const& report : edited) {
    CHECK(report.passes[0].ratio_min == 1);
    CHECK(report.passes[0].ratio_max == 1);
    CHECK(report.passes[1].ratio_max > 1);
  }
}

TEST_CASE("update edit: the reference of a KL term sees what the policy sees, and masked rollouts stay out") {
  cpu_backend backend;
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  auto frozen = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  auto options = small_run();
  options.mask_truncated_completions = true;
  grpo trainer(model, tokenizer, task, strangers::likes_token{.id = 19}, options, advantages::mean_centered{},
               losses::with_kl{losses::grpo{}, kl::k3{}, 0.1}, samplers::multinomial{}, schedules::constant{},
               optim::adamw{}, strangers::short_sight{});
  trainer.set_reference_model(frozen);
  auto const report = trainer.step();
  CHECK(report.passes[0].kl.value() == 0);
  CHECK(report.passes[1].kl.value() > 0);
  bool masked = false;
  report.rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
    CHECK(report.passes[0].log_p[i].empty() == r.truncated);
    masked |= r.truncated;
  });
  CHECK(masked);
}

}  // namespace update_edit_test
