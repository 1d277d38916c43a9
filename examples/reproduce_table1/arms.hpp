#pragma once
// The arms of reproduce_table1, and what one run of an arm does on any backend.
#include <atmanrl/comm/any.hpp>
#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/grpo.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/rl/rewards/any.hpp>
#include <atmanrl/rl/rewards/length.hpp>
#include <atmanrl/rl/rewards/shuffled.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include "../backend_options.hpp"
#include "../printing.hpp"
#include "../saliency_items.hpp"
#include "../terminal/interrupt.hpp"
#include "tables.hpp"

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <functional>
#include <numeric>

namespace table1 {

using namespace atmanrl;

struct options : backend_options {
  std::string model = "examples/models/tiny", out = "runs/table1";
  int steps = 100, prompts = 8, group = 8, warmup = 10, questions = 1000, samples = 4, causal_questions = 200,
      printed_mask_steps = 20;
  double learning_rate = 2e-5, share = 0.5;
  std::vector<std::uint64_t> seeds{1, 2, 3, 4, 5};

  /// What a finished arm must have been made with to be taken over.
  json settings() const {
    return {{"model", model},
            {"steps", steps},
            {"prompts", prompts},
            {"group", group},
            {"warmup", warmup},
            {"lr", learning_rate},
            {"share", share},
            {"questions", questions},
            {"samples", samples},
            {"causal_questions", causal_questions},
            {"printed_mask_steps", printed_mask_steps}};
  }
};

template <class Model>
struct arm {
  std::string name, title;
  std::function<rewards::any<Model>(options const&, std::uint64_t seed)> reward;
};

/// Outcome plus a second reward, weighted so that its spread within groups is `share` of the outcome's at the first
/// step in which both vary: the arms then push equally hard.
template <class Second>
auto balanced(options const& o, Second second) {
  return rewards::balanced_sum<rewards::correct_answer, Second>(rewards::correct_answer{}, std::move(second), 1,
                                                                o.share);
}

/// The recommended mask at the scale that `auto` finds on hundreds of completions (docs/ablation.md). On the 64 of a
/// first step it may find the next one, and the arms are to differ in nothing but their reward.
inline mask_options arm_mask() {
  mask_options o = mask_options::recommended();
  o.scale = 25;
  return o;
}

template <class Model>
std::vector<arm<Model>> arms() {
  using any_reward = rewards::any<Model>;
  using mask = rewards::saliency<>;
  return {
      {"outcome_only", "outcome only", [](auto const&, auto) { return any_reward(rewards::correct_answer{}); }},
      {"re_enabled", "AtManRL, re-enabled", [](auto const& o, auto) { return balanced(o, mask{arm_mask()}); }},
      {"as_printed", "AtManRL, sign as printed",
       [](auto const& o, auto) {
         return balanced(o, mask{arm_mask(), saliency_direction::as_printed});
       }},
      {"length", "length penalty", [](auto const& o, auto) { return balanced(o, rewards::length{}); }},
      {"shuffled", "AtManRL, shuffled in groups",
       [](auto const& o, auto seed) { return balanced(o, rewards::shuffled<mask>(mask{arm_mask()}, seed)); }},
      {"leave_one_out", "leave-one-out as saliency",
       [](auto const& o, auto) { return balanced(o, rewards::saliency<estimators::leave_one_out>{}); }},
      {"printed_settings", "the paper's mask and λ = 1",
       [](auto const& o, auto) {
         return any_reward(rewards::balanced_sum<rewards::correct_answer, mask>(
             rewards::correct_answer{}, mask{mask_options{}.in_steps(o.printed_mask_steps)}, 1));
       }},
  };
}

template <class Model>
causal_figures measure_causally(Model& model, tokenizer const& words, arithmetic const& task, options const& o,
                                std::uint64_t seed) {
  causal_figures f;
  auto step = sample_evaluation(model, words, task, 0, o.causal_questions, 1, 192, 1.0, seed);
  auto const masked = saliency_items_of(step, model.config().max_positions, mask_label::only_correct);
  if (masked.items.empty()) return f;
  std::span<saliency_item const> const items(masked.items);
  f.items = double(items.size());
  estimators::learned_mask mask;
  auto const estimate = estimate_saliency(mask, model, items);
  std::vector<saliency_method> methods{{"learned mask", {}},
                                       run_method("leave-one-out", estimators::leave_one_out{}, model, items)};
  for (saliency_result const& r : estimate.items) {
    methods.front().saliency.push_back(r.token_saliency);
    f.re_enabled += r.re_enabled / f.items;
    f.as_printed += r.as_printed / f.items;
  }
  auto const report = validate_saliency(model, items, std::span<saliency_method const>(methods), {},
                                        {.seed = seed, .insertion = false, .rationale = false, .references = false});
  f.mask_deletion = report.methods[0].deletion_auc;
  f.leave_one_out_deletion = report.methods[1].deletion_auc;
  f.random_deletion = report.deletion_auc_random();
  f.p_without = report.p_without;
  std::vector<std::vector<index_t>> ends;
  for (saliency_item const& i : items) ends.push_back(sentence_ends(words, i.cot));
  for (truncated_chain const& c : truncate_chains(model, items, std::span<std::vector<index_t> const>(ends)))
    f.early_answering += c.early_answering / f.items;
  return f;
}

/// Trains one arm from the bundled weights and measures it. A finished arm is read back from its file instead.
/// \returns nothing when it was interrupted
template <class Model, class B>
std::optional<arm_result> run_arm(B& backend, options const& o, arm<Model> const* a, std::uint64_t seed,
                                  terminal::interrupt_listener const& interrupted) {
  std::string const name = fmt::format("{}-seed{}", a ? a->name : "start", seed);
  auto const file = std::filesystem::path(o.out) / (name + ".json");
  if (is_there(file)) {
    json const j = read_json_file(file);
    // Rounded as those in the file.
    expects<usage_error>(j.value("settings", json()) == parse_json(dump_json(o.settings()), "the settings"),
                         "{} was made with other settings ({}); use another --out or the same settings", file.string(),
                         j.value("settings", json()).dump());
    arm_result r{evaluation_from_json(j.at("evaluation"), file.string()), {}};
    for (auto const& [key, member] : causal_figures::members) r.causal.*member = j.at("causal").at(key);
    print_progress(stderr, "{}: taken from {}\n", name, file.string());
    return r;
  }
  std::clock_t const began = std::clock();
  auto model = Model::load(backend, o.model);
  tokenizer const words = tokenizer::load(o.model);
  arithmetic const task;
  json training = json::array();
  if (a) {
    grpo_options const g{.prompts_per_step = o.prompts,
                         .group_size = o.group,
                         .max_new_tokens = 160,
                         .inner_passes = 2,
                         .learning_rate = o.learning_rate,
                         .seed = seed};
    grpo trainer{model,
                 words,
                 task,
                 a->reward(o, seed),
                 g,
                 advantages::mean_centered{},
                 losses::grpo{},
                 samplers::multinomial{},
                 schedules::constant{.warmup = std::uint64_t(o.warmup)}};
    for (int s = 0; s < o.steps; ++s) {
      if (interrupted.caught()) return std::nullopt;
      auto const report = trainer.step();
      double right = 0, tokens = 0, n = 0;
      report.rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t) {
        right += r.grade.correct_strict;
        tokens += double(r.spans.cot.size());
        ++n;
      });
      json line{{"step", s + 1}, {"accuracy", right / n}, {"cot_tokens", tokens / n}};
      for (auto const& c : report.rewards.components)
        line[c.name] = std::accumulate(c.values.begin(), c.values.end(), 0.0) / n;
      training.push_back(line);
      print_progress(stderr, "\r{}: step {} of {}, {:.0f} % right, {:.0f} tokens   ", name, s + 1, o.steps,
                     100 * right / n, tokens / n);
    }
  }
  print_progress(stderr, "\r{}: measuring                                  ", name);
  arm_result r;
  evaluation_options e{
      .questions = o.questions, .samples = o.samples, .max_new_tokens = 192, .seed = seed, .on_progress = {}};
  e.should_stop = [&] { return interrupted.caught() != 0; };
  r.eval = evaluate(model, words, task, e);
  if (!r.eval.complete) return std::nullopt;
  r.causal = measure_causally(model, words, task, o, seed);
  json out{{"arm", name}, {"settings", o.settings()}, {"evaluation", to_json(r.eval)}};
  for (auto const& [key, member] : causal_figures::members) out["causal"][key] = r.causal.*member;
  out["training"] = training;
  out["processor_seconds"] = double(std::clock() - began) / CLOCKS_PER_SEC;
  write_file_atomically(file, dump_json(out) + "\n");
  print_progress(stderr, "\r{}: {:.1f} tokens, {:.1f} % right                        \n", name, r.eval.cot_tokens.value,
                 100 * r.eval.strict.value);
  return r;
}

template <class B>
int run(options const& o) {
  using model_type = llama<B>;
  expects<usage_error>(!o.seeds.empty() && o.steps > 0 && o.questions > 0 && o.samples > 0,
                       "there must be a seed, a step, a question and a sample");
  check_output_folder("--out", o.out, folder_use::filled);
  std::filesystem::create_directories(o.out);
  auto backend = make_backend<B>(o, false);
  print_build_note<B>();
  terminal::interrupt_listener const interrupted;
  std::vector<arm_runs> all;
  auto const add = [&](std::string title, arm<model_type> const* a) {
    arm_runs& entry = all.emplace_back(arm_runs{std::move(title), {}});
    for (std::uint64_t const seed : o.seeds) {
      auto r = run_arm(backend, o, a, seed, interrupted);
      if (!r) return false;
      entry.by_seed.push_back(std::move(*r));
    }
    return true;
  };
  auto const list = arms<model_type>();
  bool complete = add("before training", nullptr);
  for (auto const& a : list) complete = complete && add(a.title, &a);
  if (!complete) {
    print_progress(stderr, "\ninterrupted; finished arms are in {}, the same command goes on from there\n", o.out);
    return 130;
  }
  std::string const text = tables(all);
  bool const printed = print_results(text);
  write_file_atomically(std::filesystem::path(o.out) / "table1.md", text);
  expect_printed(printed);
  return 0;
}

/// The work of with_backend.hpp.
struct program {
  using options = table1::options;
  template <class B>
  static int run(options const& o, comm::any_on<B>) {
    return table1::run<B>(o);
  }
};

}  // namespace table1
