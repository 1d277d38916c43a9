#include <atmanrl/comm/threads.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/optim/any.hpp>
#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/advantages/batch_normalized.hpp>
#include <atmanrl/rl/advantages/chain_only.hpp>
#include <atmanrl/rl/advantages/gdpo.hpp>
#include <atmanrl/rl/advantages/saliency_weighted.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/rl/losses/bnpo.hpp>
#include <atmanrl/rl/losses/kl.hpp>
#include <atmanrl/rl/observers/causality.hpp>
#include <atmanrl/rl/rewards/any.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/chain_information.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/edited_answer.hpp>
#include <atmanrl/rl/rewards/gated.hpp>
#include <atmanrl/rl/rewards/knock_out.hpp>
#include <atmanrl/rl/rewards/restored_answer.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/rewards/shuffled.hpp>
#include <atmanrl/rl/sft.hpp>
#include <atmanrl/rl/update_edits/hide_prompt_from_answer.hpp>

#include "catch.hpp"
#include "rl/editable_toy.hpp"
#include "rl/toy_model.hpp"

#include <functional>
#include <mutex>
#include <optional>
#include <vector>

using namespace atmanrl_test;

namespace ranks_test {
namespace {

using model_type = llama<cpu_backend, float>;
using reward_type = rewards::any<model_type>;
using update_edits::hide_prompt_from_answer;

/// Large enough for slices of three ranks, and not a multiple of them.
model_config wide_config() {
  model_config c = toy_config();
  c.layers = 2;
  c.hidden = 128;
  c.ffn = 160;
  return c;
}

grpo_options small_run() {
  grpo_options o;
  o.prompts_per_step = 5;
  o.group_size = 3;
  o.max_new_tokens = 8;
  o.no_delimiter = no_delimiter_policy::force;
  o.learning_rate = 1e-3;
  o.seed = 11;
  return o;
}

mask_options quick_masks() {
  mask_options o = mask_options::recommended();
  o.scale = 0;  // chosen over all ranks
  o.steps = 2;
  return o;
}

/// Text of different lengths, so that groups differ in their rewards.
struct short_is_good {
  static constexpr std::string_view name = "short_is_good";
  float operator()(rollout const& r) const { return 1.0f / float(1 + r.ids.size()); }
};

/// Somebody else's, which asks the model and shares the work as docs/extending.md says.
struct surprise : shared_values {
  static constexpr std::string_view name = "surprise";
  template <class Model>
  void operator()(step_rollouts& step, Model& model, std::span<float> out) const {
    saliency_items const all = saliency_items_of(step, model.config().max_positions);
    auto together = ranks();
    auto const values = comm::share_work<float>(together, all.items.size(), [&](std::size_t first, std::size_t count) {
      auto const mine = std::span<saliency_item const>(all.items).subspan(first, count);
      std::vector<cot_variant> whole;
      for (std::size_t i = 0; i < count; ++i)
        whole.push_back({.item = i, .keep = index_t(mine[i].cot.size()), .inserted = {}, .chosen = {}});
      std::vector<float> scores;
      for (variant_score const& s : score_variants(model, mine, std::span<cot_variant const>(whole)))
        scores.push_back(float(s.cross_entropy));
      return scores;
    });
    spread_values(values, all.places, out);
  }
};

/// An estimator that compares its items, and knows nothing of ranks.
struct above_mean {
  static constexpr std::string_view name = "above_mean";
  template <LanguageModel Model>
  saliency_estimate operator()(Model& model, std::span<saliency_item const> items) const {
    saliency_estimate out = estimators::gradient{}(model, items);
    double mean = 0;
    for (saliency_result const& r : out.items) mean += r.re_enabled / double(out.items.size());
    for (saliency_result& r : out.items) r.re_enabled -= mean;
    return out;
  }
};

reward_type with_saliency() {
  return rewards::balanced_sum(short_is_good{}, rewards::saliency<>(quick_masks()), 1, 0.5);
}

struct setting {
  std::function<reward_type()> reward = with_saliency;
  grpo_options options = small_run();
  advantages::any advantage{};
  losses::any loss{};
  optim::any optimizer{};
  bool adapters = false, frozen_reference = false;
};

/// All that a run leaves behind, as bytes.
using trace = std::vector<std::byte>;

template <class Edit>
trace run(setting const& s, int threads, comm::any_on<cpu_backend> ranks) {
  cpu_backend backend({.threads = threads});
  auto model = random_model<cpu_backend, float>(backend, wide_config(), 3, 0.1);
  std::optional<model_type> frozen;
  if (s.frozen_reference) frozen.emplace(random_model<cpu_backend, float>(backend, wide_config(), 4, 0.1));
  if (s.adapters) model.attach({.rank = 2, .alpha = 4}, 5);
  toy_tokenizer const tokenizer;
  toy_task const task;
  grpo trainer(model, tokenizer, task, s.reward(), s.options, s.advantage, s.loss, samplers::multinomial{},
               schedules::constant{}, s.optimizer, Edit{}, ranks);
  if (frozen) trainer.set_reference_model(*frozen);
  observers::causality observer({.every = 1, .rollouts = 3, .curve_points = 3, .random_orders = 1});
  observer.share_with(ranks);
  comm::packer all;
  for (int step = 0; step < 2; ++step) {
    auto report = trainer.step();
    std::vector<observation> observed;
    observer(report, model, observed);
    report.rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t) {
      all(r.ids);
      all(r.log_probs);
      all(r.entropies);
      all(r.mask);
    });
    all(report.rewards.total);
    all(report.advantages);
    all(report.token_advantages);
    for (auto const& p : report.passes) {
      for (double const x : {p.loss, p.ratio_min, p.ratio_mean, p.ratio_max, p.clip_low, p.clip_high, p.kl.value_or(7),
                             p.entropy.value_or(7)})
        all(x);
      all(p.log_p);
      all(p.token_loss);
    }
    all(report.gradient_norms);
    all(report.reward_gradient_norm.value_or(7));
    all(report.replaced_groups);
    auto const figures = trainer.reward().latest_mask_figures().value_or(mask_figures{});
    for (double const x : {figures.scale, figures.gradients.low, figures.gradients.median, figures.gradients.high})
      all(x);
    for (observation const& o : observed) all(o.value);
  }
  tensor<cpu_backend, float, 1> weights(backend, {model.trainable_layout().size()});
  model.read_trainable(weights.view());
  all(weights.to_host());
  all(reward_state(trainer.reward()).dump());
  return all.bytes();
}

template <class Edit = update_edits::none>
void check_all_ranks(setting const& s) {
  trace const expected = run<Edit>(s, 1, {});
  for (int const ranks : {2, 3, 4}) {
    INFO(ranks << " ranks");
    std::mutex lock;
    std::vector<trace> found;
    CHECK_NOTHROW(comm::threads::run(ranks, [&](comm::threads& c) {
      trace t = run<Edit>(s, ranks == 3 ? 2 : 1, c);
      std::lock_guard const held(lock);
      found.push_back(std::move(t));
    }));
    REQUIRE(found.size() == std::size_t(ranks));
    for (trace const& t : found) CHECK((t == expected));
  }
}

}  // namespace

TEST_CASE("grpo over ranks: saliency with a chosen scale and a settled weight, the same bits for any number") {
  check_all_ranks({});
}

TEST_CASE("grpo over ranks: a parameter of a run is larger than a slice, and settings differ in what they compute") {
  CHECK(parameter_layout(wide_config(), model_type::kind_of(wide_config())).size() >
        2 * index_t(comm::slice_alignment));
  CHECK(parameter_layout(wide_config(), model_type::kind_of(wide_config())).size() % index_t(comm::slice_alignment) !=
        0);
  CHECK((run<update_edits::none>({}, 1, {}) != run<update_edits::none>({.adapters = true}, 1, {})));
}

TEST_CASE("grpo over ranks: adapters, a reference with a KL term, entropy and per-micro-batch normalisation") {
  check_all_ranks({.loss = losses::with_kl(losses::grpo{}, kl::k3{}, 0.1), .adapters = true});
  setting s{.loss = losses::with_kl(losses::bnpo{}, kl::k3{}, 0.1), .frozen_reference = true};
  s.options.entropy_bonus = 0.01;
  s.options.micro_batch = 2;
  s.options.mask_truncated_completions = true;
  check_all_ranks(s);
}

TEST_CASE("grpo over ranks: dynamic sampling, advantages over the whole step and per token") {
  setting s{.reward = [] { return rewards::gated(rewards::saliency<>(quick_masks())); },
            .advantage = advantages::batch_normalized{}};
  s.options.dynamic_sampling_rounds = 2;
  check_all_ranks(s);
  check_all_ranks({.advantage = advantages::gdpo{}});
  check_all_ranks({.advantage = advantages::saliency_weighted<>{}});
  check_all_ranks({.advantage = advantages::chain_only<>{}});
}

TEST_CASE("grpo over ranks: rewards that ask the model, and their gradients") {
  check_all_ranks({.reward = [] {
    return rewards::shuffled(rewards::balanced_sum(rewards::chain_information{.label = mask_label::ground_truth},
                                                   rewards::saliency(estimators::leave_one_out{})));
  }});
  setting s{.reward = [] { return rewards::knock_out{.label = mask_label::ground_truth}; }};
  s.options.reward_gradient = {.update = reward_gradient_update::joined, .weight = 0.3};
  check_all_ranks(s);
  s.reward = [] { return rewards::restored_answer<>(quick_masks()); };
  s.options.reward_gradient = {.update = reward_gradient_update::own, .weight = 0.3, .share = 0.6};
  check_all_ranks(s);
  static editable_toy const task;
  static toy_tokenizer const words;
  s.reward = [] { return rewards::edited_answer(task, words, 3); };
  s.options.reward_gradient.update = reward_gradient_update::own_optimizer;
  check_all_ranks(s);
}

TEST_CASE("grpo over ranks: a reward of somebody else's that shares its work, and an estimator that cannot") {
  check_all_ranks({.reward = [] { return surprise{}; }});
  check_all_ranks({.reward = [] { return rewards::saliency(above_mean{}); }});
}

TEST_CASE("grpo over ranks: an optimizer whose state cannot be sliced, and one that can") {
  check_all_ranks({.optimizer = optim::muon{}});
  check_all_ranks({.optimizer = optim::lion{}});
}

TEST_CASE("grpo over ranks: what a rank keeps of a gradient changes no bit, whatever the passes of a group") {
  setting s{.loss = losses::with_kl(losses::bnpo{}, kl::k3{}, 0.1), .frozen_reference = true};
  s.options.entropy_bonus = 0.01;
  s.options.micro_batch = 2;  // two passes of a group, or one where a completion was truncated
  s.options.mask_truncated_completions = true;
  s.options.gradient = {gradient_memory::layers};
  check_all_ranks(s);
  s.options.micro_batch = 0;
  s.options.gradient = {gradient_memory::layers, true};
  check_all_ranks(s);
  s = {.reward = [] { return rewards::knock_out{.label = mask_label::ground_truth}; }, .optimizer = optim::muon{}};
  s.options.reward_gradient = {.update = reward_gradient_update::joined, .weight = 0.3};
  s.options.gradient = {gradient_memory::slices};
  check_all_ranks(s);
  s.options.gradient = {gradient_memory::layers};
  s.optimizer = optim::lion{};
  CHECK_THROWS_WITH(comm::threads::run(2, [&](comm::threads& c) { run<update_edits::none>(s, 1, c); }),
                    ATMANRL_CONTAINS("so gradients cannot be handed over in layers"));
}

TEST_CASE("grpo over ranks: what a step exchanges is what the sum of gradients and the new weights take") {
  for (int const ranks : {2, 3, 4})
    CHECK_NOTHROW(comm::threads::run(ranks, [&](comm::threads& c) {
      cpu_backend backend({.threads = 1});
      auto model = random_model<cpu_backend, float>(backend, wide_config(), 3, 0.1);
      toy_tokenizer const tokenizer;
      toy_task const task;
      grpo trainer(model, tokenizer, task, reward_type(short_is_good{}), small_run(), advantages::any{}, losses::any{},
                   samplers::multinomial{}, schedules::constant{}, optim::any{}, update_edits::none{}, c);
      comm::byte_count const before = c.volume().exchange;
      trainer.step();
      auto const n = std::size_t(model.trainable_layout().size()), slice = trainer.policy().slice().count;
      std::size_t mine = 0, all = 0;  // nodes of the tree that are left
      for (int r = 0; r < ranks; ++r) {
        std::size_t const nodes = comm::whole_nodes(5, comm::share_of(5, ranks, r)).size();
        all += nodes;
        if (r == c.rank()) mine = nodes;
      }
      std::size_t const passes = std::size_t(small_run().inner_passes), others = std::size_t(ranks) - 1;
      auto const sent = passes * sizeof(float) * (mine * (n - slice) + others * slice),
                 received = passes * sizeof(float) * ((all - mine) * slice + n - slice);
      auto const counted = c.volume().exchange;
      expects(counted.sent - before.sent == sent && counted.received - before.received == received,
              "rank {} of {} has sent {} and received {} bytes, not {} and {}", c.rank(), ranks,
              counted.sent - before.sent, counted.received - before.received, sent, received);
    }));
}

TEST_CASE("grpo over ranks: an update edit") { check_all_ranks<hide_prompt_from_answer>({}); }

}  // namespace ranks_test
