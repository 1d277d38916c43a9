#pragma once

/// \file
/// Multiple choice without generation: the option whose continuation of the prompt has the largest log-probability, as
/// MMLU is scored by its authors (Hendrycks et al. 2021, arXiv:2009.03300). What several prompts begin with, the worked
/// examples of a subject for instance, is computed once, and so is a question for its options: one call on the prefix
/// tree.

#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/nn/prefix_tree_batch.hpp>
#include <atmanrl/tasks/mmlu.hpp>

#include <algorithm>
#include <array>
#include <functional>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

inline std::size_t common_prefix(std::span<int const> a, std::span<int const> b) {
  return std::size_t(std::ranges::mismatch(a, b).in1 - a.begin());
}

/// Adds log p of every option after each of `prompts`, which share their first `shared` tokens, to `out`.
template <LanguageModel Model>
void score_batch(Model& model, std::span<std::vector<int> const> prompts, std::size_t shared,
                 std::span<std::vector<int> const> options, std::vector<std::vector<double>>& out) {
  prefix_tree_batch tree;
  int const beginning = shared > 0 ? tree.add(-1, std::span(prompts[0]).first(shared)) : -1;
  for (auto const& p : prompts) {
    int const question = tree.add(beginning, std::span(p).subspan(shared));
    for (auto const& o : options) tree.score(question, {}, o);
  }
  auto const space = model.borrow_pass(tree.cache_rows());
  auto& [cache, pass] = *space;
  tree.open(model, cache, pass);
  model.forward(cache, tree.batch(), pass);
  model.log_probs(pass, tree.scored());
  auto const log_p = pass.log_p();
  std::size_t at = 0;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    std::vector<double>& sums = out.emplace_back(options.size(), 0.0);
    for (std::size_t o = 0; o < options.size(); ++o)
      for (std::size_t i = 0; i < options[o].size(); ++i) sums[o] += double(real_part(log_p[at++]));
  }
}

}  // namespace detail

/// log p of each option as the continuation of each prompt: result[prompt][option], summed over the option's tokens.
/// Neighbouring prompts with a common beginning go into one call.
/// \param row_budget  rows of one call, at least one prompt
/// \param on_prompts  `void(std::size_t done)` after each call; may be empty
/// \throws usage_error for an empty prompt or option, or one that is too long for the model
template <class Model>
std::vector<std::vector<double>> score_options(Model& model, std::span<std::vector<int> const> prompts,
                                               std::span<std::vector<int> const> options, index_t row_budget = 4096,
                                               std::function<void(std::size_t)> const& on_prompts = {}) {
  static_assert(detail::explain_language_model<Model>());
  std::size_t option_rows = 0, longest = 0;
  expects<usage_error>(!options.empty(), "score_options: there are no options");
  for (auto const& o : options) {
    expects<usage_error>(!o.empty(), "score_options: an option is empty");
    option_rows += o.size() - 1;
    longest = std::max(longest, o.size());
  }
  for (auto const& p : prompts)
    expects<usage_error>(!p.empty() && index_t(p.size() + longest) - 1 <= model.config().max_positions,
                         "score_options: a prompt of {} tokens with options of up to {}; the model's limit is {}",
                         p.size(), longest, model.config().max_positions);
  std::vector<std::vector<double>> out;
  for (std::size_t first = 0; first < prompts.size();) {
    // A prompt keeps at least one row of its own.
    std::size_t shared = prompts[first].size() - 1, total = prompts[first].size(), count = 1,
                rows = total + option_rows;
    for (; first + count < prompts.size(); ++count) {
      auto const& next = prompts[first + count];
      std::size_t const with = std::min({shared, next.size() - 1, detail::common_prefix(prompts[first], next)});
      rows = with + (total + next.size() - (count + 1) * with) + (count + 1) * option_rows;
      if (index_t(rows) > row_budget) break;
      shared = with;
      total += next.size();
    }
    detail::score_batch(model, prompts.subspan(first, count), shared, options, out);
    first += count;
    if (on_prompts) on_prompts(first);
  }
  return out;
}

struct letters_options {
  int shots = 5;
  std::uint64_t seed = 0;                                                ///< of the intervals
  index_t row_budget = 4096;                                             ///< rows of one forward call
  std::function<void(int questions_done, int questions)> on_progress{};  ///< may be empty
};

struct letters_result {
  std::string id, subject;
  char truth = 'A', chosen = 'A';
  std::array<double, mmlu::choices> log_p{};  ///< of " A" to " D"
};

struct letters_evaluation {
  std::vector<letters_result> per_question;
  interval micro;       ///< mean over questions
  interval macro;       ///< mean over subjects of the mean over their questions
  int fewer_shots = 0;  ///< questions that had room for fewer worked examples than were asked for
};

/// MMLU by the log-probabilities of the four letters. A question that would be too long for the model gets as many
/// worked examples as fit. \throws usage_error when a question is too long without examples
template <class Model, Tokenizer Z>
letters_evaluation evaluate_letters(Model& model, Z const& tokenizer, mmlu const& task,
                                    std::span<task_item const> items, letters_options const& options = {}) {
  std::vector<std::vector<int>> letters;
  for (char c = 'A'; c < 'A' + mmlu::choices; ++c) letters.push_back(tokenizer.encode(std::string{' ', c}));
  std::size_t longest = 0;
  for (auto const& l : letters) longest = std::max(longest, l.size());
  letters_evaluation out;
  // Sorted by subject, so that neighbours share their examples; the result is in the order of the items.
  std::vector<std::size_t> order(items.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return std::string_view(items[i].subject); });
  std::vector<std::vector<int>> prompts;
  for (std::size_t const i : order) {
    int shots = options.shots;
    std::vector<int> ids = task.letter_prompt(items[i], tokenizer, shots);
    while (shots > 0 && index_t(ids.size() + longest) - 1 > model.config().max_positions)
      ids = task.letter_prompt(items[i], tokenizer, --shots);
    out.fewer_shots += shots < options.shots;
    prompts.push_back(std::move(ids));
  }
  auto const scores =
      score_options(model, std::span<std::vector<int> const>(prompts), std::span<std::vector<int> const>(letters),
                    options.row_budget, [&](std::size_t done) {
                      if (options.on_progress) options.on_progress(int(done), int(items.size()));
                    });
  out.per_question.resize(items.size());
  for (std::size_t k = 0; k < order.size(); ++k) {
    task_item const& item = items[order[k]];
    letters_result& r = out.per_question[order[k]];
    r.id = item.id;
    r.subject = item.subject;
    r.truth = item.answer.at(0);
    std::ranges::copy(scores[k], r.log_p.begin());
    r.chosen = char('A' + (std::ranges::max_element(r.log_p) - r.log_p.begin()));
  }
  std::vector<double> right;
  std::vector<std::string> subjects;
  for (letters_result const& r : out.per_question) {
    right.push_back(r.chosen == r.truth);
    subjects.push_back(r.subject);
  }
  out.micro = bootstrap_mean(right, options.seed);
  out.macro = bootstrap(right.size(), options.seed, [&](std::span<int const> drawn) {
    return macro_average(subjects, drawn, [&](std::size_t i) { return right[i]; });
  });
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
