#include <atmanrl/experiment/reward_parts.hpp>
#include <atmanrl/saliency/masks/multiplicative.hpp>
#include <atmanrl/saliency/masks/sigmoid_gate.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"
#include "strangers.hpp"

using namespace atmanrl;
namespace reward_parts_test {

using atmanrl_test::complaint;
using atmanrl_test::contains;

namespace {

struct constant {
  static constexpr std::string_view name = "constant";
  float operator()(rollout const&) const { return 1; }
};

struct from_seed {
  float value = 0;
  static from_seed from_options(experiment_options const& o) { return {float(o.seed)}; }
  float operator()(rollout const&) const { return value; }
};

struct counting {
  static constexpr std::string_view name = "counting";
  int calls = 0;
  float operator()(rollout const&) const { return 1; }
  json state() const { return calls; }
  void restore(json const& j) { calls = j.get<int>(); }
};

step_rollouts two_rollouts() {
  step_rollouts s;
  s.groups.resize(1);
  s.groups[0].rollouts.resize(2);
  return s;
}

}  // namespace

TEST_CASE("make_reward: the options reach the saliency reward wherever it is") {
  experiment_options o;
  o.mask.steps = 7;
  o.saliency_weight = 0.25;
  o.seed = 9;
  using sum = rewards::weighted_sum<rewards::correct_answer, rewards::saliency<>, from_seed>;
  auto reward = make_reward<sum>(o);
  CHECK(reward.reward<1>().options().steps == 7);
  CHECK(reward.weight<0>() == 1.0f);
  CHECK(reward.weight<1>() == 0.25f);
  CHECK(reward.weight<2>() == 1.0f);
  CHECK(reward.reward<2>().value == 9.0f);

  using balanced = rewards::balanced_sum<constant, sum>;
  auto nested = make_reward<balanced>(o);
  CHECK(nested.auxiliary().reward<1>().options().steps == 7);
  CHECK(nested.weight() == 0.25);
  CHECK(nested.settled());
  o.saliency_weight.reset();
  CHECK_FALSE(make_reward<balanced>(o).settled());

  o.mask.scale = 12;
  auto scaled = make_reward<balanced>(o);
  REQUIRE(mask_figures_of(scaled).has_value());
  CHECK(mask_figures_of(scaled)->scale == 12);
  auto plain = make_reward<constant>(o);
  CHECK_FALSE(mask_figures_of(plain).has_value());
}

TEST_CASE("make_reward: estimator and gate are the options' choice where the reward leaves them open") {
  experiment_options o;
  o.mask.scale = 15;
  o.mask.label = mask_label::own_answer;
  using open = rewards::gated<rewards::saliency<estimators::any>, rewards::chosen_gate>;
  auto reward = make_reward<open>(o);
  CHECK(reward.name == "saliency");
  CHECK(reward.gate.choice == rewards::gate_choice::none);
  CHECK(reward.reward.estimator().name == "learned_mask");
  CHECK(reward.reward.label() == mask_label::own_answer);
  REQUIRE(mask_figures_of(reward).has_value());
  CHECK(mask_figures_of(reward)->scale == 15);
  o.saliency_weight = 0.25;
  CHECK(make_reward<rewards::weighted_sum<constant, open>>(o).weight<1>() == 0.25f);

  o.saliency_weight.reset();
  o.saliency_gate = rewards::gate_choice::correct;
  for (auto const name : estimators::names) {
    o.saliency_estimator = name;
    auto chosen = make_reward<open>(o);
    CHECK(chosen.name == "gated_saliency");
    CHECK(chosen.gate.choice == rewards::gate_choice::correct);
    CHECK(chosen.reward.estimator().name == name);
    CHECK(chosen.reward.label() == mask_label::own_answer);
    CHECK(mask_figures_of(chosen).has_value() == (name == "learned_mask"));
  }
  CHECK(contains(complaint<usage_error>([&] { make_reward<rewards::saliency<estimators::any>>(o); }),
                 "--saliency-gate is correct"));
  o.saliency_gate = rewards::gate_choice::none;
  o.saliency_estimator = "gradient";
  CHECK(contains(complaint<usage_error>([&] { make_reward<rewards::saliency<>>(o); }),
                 "--saliency-estimator is gradient"));
  CHECK_NOTHROW(make_reward<rewards::saliency<estimators::gradient>>(o));
}

TEST_CASE("make_reward: a share of nothing is a weight of nothing, where no weight is given") {
  using sum = rewards::balanced_sum<constant, counting>;
  experiment_options o;
  o.saliency_share = 0;
  CHECK(make_reward<sum>(o).weight() == 0);
  CHECK(make_reward<sum>(o).settled());
  auto reward = make_reward<sum>(o);
  auto step = two_rollouts();
  detail::any_model model;
  CHECK(reward.table(step, model).total == std::vector<float>{1, 1});
  o.saliency_weight = 0.25;
  CHECK(make_reward<sum>(o).weight() == 0.25);
  // Until it is settled, a share that there is begins at the reward's own weight.
  o.saliency_weight.reset();
  o.saliency_share = 0.5;
  CHECK(make_reward<sum>(o).weight() == 1);
}

TEST_CASE("make_reward: numbers of penalties and of a saliency's weight are refused where the reward has none") {
  using sum = rewards::weighted_sum<rewards::correct_answer, constant>;
  using weighed = rewards::weighted_sum<rewards::correct_answer, rewards::saliency<>>;
  using balanced = rewards::balanced_sum<constant, rewards::saliency<>>;
  struct reads_options : constant {
    static reads_options from_options(experiment_options const&) { return {}; }
  };
  auto const check = [](auto change, char const* sentence, auto... rewards_with_it) {
    experiment_options o;
    change(o);
    CHECK(contains(complaint<usage_error>([&] { make_reward<sum>(o); }), sentence));
    (void(make_reward<decltype(rewards_with_it)>(o)), ...);
    (void)make_reward<rewards::weighted_sum<constant, reads_options>>(o);  // it may be read there
  };
  check([](auto& o) { o.length_penalty = 30; }, "--length-penalty is 30", rewards::penalized<sum>{});
  check([](auto& o) { o.overlong_cache = 40; }, "--overlong-cache 40", rewards::penalized<sum>{});
  check([](auto& o) { o.saliency_share = 0.2; }, "--saliency-share is 0.2", balanced{}, rewards::penalized<balanced>{});
  check([](auto& o) { o.saliency_weight = 7; }, "--saliency-weight is 7", balanced{}, weighed{});
  experiment_options o = experiment_options::of_preset(experiment_preset::paper);
  CHECK_NOTHROW(make_reward<sum>(o));  // what a preset says was not asked for
  o.saliency_share = 0.2;
  CHECK(contains(complaint<usage_error>([&] { make_reward<weighed>(o); }), "--saliency-share is 0.2"));
}

TEST_CASE("gated: an open gate lets every value through, that of the right answers only theirs") {
  auto step = two_rollouts();
  step.groups[0].rollouts[0].grade.correct_strict = true;
  step.groups[0].rollouts[0].spans.cot = {0, 1};
  step.groups[0].rollouts[0].member = 0;
  step.groups[0].rollouts[1].member = 1;
  struct by_member {
    float operator()(rollout const& r) const { return float(1 + r.member); }
  };
  detail::any_model model;
  rewards::gated<by_member, rewards::chosen_gate> open(by_member{}),
      closed(by_member{}, {rewards::gate_choice::correct});
  CHECK(reward_values(open, step, model) == std::vector<float>{1, 2});
  CHECK(reward_values(closed, step, model) == std::vector<float>{1, 1});
}

TEST_CASE("reward_state: what was settled comes back") {
  experiment_options o;
  using reward_type = rewards::balanced_sum<counting, rewards::saliency<>>;
  auto a = make_reward<reward_type>(o), b = make_reward<reward_type>(o);
  a.settle(0.1234567890123456789);
  a.main().calls = 3;
  a.auxiliary().set_scale(25);
  restore_reward(b, parse_json(reward_state(a).dump(), "state"), "state");
  CHECK(b.settled());
  CHECK(b.weight() == a.weight());
  CHECK(b.main().calls == 3);
  CHECK(b.auxiliary().options().scale == 25);

  auto unsettled = make_reward<reward_type>(o), c = make_reward<reward_type>(o);
  restore_reward(c, parse_json(reward_state(unsettled).dump(), "state"), "state");
  CHECK_FALSE(c.settled());
  CHECK(c.auxiliary().options().scale == 0);
}

TEST_CASE("reward_state: a scale that a mask chosen by name has settled on comes back") {
  experiment_options o;
  using open = rewards::gated<rewards::saliency<estimators::any>, rewards::chosen_gate>;
  auto a = make_reward<open>(o), b = make_reward<open>(o);
  CHECK(mask_figures_of(b)->scale == 0);
  a.reward.set_scale(40);
  restore_reward(b, parse_json(reward_state(a).dump(), "state"), "state");
  CHECK(mask_figures_of(b)->scale == 40);
}

TEST_CASE("reward_state: a scale inside a user's combinator comes back, wherever that one stands") {
  using cut = strangers::halved_when_cut<rewards::saliency<>>;
  static_assert(RewardOfParts<cut> && !RewardOfParts<rewards::saliency<>>);
  auto const check = [](auto a, auto b, auto const& masks_of) {
    masks_of(a).set_scale(40);
    restore_reward(b, parse_json(reward_state(a).dump(), "state"), "state");
    CHECK(masks_of(b).options().scale == 40);
    REQUIRE(mask_figures_of(b).has_value());
    CHECK(mask_figures_of(b)->scale == 40);
  };
  check(
      cut{}, cut{}, [](auto& r) -> auto& { return r.reward; });
  using sum = rewards::weighted_sum<constant, rewards::gated<cut>>;
  check(
      sum{}, sum{}, [](auto& r) -> auto& { return r.template reward<1>().reward.reward; });
  using outer = strangers::halved_when_cut<rewards::balanced_sum<constant, rewards::saliency<>>>;
  check(
      outer{}, outer{}, [](auto& r) -> auto& { return r.reward.auxiliary(); });
}

TEST_CASE("make_reward: masks of another family and a user's objective follow the mask options, and keep their scale") {
  experiment_options o;
  o.mask.steps = 9;
  using gates = rewards::saliency<estimators::learned_mask<masks::multiplicative>>;
  using sigmoids = rewards::saliency<estimators::learned_mask<masks::sigmoid_gate>>;
  using mine = rewards::saliency<estimators::learned_mask<strangers::couples, strangers::squared_gap>>;
  CHECK(make_reward<gates>(o).options().steps == 9);
  CHECK(make_reward<gates>(o).label() == mask_label::ground_truth);
  auto own = make_reward<mine>(o);
  CHECK(own.options().steps == 9);
  REQUIRE(mask_figures_of(own).has_value());
  CHECK(mask_figures_of(own)->scale == 0);
  auto no_scale = make_reward<mine>(o);
  CHECK_NOTHROW(restore_reward(no_scale, parse_json(reward_state(own).dump(), "state"), "state"));

  auto a = make_reward<sigmoids>(o), b = make_reward<sigmoids>(o);
  CHECK(mask_figures_of(b)->scale == 0);
  a.set_scale(40);
  restore_reward(b, parse_json(reward_state(a).dump(), "state"), "state");
  CHECK(mask_figures_of(b)->scale == 40);

  o.mask.init = -0.7;
  CHECK(make_reward<sigmoids>(o).options().init == -0.7);
  CHECK(contains(complaint<usage_error>([&] { make_reward<gates>(o); }), "mask init is -0.7"));
  o.mask.init = -0.4;
  o.mask.objective = objectives::kl_to_unmasked{};
  CHECK(contains(complaint<usage_error>([&] { make_reward<mine>(o); }), "the objective squared_gap in its place"));
}

TEST_CASE("saliency reward: options of a family deduce the estimator that trains it") {
  rewards::saliency const plain(mask_options{});
  rewards::saliency const gates(mask_options_of<masks::multiplicative>{}, saliency_direction::as_printed);
  CHECK(std::same_as<decltype(plain), rewards::saliency<> const>);
  CHECK(std::same_as<decltype(gates), rewards::saliency<estimators::learned_mask<masks::multiplicative>> const>);
}

TEST_CASE("reward_state: the state of another reward is refused") {
  experiment_options o;
  auto a = make_reward<rewards::balanced_sum<counting, rewards::saliency<>>>(o);
  auto other = make_reward<rewards::weighted_sum<rewards::correct_answer, rewards::saliency<>>>(o);
  auto fewer = make_reward<rewards::saliency<>>(o);
  CHECK(contains(complaint([&] { restore_reward(other, reward_state(a), "file"); }),
                 "file: was written with another reward"));
  CHECK(contains(complaint([&] { restore_reward(fewer, reward_state(a), "file"); }), "another reward"));
  CHECK(contains(complaint([&] { restore_reward(fewer, json(3), "file"); }), "another reward"));
}

TEST_CASE("make_reward: a sum made from options adds its weighted parts") {
  experiment_options o;
  o.seed = 5;
  o.saliency_weight = 2;
  auto reward = make_reward<rewards::weighted_sum<constant, from_seed>>(o);
  auto step = two_rollouts();
  detail::any_model model;
  auto const table = reward.table(step, model);
  CHECK(table.total == std::vector<float>{6, 6});
}

}  // namespace reward_parts_test
