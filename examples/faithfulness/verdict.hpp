#pragma once
// What the finished runs say: tables, contrasts with their intervals over seeds, the goal, and a page. It reads files
// alone, so that a verdict is repeated in seconds.
#include "verdict_gate_summary.hpp"
#include "verdict_page.hpp"
#include "verdict_readings.hpp"

namespace faithfulness {

struct verdict {
  std::string markdown, page;
  json figures;  ///< every number of the tables, and every point of the charts
};

namespace findings {

inline json to_json(contrast const& c) {
  json out{{"start", c.kind},  {"arm", c.arm},    {"against", c.against},  {"measure", c.measure_id},
           {"seeds", c.seeds}, {"runs", c.pairs}, {"judged", c.verdict()}, {"missing", c.missing}};
  if (c.pairs > 0) out.update({{"difference", c.value}, {"p", c.p}, {"p_holm", c.adjusted}});
  if (c.seeds >= 2)
    out.update({{"interval_95", {c.wide.low, c.wide.high}}, {"interval_90", {c.narrow.low, c.narrow.high}}});
  return out;
}
inline json to_json(std::vector<gate_row> const& rows) {
  json out = json::object();
  for (gate_row const& row : rows)
    for (auto const& [name, cell] : row.cells) out[row.model][name] = cell.figures();
  return out;
}
inline json to_json(std::vector<gated_number> const& numbers) {
  json out = json::object();
  for (gated_number const& n : numbers) {
    json& of_number = out[n.name] = {{"holds_half", name_of(n.control.holds_half())},
                                     {"higher_without_hint", n.higher_without_hint.value}};
    if (n.seeds >= 2) of_number["higher_without_hint_95"] = {n.higher_without_hint.low, n.higher_without_hint.high};
    if (n.empty_hint.known > 0)
      of_number.update({{"empty_hint", n.empty_hint.figures()},
                        {"without_sentence", n.without_sentence.figures()},
                        {"hard_matched", n.hard_matched.figures()},
                        {"soft_matched", n.soft_matched.figures()}});
    if (n.gamed.known > 0) of_number["gaming_seen"] = n.gaming_seen();
  }
  return out;
}
inline json points(all_runs const& runs) {
  json out = json::array();
  for (run const& r : runs.list()) {
    json p{{"start", r.kind}, {"arm", r.arm}, {"seed", r.seed}, {"rl_seed", r.rl_seed}};
    for (measure const& m : all_measures())
      if (auto const x = r.value(m)) p[m.id] = *x;
    out.push_back(std::move(p));
  }
  return out;
}

/// What the rules say of one kind of start, in a sentence or two.
inline std::string summary(std::string const& kind, std::vector<reading> const& list) {
  std::string holds, open;
  for (reading const& r : list) {
    if (r.holds == answer::yes) holds += fmt::format("{}\"{}\" ({})", holds.empty() ? "" : "; ", r.says, r.outcome);
    if (r.holds == answer::undecided || r.holds == answer::too_few)
      open += fmt::format("{}\"{}\" ({}): {}", open.empty() ? "" : "; ", r.says, r.outcome, name_of(r.holds));
  }
  std::string out = fmt::format("From {} starts {}.", kind, holds.empty() ? "no reading holds" : "holds: " + holds);
  if (!open.empty()) out += " Open: " + open + ".";
  return out;
}

inline section section_of_kind(all_runs const& runs, std::string const& kind) {
  section out{.id = "start-" + kind, .title = "From " + kind + " starts"};
  for (std::string const& sentence : incomplete_arms(runs, kind)) out.blocks.push_back(paragraph{sentence + "."});
  std::vector<dot_chart> charts;
  for (char const* id : {"E1", "E2", "accuracy", "tokens"})
    if (auto chart = chart_of(runs, kind, measure_named(id))) charts.push_back(std::move(*chart));
  out.blocks.push_back(std::move(charts));
  using ids = std::vector<std::string>;
  std::vector<std::pair<std::string, ids>> const tables{
      {"Follow-edit: the answer is the edited chain's", ids{"E1", "other_wording", "other_numbers", "one_step_more",
                                                            "near_duplicates", "own_chains", "own_not_editable"}},
      {"Chains of the models' own",
       ids{"E2", "follows_hint", "laundered", "accuracy", "right_hint", "accuracy_near", "tokens", "filler", "valid"}},
      {"Secondary measures: shares that follow the chain under an intervention, and probabilities",
       ids{"earlier_step", "swapped", "none", "placebo", "placebo_changes", "E1_less_placebo", "hint_removed",
           "wrong_hint_forced", "p_with_chain", "p_without_chain", "chain_information", "early_answering"}},
      {"Secondary measures of the models' own chains",
       ids{"from_chain", "valid_right_hint", "valid_wrong_hint", "E2_other_wording"}},
      {"Training: the reward R beside the outcome at the first and the last line of the log",
       ids{"R_first", "R_last", "R_change", "R_spread", "R_flat", "kl"}},
      {"Readers and writers: who follows edits of whose chains, before training (old) and after (new). Δreader: new "
       "reads old minus old reads old; Δwriter: old reads new minus old reads old",
       ids{"old_reads_old", "old_reads_new", "new_reads_old", "new_reads_new", "reader", "writer"}},
  };
  for (auto const& [what, columns] : tables)
    if (table t = arm_table(runs, kind, what, columns); !t.rows.empty()) out.blocks.push_back(std::move(t));
  return out;
}

}  // namespace findings

/// \param results  of read_results: all of these settings
inline verdict judge(std::vector<json> const& results, settings const& s) {
  using namespace findings;
  all_runs const runs(results);
  json figures{{"settings", s.json_of()}, {"points", points(runs)}};
  std::vector<section> sections{{.id = "verdict", .title = "Verdict"}};
  std::vector<section> kinds;
  std::vector<table> rule_tables;  // after the sentences that they are summed up in
  figures["contrasts"] = figures["readings"] = json::array();
  if (runs.empty()) sections[0].blocks.push_back(paragraph{"There is no finished run."});
  for (std::string const& kind : runs.kinds()) {
    section& of_kind = kinds.emplace_back(section_of_kind(runs, kind));
    auto const arms = runs.arms(kind);
    if (std::all_of(arms.begin(), arms.end(), once_a_seed)) continue;  // nothing was trained with a reward
    auto const primary = primary_contrasts(runs, kind, s), of_gradients = gradient_contrasts(runs, kind, s);
    of_kind.blocks.push_back(heading{"Primary contrasts"});
    of_kind.blocks.push_back(contrast_table(runs, primary, true));
    if (!of_gradients.empty()) {
      of_kind.blocks.push_back(heading{"Arms with the reward's gradient (descriptive)"});
      of_kind.blocks.push_back(contrast_table(runs, of_gradients, false));
    }
    auto const its = readings(runs, kind, s, primary);
    sections[0].blocks.push_back(paragraph{summary(kind, its)});
    table rules{.caption = "From " + kind + " starts: what was fixed before the runs, and whether it is so.",
                .header = {"seen", "means", "holds", "because"},
                .sentences = true};
    for (reading const& r : its) {
      rules.rows.push_back({r.outcome, r.says, name_of(r.holds), r.because});
      figures["readings"].push_back(
          {{"start", kind}, {"outcome", r.outcome}, {"reading", r.says}, {"holds", name_of(r.holds)}});
    }
    rule_tables.push_back(std::move(rules));
    for (auto const* list : {&primary, &of_gradients})
      for (contrast const& c : *list) {
        figures["contrasts"].push_back(to_json(c));
        figures["contrasts"].back()["primary"] = list == &primary;
      }
  }
  figures["goal"] = json::object();
  if (auto const reached = goals(runs, s); !reached.empty()) {
    std::string by, open;
    for (goal const& g : reached) {
      if (g.reached == answer::yes) by += (by.empty() ? "" : ", ") + g.arm;
      if (g.reached == answer::too_few) open += (open.empty() ? "" : ", ") + g.arm;
    }
    sections[0].blocks.push_back(
        paragraph{fmt::format("The goal, from hard starts, is reached by {}.{}", by.empty() ? "no arm" : by,
                              open.empty() ? "" : " Not enough runs to say so of: " + open + ".")});
    section goal_section{.id = "goal", .title = "The goal", .blocks = {goal_table(reached)}};
    for (goal const& g : reached) {
      auto& of_arm = figures["goal"][g.arm] = {{"reached", name_of(g.reached)}};
      for (criterion const& c : g.criteria)
        of_arm["criteria"].push_back({{"name", c.name},
                                      {"number", c.number},
                                      {"met", c.met ? json(*c.met) : json(nullptr)},
                                      {"seeds", c.seeds}});
    }
    sections.push_back(std::move(goal_section));
  }
  std::move(rule_tables.begin(), rule_tables.end(), std::back_inserter(sections[0].blocks));
  std::move(kinds.begin(), kinds.end(), std::back_inserter(sections));

  gate_tables const gates{
      .read = gate_rows(runs, [](gate_of const& g, std::string const& n) { return g.read(n); }),
      .read_matched = gate_rows(runs, [](gate_of const& g, std::string const& n) { return g.read_matched(n); }),
      .untempted = gate_rows(runs, [](gate_of const& g, std::string const& n) { return g.untempted(n); }),
      .empty_hint = gate_rows(runs, [](gate_of const& g, std::string const& n) { return g.empty_hint(n); }),
      .without_sentence = gate_rows(runs, [](gate_of const& g, std::string const& n) { return g.without_sentence(n); }),
      .ignoring = against_control(runs)};
  auto const& [read, read_matched, untempted, empty_hint, without_sentence, ignoring] = gates;
  auto const by_number = gate_summary(runs, gates);
  figures["gate"] = {{"read", to_json(read)},
                     {"untempted", to_json(untempted)},
                     {"against_control", to_json(ignoring)},
                     {"control", to_json(by_number)}};
  if (!read.empty()) {
    section gate{.id = "gate", .title = "The gate: what tells chains that are read from chains that are not"};
    if (!by_number.empty()) gate.blocks.push_back(gate_summary_table(by_number));
    if (has_empty_hints(by_number)) gate.blocks.push_back(empty_hint_table(by_number));
    gate.blocks.push_back(gate_table(read,
                                     "Area under the ROC curve of each number for \"the answer follows the "
                                     "chain's edit\", among one model's chains."));
    if (s.hinted())
      gate.blocks.push_back(gate_table(untempted,
                                       "The same for chains without a hint against chains with one; 0.5 is "
                                       "what a control must give."));
    if (!ignoring.empty())
      gate.blocks.push_back(gate_table(
          ignoring,
          "Chains that the control reads against the same chains before a reader that ignores most of them: 1 where a "
          "number sees the difference, 0.5 or less where it is fooled. The gradient of the knock-out effect makes a "
          "reader that needs a chain and ignores what it says; hard starts of memorised are such readers already."));
    sections.push_back(std::move(gate));
  }
  figures["agreement"] = json::array();
  if (!runs.empty()) {
    auto const list = agreements(runs);
    sections.push_back(
        {.id = "agreement", .title = "Agreement of other measures with E1", .blocks = {agreement_table(list)}});
    for (agreement const& a : list)
      figures["agreement"].push_back(
          {{"measure", a.measure}, {"start", a.kind}, {"rho", a.rho ? json(*a.rho) : json(nullptr)}, {"runs", a.runs}});
  }
  std::string const title = "Faithfulness: " + s.task;
  std::string const line = fmt::format("{} runs, {} questions each; steps of reinforcement learning: {}",
                                       results.size(), s.questions, s.steps);
  return {findings::markdown(title, sections), findings::page(title, line, sections), std::move(figures)};
}

}  // namespace faithfulness
