#pragma once

/// \file
/// Does a model's answer follow its own chain of thought? Chains that it wrote have their last number replaced, and are
/// given back to it: the answer that follows is then another one, whatever the truth is (saliency/validation/
/// interventions.hpp does so with any chains; Lanham et al. 2023, arXiv:2307.13702, section 2.3, edit by a model).

#include <atmanrl/core/config.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/rl/rollout.hpp>
#include <atmanrl/saliency/validation/interventions.hpp>

#include <fmt/format.h>

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A chain that a model wrote, and the answer that it gave after it, right or wrong.
struct written_chain {
  task_item item;
  std::string chain, answer;
};

/// The chain of a completion; nothing where there is none, or its last number is not the completion's own answer: then
/// it is not known what a reader of the chain would answer.
/// \param completion  the text after the prompt, without the stop token
template <EditableChains K>
std::optional<written_chain> written_chain_of(K const& task, task_item const& item, std::string_view completion) {
  std::string chain = chain_text(task, completion);
  auto const says = task.chain_answer(item, chain);
  if (!says) return std::nullopt;
  // Answers are compared as the task compares them: $1,200 is 1200.
  task_item own = item;
  own.answer = *says;
  if (!task.grade(own, completion).correct_strict) return std::nullopt;
  return written_chain{item, std::move(chain), *says};
}

/// The chain of the first of a question's completions that has one.
template <EditableChains K>
std::optional<written_chain> written_chain_of(K const& task, task_item const& item, std::span<rollout const> samples) {
  for (rollout const& r : samples)
    if (auto found = written_chain_of(task, item, std::string_view(r.text))) return found;
  return std::nullopt;
}

/// Shares of the edited chains; all are 0 where there is none.
struct edited_chain_shares {
  double follow = 0;         ///< the answer is the number that was put in
  double stay = 0;           ///< it is the one that the model gave before
  double other = 0;          ///< it is neither
  double stay_unedited = 0;  ///< control: the answer stays after the chain as it was, given back in the same way
  std::size_t chains = 0;
};

/// Gives each chain back with its last number replaced by one as long as the true answer, which is neither true, nor
/// the model's, nor what a hint says, and decodes greedily. Chains that the task cannot edit are left out, and those
/// that as text have more tokens than the model's positions allow.
template <LanguageModel Model, Tokenizer Z, EditableChains K>
edited_chain_shares edit_chains(Model& model, Z const& tokenizer, K const& task, std::span<written_chain const> chains,
                                std::uint64_t seed = 0, forced_options const& options = {}) {
  std::vector<forced_chain> edited, unedited;
  auto const fits = [&](forced_chain const& c) {
    for (detail::forced_prefix const& p : detail::forced_prefixes(task, tokenizer, c))
      if (index_t(p.rollout.prompt.size() + p.behind.size() + p.longest) > model.config().max_positions) return false;
    return true;
  };
  for (std::size_t i = 0; i < chains.size(); ++i) {
    written_chain const& c = chains[i];
    random_stream draw = detail::intervention_draw(seed, 0x45444954, i);
    std::vector<std::string> avoid{c.answer};
    if (auto hint = detail::hint_in_item(task, c.item)) avoid.push_back(std::move(*hint));
    auto const e = task.with_chain_answer(c.item, c.chain, task.other_answer(c.item, draw, avoid));
    if (!e) continue;
    forced_chain with{c.item, e->chain, {e->answer, c.answer}}, without{c.item, c.chain, {c.answer}};
    if (!fits(with) || !fits(without)) continue;
    edited.push_back(std::move(with));
    unedited.push_back(std::move(without));
  }
  edited_chain_shares out;
  out.chains = edited.size();
  for (auto const given : greedy_answers(model, tokenizer, task, std::span<forced_chain const>(edited), options))
    (!given ? out.other : *given == 0 ? out.follow : out.stay) += 1;
  for (auto const given : greedy_answers(model, tokenizer, task, std::span<forced_chain const>(unedited), options))
    out.stay_unedited += given ? 1 : 0;
  if (!edited.empty())
    for (double* const share : {&out.follow, &out.stay, &out.other, &out.stay_unedited})
      *share /= double(edited.size());
  return out;
}

json to_json(edited_chain_shares const& s);

/// A figure per line.
/// \param asked  chains that were looked for
std::string edited_chains_table(edited_chain_shares const& s, std::size_t asked);

#if ATMANRL_BODIES

ATMANRL_INLINE json to_json(edited_chain_shares const& s) {
  return {{"chains", s.chains},
          {"follow", s.follow},
          {"stay", s.stay},
          {"other", s.other},
          {"stay_unedited", s.stay_unedited}};
}

ATMANRL_INLINE std::string edited_chains_table(edited_chain_shares const& s, std::size_t asked) {
  std::string out = fmt::format("{:<28}{} of {}\n", "chains with edited number", s.chains, asked);
  if (s.chains == 0) return out;
  for (auto const& [name, share] : {std::pair{"answers that follow (%)", s.follow},
                                    {"answers that stay (%)", s.stay},
                                    {"other answers (%)", s.other},
                                    {"unedited: stay (%)", s.stay_unedited}})
    out += fmt::format("{:<28}{:.1f}\n", name, 100 * share);
  return out;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
