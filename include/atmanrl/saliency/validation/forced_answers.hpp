#pragma once

/// \file
/// What a model answers behind a chain of thought that is not its own: the chain is put behind the question, the
/// delimiter behind the chain, and greedy decoding gives one of a few answers, or another one.

#include <atmanrl/saliency/variants.hpp>
#include <atmanrl/tasks/editable_chains.hpp>
#include <atmanrl/text/split.hpp>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl {

/// A question, a chain for it, and the answers to tell apart, which must differ.
struct forced_chain {
  task_item item;
  std::string chain;  ///< without the delimiter
  std::vector<std::string> answers;
};

struct forced_options {
  variant_options variants{};
  /// The token that ends an answer: with it 1 is told from the beginning of 12. Nothing: the model's first stop token,
  /// if it has one.
  std::optional<int> answer_end{};
};

/// The parts of a forced rollout as token ids.
struct forced_rollout {
  std::vector<int> prompt, cot, delimiter, answer;
  operator mask_item() const { return {prompt, cot, delimiter, answer}; }
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

/// Scores of all answers of all chains, chain by chain.
template <LanguageModel Model, EditableChains K, Tokenizer Z>
std::vector<variant_score> forced_scores(Model& model, Z const& tokenizer, K const& task,
                                         std::span<forced_chain const> chains, variant_options const& options,
                                         std::optional<int> answer_end) {
  std::vector<forced_rollout> rollouts;
  for (forced_chain const& c : chains)
    for (std::string const& answer : c.answers) {
      rollouts.push_back(force(task, tokenizer, c.item, c.chain, answer));
      if (answer_end) rollouts.back().answer.push_back(*answer_end);
    }
  std::vector<mask_item> const items(rollouts.begin(), rollouts.end());
  std::vector<cot_variant> variants;
  for (std::size_t i = 0; i < items.size(); ++i)
    variants.push_back({.item = i, .keep = index_t(items[i].cot.size()), .inserted = {}, .chosen = {}});
  return score_variants(model, std::span<mask_item const>(items), std::span<cot_variant const>(variants), options);
}

}  // namespace detail

/// Which of each chain's answers greedy decoding gives behind it; nothing where it gives another.
/// \throws usage_error when two answers of a chain are the same, or a chain cannot be forced
template <LanguageModel Model, EditableChains K, Tokenizer Z>
std::vector<std::optional<std::size_t>> greedy_answers(Model& model, Z const& tokenizer, K const& task,
                                                       std::span<forced_chain const> chains,
                                                       forced_options const& options = {}) {
  for (forced_chain const& c : chains)
    for (std::size_t a = 0; a < c.answers.size(); ++a)
      for (std::size_t b = 0; b < a; ++b)
        expects<usage_error>(c.answers[a] != c.answers[b], "{}: the answer {} is listed twice", c.item.id,
                             c.answers[a]);
  variant_options variants = options.variants;
  variants.greedy = true;
  std::optional<int> end = options.answer_end;
  if (!end && !model.config().stop_ids.empty()) end = model.config().stop_ids.front();
  auto const scores = detail::forced_scores(model, tokenizer, task, chains, variants, end);
  std::vector<std::optional<std::size_t>> out;
  std::size_t at = 0;
  for (forced_chain const& c : chains) {
    std::optional<std::size_t> given;
    for (std::size_t a = 0; a < c.answers.size(); ++a, ++at)
      if (scores[at].greedy && !given) given = a;
    out.push_back(given);
  }
  return out;
}

/// The probability of each answer behind its chain, the geometric mean over its tokens without the end token.
template <LanguageModel Model, EditableChains K, Tokenizer Z>
std::vector<std::vector<double>> forced_probabilities(Model& model, Z const& tokenizer, K const& task,
                                                      std::span<forced_chain const> chains,
                                                      variant_options const& options = {}) {
  auto const scores = detail::forced_scores(model, tokenizer, task, chains, options, std::nullopt);
  std::vector<std::vector<double>> out;
  std::size_t at = 0;
  for (forced_chain const& c : chains) {
    out.emplace_back();
    for (std::size_t a = 0; a < c.answers.size(); ++a) out.back().push_back(scores[at++].probability());
  }
  return out;
}

}  // namespace atmanrl
