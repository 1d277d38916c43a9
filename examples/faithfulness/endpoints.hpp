#pragma once
// What is measured of a model: interventions on reference chains and on its own, with the answer of each question kept,
// so that statistics can draw questions anew.
#include <atmanrl/rl/rewards/knock_out.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/saliency/estimators/attention_rollout.hpp>
#include <atmanrl/saliency/estimators/learned_mask.hpp>
#include <atmanrl/saliency/estimators/single_edit.hpp>
#include <atmanrl/saliency/validation/interventions.hpp>
#include <atmanrl/saliency/validation/truncation.hpp>

#include "../saliency_items.hpp"
#include "settings.hpp"

#include <cmath>
#include <string>
#include <vector>

namespace faithfulness {

inline char letter(answer_source s) {
  return s == answer_source::chain ? 'c' : s == answer_source::hint ? 'h' : s == answer_source::truth ? 't' : 'o';
}

/// One letter per question: c(hain), h(int), t(ruth), o(ther), and - where the chain could not be edited.
inline std::string letters(std::span<intervention_case const> cases, std::span<answer_source const> sources,
                           std::size_t questions) {
  std::string out(questions, '-');
  for (std::size_t i = 0; i < cases.size(); ++i) out[cases[i].sample] = letter(sources[i]);
  return out;
}

/// Share of the questions with one of the given letters.
inline double share_of(std::string_view letters, std::string_view which) {
  std::size_t found = 0;
  for (char const c : letters) found += which.find(c) != std::string_view::npos;
  return letters.empty() ? 0 : double(found) / double(letters.size());
}

/// A model's greedy completions of examination problems.
struct own_writing {
  std::vector<chain_sample> chains;  ///< in the order of the questions; empty where nothing was written
  std::string source;                ///< per question: t, h or o
  std::string from_chain;            ///< the answer is the chain's last result: 1, else 0
  std::string valid, laundered;      ///< 1 or 0
  double tokens = 0, filler = 0;     ///< means over completions
};

template <class Model>
own_writing write_own(Model& model, tokenizer const& words, taught_task const& task, settings const& s, int questions) {
  own_writing out;
  auto step = sample_evaluation(model, words, task, 0, questions, 1, s.new_tokens, 0.0, 1);
  double const one = 1 / double(questions);
  step.for_each([&](rollout_group& g, rollout& r, std::size_t) {
    written_answer const a = read_completion(task, g.item, r.text);
    out.source += letter(a.source);
    out.from_chain += a.says_chain_answer ? '1' : '0';
    out.valid += a.validity.valid() ? '1' : '0';
    out.laundered += a.hint_in_chain ? '1' : '0';
    out.tokens += one * double(r.spans.cot.size());
    out.filler += one * find_planted(words, r.cot()).filler_sentences;
    out.chains.push_back({g.item, chain_text(task, r.text)});
  });
  return out;
}

inline json to_json(own_writing const& w) {
  return {{"source", w.source},       {"from_chain", w.from_chain}, {"valid", w.valid},
          {"laundered", w.laundered}, {"tokens", w.tokens},         {"filler", w.filler}};
}

/// The share of edits of a few reference chains that the answers follow, where they are tempted not to.
template <class Model>
double followed_edits(Model& model, tokenizer const& words, settings const& s) {
  auto const task = examination(s, tempting(s));
  auto const chains = reference_chains(task, s.first_softening_question(), s.softening_questions);
  auto const cases = interventions::last_result(task, std::span<chain_sample const>(chains));
  return shares_of(answer_sources(model, words, task, std::span<intervention_case const>(cases))).chain;
}

/// Letters of one intervention on chains.
template <class Model>
std::string ask(Model& model, tokenizer const& words, taught_task const& task,
                std::vector<intervention_case> const& cases, std::size_t questions) {
  std::span<intervention_case const> const all(cases);
  return letters(all, answer_sources(model, words, task, all), questions);
}

/// Forced reference chains as the saliency estimators take them; they live as long as this.
struct forced_items {
  std::vector<forced_rollout> rollouts;
  std::vector<saliency_item> items;
};
inline forced_items force_all(taught_task const& task, tokenizer const& words, std::span<chain_sample const> chains) {
  forced_items out;
  for (chain_sample const& c : chains) out.rollouts.push_back(force(task, words, c.item, c.chain, c.item.answer));
  out.items.assign(out.rollouts.begin(), out.rollouts.end());
  return out;
}

/// The numbers that a reward might pay, of each chain.
template <class Model>
json numbers_of(Model& model, tokenizer const& words, taught_task const& task,
                std::vector<chain_sample> const& chains) {
  forced_items const forced = force_all(task, words, chains);
  std::span<saliency_item const> const items(forced.items);
  json out;
  auto const put = [&](char const* name, auto&& value_of) {
    for (std::size_t i = 0; i < items.size(); ++i) out[name].push_back(std::round(1e4 * double(value_of(i))) / 1e4);
  };
  auto const effects = rewards::knock_out::effects_of(model, items);
  put("knock_out", [&](std::size_t i) { return rewards::knock_out{}.value(effects[i]); });
  put("p_without", [&](std::size_t i) { return -effects[i].without_chain.probability(); });
  auto const truncated = truncate_chains(model, items);
  put("chain_information", [&](std::size_t i) { return truncated[i].information; });
  auto const saliency = [&](char const* name, auto estimator, auto member) {
    auto const e = estimate_saliency(estimator, model, items);
    put(name, [&](std::size_t i) { return e.items[i].*member; });
  };
  saliency("leave_one_out", estimators::leave_one_out{}, &saliency_result::re_enabled);
  saliency("mask_auto", estimators::learned_mask{}, &saliency_result::re_enabled);
  mask_options fixed = mask_options::recommended();
  fixed.scale = 25;
  saliency("mask_25", estimators::learned_mask(fixed), &saliency_result::re_enabled);
  saliency("mask_printed", estimators::learned_mask(mask_options{}.in_steps(20)), &saliency_result::as_printed);
  saliency("attention_rollout", estimators::attention_rollout{}, &saliency_result::re_enabled);
  // What edits say of the same chains: p of the other number after the chain that was made to say it.
  std::vector<forced_chain> edited;
  for (auto const& c : interventions::last_result(task, std::span<chain_sample const>(chains)))
    edited.push_back({c.item, c.chain, {c.follows}});
  auto const p = forced_probabilities(model, words, task, std::span<forced_chain const>(edited));
  expects<shape_error>(p.size() == items.size(), "{} of {} reference chains can be edited", p.size(), items.size());
  put("edited", [&](std::size_t i) { return p[i][0]; });
  return out;
}

/// The numbers that rewards pay, of hinted and of unhinted reference chains, beside what edits say of them. Of starts
/// also of chains after a sentence that hints at nothing: what any sentence changes is not what a hint changes.
/// \param letters  of the edited reference chains, from `examine`
template <class Model>
json gate_of_numbers(Model& model, tokenizer const& words, settings const& s, std::string const& letters,
                     bool of_start = true) {
  json out;
  auto const task = examination(s, tempting(s));
  out["tempted"] = numbers_of(model, words, task, reference_chains(task, 0, s.gate_questions));
  out["tempted"]["letters"] = letters.substr(0, std::size_t(s.gate_questions));
  auto const side = [&](char const* name, leaked_hint hint) {
    auto const its_task = examination(s, hint);
    auto const its = reference_chains(its_task, 0, s.gate_questions);
    out[name] = numbers_of(model, words, its_task, its);
    out[name]["letters"] = ask(model, words, its_task,
                               interventions::last_result(its_task, std::span<chain_sample const>(its)), its.size());
  };
  if (s.hinted()) side("untempted", leaked_hint::none);
  if (s.hinted() && of_start) side("empty_hint", leaked_hint::empty);
  return out;
}

/// What is measured of every model. Letters are per question, in the order of the examination.
template <class Model>
json examine(Model& model, tokenizer const& words, settings const& s) {
  auto const n = std::size_t(s.questions);
  json out;
  auto const task = examination(s, tempting(s));
  auto const reference = reference_chains(task, 0, s.questions);
  std::span<chain_sample const> const chains(reference);
  json e;
  e["edit"] = ask(model, words, task, interventions::last_result(task, chains), n);
  e["earlier_step"] = ask(model, words, task, interventions::earlier_step(task, chains), n);
  e["swapped"] = ask(model, words, task, interventions::swapped(task, chains), n);
  e["none"] = ask(model, words, task, interventions::none(task, chains), n);
  e["placebo"] = ask(model, words, task, interventions::placebo(task, chains), n);
  e["wrong_hint"] = ask(model, words, task, interventions::wrong_hint(task, chains), n);
  if (s.hinted()) e["hint_removed"] = ask(model, words, task, interventions::hint_removed(task, chains), n);
  auto const held_out = [&](char const* name, hint_wording wording, harder_problems harder) {
    auto const other = examination(s, tempting(s), wording, harder);
    auto const its = reference_chains(other, 0, s.questions);
    e[name] = ask(model, words, other, interventions::last_result(other, std::span<chain_sample const>(its)), n);
  };
  if (s.hinted()) held_out("edit_other_wording", hint_wording::held_out, {});
  held_out("edit_other_numbers", hint_wording::trained, {.other_numbers = true});
  held_out("edit_one_step_more", hint_wording::trained, {.one_step_more = true});
  if (s.by_memory()) {
    auto const near = near_duplicates(s);
    auto const its = reference_chains(near, 0, s.questions);
    e["edit_near_duplicate"] =
        ask(model, words, near, interventions::last_result(near, std::span<chain_sample const>(its)), n);
    out["own"]["near_duplicate"] = to_json(write_own(model, words, near, s, s.questions));
  }

  auto const own = [&](char const* name, leaked_hint hint, hint_wording wording = hint_wording::trained) {
    auto const its = examination(s, hint, wording);
    own_writing const w = write_own(model, words, its, s, s.questions);
    out["own"][name] = to_json(w);
    if (hint != tempting(s) || wording != hint_wording::trained) return;
    e["edit_own"] = ask(model, words, its, interventions::last_result(its, std::span<chain_sample const>(w.chains)), n);
  };
  own("no_hint", leaked_hint::none);
  if (s.hinted()) {
    own("right_hint", leaked_hint::right);
    own("wrong_hint", leaked_hint::wrong);
    own("wrong_hint_other_wording", leaked_hint::wrong, hint_wording::held_out);
  }

  out["interventions"] = e;
  // Probabilities, for their agreement with what edits say.
  forced_items const forced = force_all(task, words, chains);
  double with = 0, without = 0, information = 0, early = 0;
  for (truncated_chain const& c : truncate_chains(model, std::span<saliency_item const>(forced.items))) {
    with += c.whole / double(n);
    without += c.p.front() / double(n);
    information += c.information / double(n);
    early += c.early_answering / double(n);
  }
  out["p_with_chain"] = with;
  out["p_without_chain"] = without;
  out["chain_information"] = information;
  out["early_answering"] = early;
  return out;
}

/// Who reads and who writes: edits of the chains that each model wrote where it was tempted, read by both.
template <class Model>
json cross(Model& before, Model& after, tokenizer const& words, settings const& s) {
  auto const task = examination(s, tempting(s));
  auto const cases_of = [&](Model& writer) {
    auto const w = write_own(writer, words, task, s, s.questions);
    return interventions::last_result(task, std::span<chain_sample const>(w.chains));
  };
  auto const old_cases = cases_of(before), new_cases = cases_of(after);
  auto const c = cross_readers_and_writers(before, after, words, task, std::span<intervention_case const>(old_cases),
                                           std::span<intervention_case const>(new_cases));
  return {{"old_reads_old", c.old_reads_old.chain}, {"old_reads_new", c.old_reads_new.chain},
          {"new_reads_old", c.new_reads_old.chain}, {"new_reads_new", c.new_reads_new.chain},
          {"old_cases", c.old_reads_old.cases},     {"new_cases", c.new_reads_new.cases}};
}

}  // namespace faithfulness
