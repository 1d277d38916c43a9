#pragma once
// What ablation does with a model, on any backend.
#include <atmanrl/comm/any.hpp>
#include <atmanrl/grpo.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include "../backend_options.hpp"
#include "../printing.hpp"
#include "../saliency_items.hpp"

#include <cstdio>

namespace ablating {

using namespace atmanrl;

inline mask_options recommended_with(auto&& change) {
  mask_options o = mask_options::recommended();
  change(o);
  return o;
}

inline std::string describe(mask_options const& o) {
  return fmt::format("{} | {} | {} | {} | {} | {:g} | {}", o.shape == mask_shape::pair ? "pair" : "column",
                     o.rows == mask_rows::all_later ? "all_later" : "answer_rows", o.objective.name, o.sparsity,
                     o.scale > 0 ? fmt::format("{:g}", o.scale) : std::string("auto"), o.optimizer.eps, o.steps);
}

/// shape x rows x objective x sparsity in full; then scale, eps and steps around the recommended settings.
inline std::vector<mask_options> settings() {
  std::vector<mask_options> all;
  for (mask_rows const rows : {mask_rows::answer_rows, mask_rows::all_later})
    for (mask_shape const shape : {mask_shape::column, mask_shape::pair})
      for (char const* const objective : {"cross_entropy", "kl_to_unmasked"})
        for (double const sparsity : {0.1, 0.0})
          all.push_back(recommended_with([&](mask_options& o) {
            o.shape = shape;
            o.rows = rows;
            o.objective = objectives::by_name(objective);
            o.sparsity = sparsity;
          }));
  for (double const sparsity : {0.03, 0.3})
    all.push_back(recommended_with([&](mask_options& o) { o.sparsity = sparsity; }));
  for (double const scale : {10.0, 15.0, 25.0, 40.0, 60.0})
    all.push_back(recommended_with([&](mask_options& o) { o.scale = scale; }));
  for (double const sparsity : {0.1, 0.0})
    for (double const eps : {1e-4, 1e-3, 1e-2, 1e-1})
      all.push_back(recommended_with([&](mask_options& o) {
        o.optimizer.eps = eps;
        o.sparsity = sparsity;
      }));
  for (int const steps : {5, 10, 50, 200}) all.push_back(mask_options::recommended().in_steps(steps));
  mask_options paper_answer;
  paper_answer.rows = mask_rows::answer_rows;
  all.push_back(paper_answer);
  return all;
}

struct options : backend_options {
  std::string model = "examples/models/tiny", out, table = "both";
  int prompts = 116, samples = 4, setting_prompts = 24, points = 20;
  mask_options printed;  ///< the settings that the paper prints
  std::vector<mask_options> settings = ablating::settings();
  long first = 30000;
  std::uint64_t seed = 1;
};

/// Rewards of a step's rollouts, per group spread and the spread of a difference.
inline double spread(std::vector<float> const& values, std::vector<int> const& group) {
  // Mean over groups of the population standard deviation within the group, groups of one left out.
  double sum = 0;
  int groups = 0;
  for (std::size_t i = 0; i < values.size();) {
    std::size_t j = i;
    double mean = 0, square = 0;
    while (j < values.size() && group[j] == group[i]) mean += double(values[j++]);
    mean /= double(j - i);
    for (std::size_t k = i; k < j; ++k) square += (double(values[k]) - mean) * (double(values[k]) - mean);
    if (j - i > 1) {
      sum += std::sqrt(square / double(j - i));
      ++groups;
    }
    i = j;
  }
  return groups ? sum / groups : 0;
}

inline std::vector<float> rewards_of(saliency_estimate const& e) {
  std::vector<float> out;
  for (saliency_result const& r : e.items) out.push_back(float(r.re_enabled));
  return out;
}

inline std::string number(std::optional<double> x) { return x ? fmt::format("{:.3f}", *x) : "–"; }

template <class B>
void run(options const& o) {
  if (!o.out.empty()) check_output_file("--out", o.out);
  auto backend = make_backend<B>(o, false);
  print_build_note<B>();
  auto model = llama<B>::load(backend, o.model);
  tokenizer const words = tokenizer::load(o.model);
  arithmetic const task;
  std::string text;
  auto const say = [&](std::string const& line) {
    print_progress(stdout, "{}\n", line);
    text += line + "\n";
  };
  int const prompts = evaluation_items_from(task, o.first, o.prompts, "--first");
  auto step = sample_evaluation(model, words, task, o.first, prompts, o.samples, 192, 1.0, o.seed);
  auto const masked = saliency_items_of(step, model.config().max_positions, mask_label::only_correct);
  expects<usage_error>(!masked.items.empty(), "none of the {} completions is correct", step.size());
  std::vector<saliency_item> const& items = masked.items;
  auto const labels = planted_labels(words, items);
  double tokens = 0;
  for (saliency_item const& i : items) tokens += double(i.cot.size()) / double(items.size());

  if (o.table != "settings") {
    std::vector<saliency_method> methods;
    std::span<saliency_item const> const all(items);
    estimators::learned_mask recommended;
    methods.push_back(run_method("learned mask, recommended", recommended, model, all));
    mask_options settled = mask_options::recommended();
    settled.scale = choose_scale(model, all, settled);
    methods.push_back(run_method("learned mask, as printed", estimators::learned_mask(o.printed), model, all));
    methods.push_back(run_method("leave-one-out", estimators::leave_one_out{}, model, all));
    methods.push_back(run_method("gradient at c, κ 40", estimators::gradient{}, model, all));
    methods.push_back(run_method("gradient at 0", estimators::gradient{.at = 0}, model, all));
    methods.push_back(run_method("AtMan suppression", estimators::atman_suppression{}, model, all));
    methods.push_back(run_method("gradient x input", estimators::gradient_x_input{}, model, all));
    methods.push_back(run_method("attention rollout", estimators::attention_rollout{}, model, all));
    auto const report = validate_saliency(model, all, std::span<saliency_method const>(methods),
                                          std::span<token_labels const>(labels), {.curve_points = o.points});
    say(
        fmt::format("{} correct completions of {} ({} prompts), {:.1f} tokens each; κ auto = {:g}; p(answer) {:.3f} "
                    "with the chain, {:.3f} "
                    "without it\n",
                    items.size(), step.size(), prompts, tokens, settled.scale, report.p_whole, report.p_without));
    say(markdown(report));
  }

  if (o.table != "methods") {
    // Groups as a trainer sees them: right and wrong rollouts, labelled by the truth.
    step.groups.resize(std::size_t(std::min(o.setting_prompts, prompts)));
    auto const group_items = saliency_items_of(step, model.config().max_positions);
    std::vector<saliency_item> known;
    std::vector<std::size_t> known_at;
    std::vector<int> group;
    for (std::size_t i = 0; i < group_items.items.size(); ++i) {
      group.push_back(group_items.owners[i]->prompt);
      if (!group_items.owners[i]->grade.correct_strict) continue;
      known.push_back(group_items.items[i]);
      known_at.push_back(i);
    }
    auto const known_labels = planted_labels(words, std::span<saliency_item const>(known));
    auto const reference = run_method("", estimators::leave_one_out{}, model, std::span<saliency_item const>(known));
    say(
        fmt::format("{} completions in {} groups, {} of them correct. Spread: of the reward within groups; noise: the "
                    "same of its change "
                    "when half the steps are "
                    "taken at twice the learning rate.\n",
                    group.size(), step.groups.size(), known.size()));
    say("| shape | rows | objective | sparsity | κ | eps | steps | AUROC narrow | digits only | deletion AUC | ρ "
        "leave-one-out | spread | "
        "noise | seconds |");
    say("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (mask_options const& wanted : o.settings) {
      estimators::learned_mask mask(wanted);
      auto const estimate = estimate_saliency(mask, model, std::span<saliency_item const>(group_items.items));
      estimators::learned_mask half(mask.options().in_steps(std::max(1, wanted.steps / 2)));
      auto const again = estimate_saliency(half, model, std::span<saliency_item const>(group_items.items));
      auto const r = rewards_of(estimate), other = rewards_of(again);
      std::vector<float> change;
      for (std::size_t i = 0; i < r.size(); ++i) change.push_back(r[i] - other[i]);
      saliency_method m{"", {}, estimate.seconds, estimate.rows};
      for (std::size_t const i : known_at) m.saliency.push_back(estimate.items[i].token_saliency);
      auto const report = validate_saliency(
          model, std::span<saliency_item const>(known), std::span(&std::as_const(m), 1),
          std::span<token_labels const>(known_labels),
          {.curve_points = o.points, .random_orders = 1, .insertion = false, .rationale = false, .references = false});
      auto const& row = report.methods.front();
      mask_options shown = mask.options();
      say(fmt::format("| {} | {} | {} | {:.3f} | {} | {:.4f} | {:.4f} | {:.1f} |", describe(shown),
                      number(row.auroc_narrow), number(row.auroc_digits), row.deletion_auc,
                      number(agreement(m.saliency, reference.saliency).spearman), spread(r, group),
                      spread(change, group), estimate.seconds));
    }
  }
  if (!o.out.empty()) write_file_atomically(o.out, text);
}

/// The work of with_backend.hpp.
struct program {
  using options = ablating::options;
  template <class B>
  static int run(options const& o, comm::any_on<B>) {
    ablating::run<B>(o);
    return 0;
  }
};

}  // namespace ablating
