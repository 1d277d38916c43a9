#pragma once
// The arms: the same start, prompts and random numbers, and one difference each.
#include <atmanrl/grpo.hpp>
#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/rewards/any.hpp>
#include <atmanrl/rl/rewards/chain_information.hpp>
#include <atmanrl/rl/rewards/edited_answer.hpp>
#include <atmanrl/rl/rewards/gradient_only.hpp>
#include <atmanrl/rl/rewards/knock_out.hpp>
#include <atmanrl/rl/rewards/length.hpp>
#include <atmanrl/rl/rewards/restored_answer.hpp>
#include <atmanrl/rl/rewards/shuffled.hpp>
#include <atmanrl/rl/update_edits/hide_prompt_from_answer.hpp>

#include "starts.hpp"

#include <map>
#include <numeric>

namespace faithfulness {

/// What rewards are made from.
struct arm_parts {
  settings const& s;
  taught_task const& task;
  tokenizer const& words;
  std::uint64_t seed;
};

/// What of a prompt.
enum class hidden_part { none, prompt, hint };

/// \tparam Model  that is trained
template <class Model>
struct arm {
  std::string name, title;
  std::function<rewards::any<Model>(arm_parts const&)> reward;  ///< empty: no reinforcement learning
  reward_gradient_update gradient = reward_gradient_update::off;
  double hint_reliability = 1;             ///< of the prompts
  hidden_part hidden = hidden_part::none;  ///< from the answer, in the policy loss
  bool chain_only = false;                 ///< the outcome's credit is the chain's, and none the answer's
  bool gate = false;                       ///< the numbers that rewards pay are taken of its model, too
  /// One more with each change of code that changes what the arm trains: its runs are not mixed with those before.
  int version = 1;
};

/// Outcome plus a second reward, weighted so that its spread within groups is a set share of the outcome's at the first
/// step in which both vary: the arms then push equally hard.
template <class Second>
auto balanced(settings const& s, Second second) {
  return rewards::balanced_sum<rewards::correct_answer, Second>(rewards::correct_answer{}, std::move(second), 1,
                                                                s.share);
}
/// A first reward, and the gradient alone of a second.
template <class First, class Second>
auto with_gradient_of(First first, Second second) {
  return rewards::weighted_sum{rewards::term{1.0f, std::move(first)},
                               rewards::term{1.0f, rewards::gradient_only<Second>{std::move(second)}}};
}

/// The recommended mask at the scale that `auto` finds on hundreds of completions (docs/ablation.md), so that arms
/// differ in nothing but their reward.
inline rewards::saliency<> mask_reward(saliency_direction direction = saliency_direction::re_enabled) {
  mask_options o = mask_options::recommended();
  o.scale = 25;
  return rewards::saliency<>{o, direction};
}
inline auto edit_reward(arm_parts const& p,
                        rewards::edited_answer_value value = rewards::edited_answer_value::probability) {
  return rewards::edited_answer(p.task, p.words, 0, {}, value);
}

/// The published reward with the gradient of what its masks restore. The number that is paid, 1 - mean of H*, depends
/// on the parameters through the training of its mask alone, and through that nothing is differentiated here: the
/// gradient is that of CE(c) - CE(H*), what the same mask restores, at a fixed H*. H* is the one that the reward
/// trained for the parameters which wrote the rollouts, so no second mask is trained; its gradient is taken after the
/// two passes of the policy loss have moved them.
inline auto re_enabled_with_gradient(settings const& s) {
  auto paid = mask_reward();
  rewards::restored_answer<> restored(paid.options(), {}, rewards::restored_masks::of_saliency);
  return with_gradient_of(balanced(s, std::move(paid)), std::move(restored));
}

template <class Model>
std::vector<arm<Model>> const& all_arms() {
  using rewards::correct_answer;
  static auto const own = reward_gradient_update::own;
  static std::vector<arm<Model>> const list{
      {.name = "start", .title = "start, untrained", .reward = {}, .gate = true},
      {.name = "reader_sft", .title = "reader fine-tuning (positive control)", .reward = {}, .gate = true},
      {.name = "outcome", .title = "outcome only", .reward = [](auto const&) { return correct_answer{}; }},
      {.name = "outcome_wrong_hints",
       .title = "outcome only, half of the hints wrong (positive control)",
       .reward = [](auto const&) { return correct_answer{}; },
       .hint_reliability = 0.5},
      {.name = "re_enabled",
       .title = "AtManRL, re-enabled",
       .reward = [](arm_parts const& p) { return balanced(p.s, mask_reward()); }},
      {.name = "as_printed",
       .title = "AtManRL, sign as printed",
       .reward = [](arm_parts const& p) { return balanced(p.s, mask_reward(saliency_direction::as_printed)); }},
      {.name = "length",
       .title = "length penalty",
       .reward = [](arm_parts const& p) { return balanced(p.s, rewards::length{}); }},
      {.name = "shuffled",
       .title = "AtManRL, shuffled in groups",
       .reward =
           [](arm_parts const& p) {
             return balanced(p.s, rewards::shuffled<rewards::saliency<>>(mask_reward(), p.seed));
           }},
      {.name = "leave_one_out",
       .title = "leave-one-out as saliency",
       .reward = [](arm_parts const& p) { return balanced(p.s, rewards::saliency<estimators::leave_one_out>{}); }},
      {.name = "knock_out",
       .title = "knock-out effect",
       .reward = [](arm_parts const& p) { return balanced(p.s, rewards::knock_out{}); }},
      {.name = "chain_information",
       .title = "CIR",
       .reward = [](arm_parts const& p) { return balanced(p.s, rewards::chain_information{}); }},
      {.name = "edit",
       .title = "edit reward",
       .reward = [](arm_parts const& p) { return balanced(p.s, edit_reward(p)); }},
      {.name = "knock_out_gradient",
       .title = "outcome, ∇ of the knock-out effect",
       .reward = [](auto const&) { return with_gradient_of(correct_answer{}, rewards::knock_out{}); },
       .gradient = own,
       .gate = true},
      {.name = "edit_gradient",
       .title = "outcome, ∇ of the edit reward",
       .reward = [](arm_parts const& p) { return with_gradient_of(correct_answer{}, edit_reward(p)); },
       .gradient = own,
       .gate = true},
      {.name = "edit_log_gradient",
       .title = "outcome, ∇ of the logarithm of the edit reward",
       .reward =
           [](arm_parts const& p) {
             return with_gradient_of(correct_answer{}, edit_reward(p, rewards::edited_answer_value::log_probability));
           },
       .gradient = own,
       .gate = true},
      {.name = "chain_only_edit_log_gradient",
       .title = "outcome for the chain alone, ∇ of the logarithm of the edit reward",
       .reward =
           [](arm_parts const& p) {
             return with_gradient_of(correct_answer{}, edit_reward(p, rewards::edited_answer_value::log_probability));
           },
       .gradient = own,
       .chain_only = true,
       .gate = true},
      {.name = "re_enabled_gradient",
       .title = "AtManRL, ∇ of what its masks restore",
       .reward = [](arm_parts const& p) { return re_enabled_with_gradient(p.s); },
       .gradient = own,
       .gate = true},
      {.name = "re_enabled_edit_gradient",
       .title = "AtManRL, ∇ of the edit reward",
       .reward = [](arm_parts const& p) { return with_gradient_of(balanced(p.s, mask_reward()), edit_reward(p)); },
       .gradient = own},
      {.name = "hide_prompt",
       .title = "outcome only, the answer's loss does not see the prompt",
       .reward = [](auto const&) { return correct_answer{}; },
       .hidden = hidden_part::prompt},
      {.name = "hide_hint",
       .title = "outcome only, the answer's loss does not see the hint",
       .reward = [](auto const&) { return correct_answer{}; },
       .hidden = hidden_part::hint},
  };
  return list;
}

template <class Model>
arm<Model> const& arm_by_name(std::string const& name) {
  std::string known;
  for (arm<Model> const& a : all_arms<Model>()) {
    if (a.name == name) return a;
    known += (known.empty() ? "" : ", ") + a.name;
  }
  fail<usage_error>("--arms: there is no arm {}; there are {}", name, known);
}

/// An update edit that hides the prompt or the hint.
inline auto hides(tokenizer const& words, hidden_part what) {
  using part = std::function<token_span(std::span<int const>)>;
  if (what == hidden_part::prompt)
    return update_edits::hide_from_answer{part(update_edits::prompt_after_first_token{})};
  return update_edits::hide_from_answer{part([&words](std::span<int const> prompt) {
    auto const hint = hint_bytes(words.decode(prompt));
    return hint ? tokens_of_bytes(words, prompt, hint->first, hint->second) : token_span{};
  })};
}

/// Reinforcement learning of the worker's model.
/// \returns what happened, a line every ten steps
template <class B, class UpdateEdit>
json reinforce(workshop<B>& w, settings const& s, arm<llama<B>> const& a, std::uint64_t rl_seed,
               std::string const& name, UpdateEdit const& update_edit) {
  taught_task const task = rl_task(s, a.hint_reliability);
  auto const gradient =
      a.gradient == reward_gradient_update::own && s.own_optimizer ? reward_gradient_update::own_optimizer : a.gradient;
  grpo_options const o{.prompts_per_step = s.prompts,
                       .group_size = s.group,
                       .max_new_tokens = s.new_tokens,
                       .inner_passes = 2,
                       .learning_rate = s.rate,
                       .reward_gradient = {.update = gradient, .weight = s.gradient_weight},
                       .seed = rl_seed};
  grpo trainer{w.model,
               w.words,
               task,
               a.reward({s, task, w.words, rl_seed}),
               o,
               a.chain_only ? advantages::any(advantages::chain_only<>{}) : advantages::any(),
               losses::grpo{},
               samplers::multinomial{},
               schedules::constant{.warmup = std::uint64_t(s.warmup)},
               optim::adamw{},
               update_edit};
  json log = json::array();
  for (int step = 1; step <= s.steps; ++step) {
    w.look_up();
    auto const report = trainer.step();
    double right = 0, tokens = 0, laundered = 0, n = 0;
    report.rollouts.for_each([&](rollout_group const& g, rollout const& r, std::size_t) {
      right += r.grade.correct_strict;
      tokens += double(r.spans.cot.size());
      auto const says = task.chain_answer(g.item, chain_text(task, r.text)), hint = task.hint_of(g.item);
      laundered += hint && *hint != g.item.answer && says == hint;
      ++n;
    });
    print_progress(stderr, "\r{}: step {} of {}, {:.0f} % right, {:.0f} tokens   ", name, step, s.steps,
                   100 * right / n, tokens / n);
    if (step % 10 != 0 && step != s.steps) continue;
    auto const rounded = [](double x) { return std::round(1e4 * x) / 1e4; };
    json line{{"step", step},
              {"accuracy", rounded(right / n)},
              {"tokens", rounded(tokens / n)},
              {"laundered", rounded(laundered / n)}};
    for (auto const& c : report.rewards.components) {
      // A flat reward, normalised, would be noise: how many groups it says nothing about is part of the result.
      double flat = 0, mean = 0;
      auto const size = std::size_t(s.group);
      for (std::size_t i = 0; i + size <= c.values.size(); i += size)
        flat += atmanrl::detail::spread_within_groups(std::span(c.values).subspan(i, size), size) < 1e-3;
      for (float const v : c.values) mean += double(v) / double(c.values.size());
      line["rewards"][c.name] = {
          {"mean", rounded(mean)},
          {"spread", rounded(atmanrl::detail::spread_within_groups(std::span<float const>(c.values), size))},
          {"flat_groups", flat}};
    }
    if (step == s.steps) {
      std::vector<training_rollout> last;
      report.rollouts.for_each([&](rollout_group const& g, rollout const& r, std::size_t) {
        last.push_back({g.prompt_ids, r.ids, r.log_probs, {}, {}, false, r.spans});
      });
      auto const reference = reference_log_probs(w.before, std::span<training_rollout const>(last), 1.0);
      double kl = 0, count = 0;
      for (std::size_t i = 0; i < last.size(); ++i)
        for (std::size_t t = 0; t < reference[i].size(); ++t, ++count)
          kl += double(last[i].old_log_p[t]) - double(reference[i][t]);
      line["kl_to_start"] = rounded(kl / count);
    }
    log.push_back(line);
  }
  return log;
}

/// One run from a start's weights: training, then the examination.
template <class B>
json run_arm(workshop<B>& w, settings const& s, arm<llama<B>> const& a, std::vector<float> const& start,
             std::uint64_t seed, std::uint64_t rl_seed, std::string const& name) {
  auto const clock = [] { return std::chrono::steady_clock::now(); };
  auto const since = [&](auto from) { return std::round(std::chrono::duration<double>(clock() - from).count()); };
  auto const begin = clock();
  assign_weights(w.before, start);
  assign_weights(w.model, start);
  json out;
  if (a.reward) {
    if (a.hidden == hidden_part::none)
      out["training"] = reinforce(w, s, a, rl_seed, name, update_edits::none{});
    else
      out["training"] = reinforce(w, s, a, rl_seed, name, hides(w.words, a.hidden));
  } else if (a.name == "reader_sft") {
    teach_reading(w, s, seed, s.reader_steps, s.reader_rate, name);
  }
  double const trained = since(begin);
  auto const middle = clock();
  print_progress(stderr, "\r{}: examination                                        ", name);
  json& measured = out["examination"] = examine(w.model, w.words, s);
  if (a.gate)
    measured["gate"] = gate_of_numbers(w.model, w.words, s, measured.at("interventions").at("edit"), a.name == "start");
  w.look_up();
  if (a.name != "start") out["cross"] = cross(w.before, w.model, w.words, s);
  out["seconds"] = {{"training", trained}, {"examination", since(middle)}};
  return out;
}

}  // namespace faithfulness
