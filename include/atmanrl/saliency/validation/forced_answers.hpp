#pragma once

/// \file
/// What a model answers after a chain of thought that is not its own: the chain is put after the question, the
/// delimiter after the chain, and greedy decoding gives one of a few answers, or another one. The chain is computed
/// once, however many answers are told apart.

#include <atmanrl/saliency/validation/greedy_decoding.hpp>
#include <atmanrl/saliency/variants.hpp>
#include <atmanrl/tasks/editable_chains.hpp>
#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/split.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A question, a chain for it, and the answers to tell apart, which must differ.
struct forced_chain {
  task_item item;
  std::string chain;  ///< without the delimiter
  std::vector<std::string> answers;
};

struct forced_options {
  variant_options variants{};
  /// The token that ends an answer. Nothing: any that ends a completion (stop_ids of text/chat.hpp).
  std::optional<int> answer_end{};
  /// Tokens that an answer may have beyond the longest one that is told apart: for a currency sign, a full stop and
  /// other things that do not change what is read.
  index_t longer_by = 8;
  row_count* rows = nullptr;  ///< counts the rows that were computed; may be null
};

/// The parts of a forced rollout as token ids.
struct forced_rollout {
  std::vector<int> prompt, cot, delimiter, answer;
  operator saliency_item() const { return {prompt, cot, delimiter, answer}; }
};

/// The ids of a question, a chain and an answer, as a reference solution of the task would be written.
/// \throws usage_error when the chain is empty, or holds the delimiter itself
template <EditableChains K, Tokenizer Z>
forced_rollout force(K const& task, Z const& tokenizer, task_item const& item, std::string_view chain,
                     std::string_view answer) {
  expects<usage_error>(!chain.empty() && chain.find(std::string_view(task.delimiter())) == std::string_view::npos,
                       "{}: the chain \"{}\" cannot be forced: it is empty or holds the delimiter {}", item.id, chain,
                       task.delimiter());
  task_item solved = item;
  solved.solution = std::string(chain).append(delimiter_text(task)).append(answer);
  std::vector<int> const ids = task.completion(solved, tokenizer);
  completion_spans const spans = split_completion(tokenizer, ids, {}, task.delimiter());
  auto const part = [&](token_span s) { return std::vector<int>(ids.begin() + s.first, ids.begin() + s.last); };
  return {task.prompt(item, tokenizer), part(spans.cot), part(spans.delimiter), part(spans.answer)};
}

namespace detail {

/// One prefix of a chain, the delimiter included, and the answers that stand after it: with some vocabularies the
/// answer decides how the delimiter in front of it is cut into tokens.
struct forced_prefix {
  forced_rollout rollout;
  std::vector<int> behind;  ///< chain and delimiter
  std::size_t longest = 0;  ///< tokens of the longest answer
  std::vector<std::size_t> answers{};
};

template <EditableChains K, Tokenizer Z>
std::vector<forced_prefix> forced_prefixes(K const& task, Z const& tokenizer, forced_chain const& c) {
  std::vector<forced_prefix> out;
  for (std::size_t a = 0; a < c.answers.size(); ++a) {
    forced_rollout r = force(task, tokenizer, c.item, c.chain, c.answers[a]);
    std::vector<int> behind = r.cot;
    behind.insert(behind.end(), r.delimiter.begin(), r.delimiter.end());
    auto p = std::find_if(out.begin(), out.end(), [&](forced_prefix const& x) { return x.behind == behind; });
    if (p == out.end()) p = out.insert(p, forced_prefix{.rollout = r, .behind = std::move(behind)});
    p->longest = std::max(p->longest, r.answer.size());
    p->answers.push_back(a);
  }
  return out;
}

}  // namespace detail

/// Which of each chain's answers greedy decoding gives after it; nothing where it gives another. What is decoded, up
/// to the end of the answer or of its line, is read as the task reads completions: 012 and $12 are 12. One that is not
/// over after `longer_by` tokens more than the longest of the answers is read as far as it goes.
/// \throws usage_error when two answers of a chain are the same, or a chain cannot be forced
template <LanguageModel Model, EditableChains K, Tokenizer Z>
std::vector<std::optional<std::size_t>> greedy_answers(Model& model, Z const& tokenizer, K const& task,
                                                       std::span<forced_chain const> chains,
                                                       forced_options const& options = {}) {
  std::vector<detail::forced_prefix> forced;
  std::vector<std::size_t> chain_of;
  for (std::size_t i = 0; i < chains.size(); ++i) {
    forced_chain const& c = chains[i];
    for (std::size_t a = 0; a < c.answers.size(); ++a)
      for (std::size_t b = 0; b < a; ++b)
        expects<usage_error>(c.answers[a] != c.answers[b], "{}: the answer {} is listed twice", c.item.id,
                             c.answers[a]);
    for (detail::forced_prefix& p : detail::forced_prefixes(task, tokenizer, c)) {
      forced.push_back(std::move(p));
      chain_of.push_back(i);
    }
  }
  index_t const positions = model.config().max_positions;
  std::vector<decoding_prefix> prefixes;
  for (detail::forced_prefix const& p : forced) {
    index_t const room = positions - index_t(p.rollout.prompt.size() + p.behind.size());
    expects<usage_error>(room >= index_t(p.longest),
                         "{}: question, chain and answer have {} tokens, the model's limit is {}",
                         chains[chain_of[prefixes.size()]].item.id, positions - room + index_t(p.longest), positions);
    prefixes.push_back({p.rollout.prompt, p.behind, std::min(room, index_t(p.longest) + options.longer_by)});
  }
  std::vector<int> ends = stop_ids(tokenizer, model.config().stop_ids);
  if (options.answer_end) ends = {*options.answer_end};
  auto const text_of = [&](std::span<int const> ids) {
    std::string text;
    for (int const id : ids.first(std::size_t(std::ranges::find_first_of(ids, ends) - ids.begin())))
      text += tokenizer.token_bytes(id);
    return text;
  };
  auto const over = [&](std::size_t, std::span<int const> ids) {
    if (std::find(ends.begin(), ends.end(), ids.back()) != ends.end()) return true;
    std::string const text = text_of(ids);
    std::size_t const word = text.find_first_not_of(" \t\r\n");
    return word != std::string::npos && text.find('\n', word) != std::string::npos;
  };
  auto const decoded = decode_greedily(model, std::span<decoding_prefix const>(prefixes), over,
                                       options.variants.row_budget, options.rows);
  std::vector<std::optional<std::size_t>> out(chains.size());
  for (std::size_t p = 0; p < forced.size(); ++p) {
    forced_chain const& c = chains[chain_of[p]];
    std::string const completion = delimiter_text(task) + text_of(decoded[p]);
    for (std::size_t const a : forced[p].answers) {
      task_item asked = c.item;
      asked.answer = c.answers[a];
      std::optional<std::size_t>& given = out[chain_of[p]];
      if ((!given || a < *given) && task.grade(asked, completion).correct_strict) given = a;
    }
  }
  return out;
}

/// The probability of each answer after its chain, the geometric mean over its tokens without the end token.
template <LanguageModel Model, EditableChains K, Tokenizer Z>
std::vector<std::vector<double>> forced_probabilities(Model& model, Z const& tokenizer, K const& task,
                                                      std::span<forced_chain const> chains,
                                                      variant_options const& options = {}) {
  std::vector<forced_rollout> rollouts;
  for (forced_chain const& c : chains)
    for (std::string const& answer : c.answers) rollouts.push_back(force(task, tokenizer, c.item, c.chain, answer));
  std::vector<saliency_item> const items(rollouts.begin(), rollouts.end());
  std::vector<cot_variant> variants;
  for (std::size_t i = 0; i < items.size(); ++i)
    variants.push_back({.item = i, .keep = index_t(items[i].cot.size()), .inserted = {}, .chosen = {}});
  auto const scores =
      score_variants(model, std::span<saliency_item const>(items), std::span<cot_variant const>(variants), options);
  std::vector<std::vector<double>> out;
  std::size_t at = 0;
  for (forced_chain const& c : chains) {
    out.emplace_back();
    for (std::size_t a = 0; a < c.answers.size(); ++a) out.back().push_back(scores[at++].probability());
  }
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
