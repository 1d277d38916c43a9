#pragma once

/// \file
/// Accuracy on held-out questions: samples completions, grades them and counts what they are made of (evaluation.hpp
/// has the figures). Random numbers depend on seed, question and sample alone, so that two evaluations differ by the
/// weights and by nothing else.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/evaluation/evaluation.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/rl/annotate.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
#include <atmanrl/rl/token_rows.hpp>
#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/token_classes.hpp>

#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

struct evaluation_options {
  int questions = 64;  ///< the task's first ones; fewer where it has fewer; not read when items are given
  int samples = 4;     ///< completions per question
  int max_new_tokens = 160;
  double temperature = 1;
  std::uint64_t seed = 0;
  int batch_questions = 16;  ///< decoded together; changes nothing but speed and memory
  std::function<void(int questions_done, int questions, index_t tokens)>
      on_progress;                      ///< as often as generate_options::on_progress; may be empty
  std::function<bool()> should_stop{};  ///< asked between batches; may be empty
  comm::any ranks{};                    ///< that evaluate at once, each with its own model, and share out the questions
  /// The completions of one question, in the order of the questions; may be empty.
  std::function<void(int question, task_item const& item, std::span<rollout const> samples)> on_question{};
};

/// Questions that are decoded together so that their keys and values and their logits take about `bytes`.
int questions_per_batch(model_config const& c, index_t longest_prompt, int samples, int max_new_tokens,
                        std::size_t bytes, std::size_t scalar_bytes);

/// Bytes of the keys and values and of the logits of so many questions that are decoded together.
std::size_t evaluation_bytes(model_config const& c, index_t longest_prompt, int questions, int samples,
                             int max_new_tokens);

/// The first `count` evaluation items of a task, or as many as it has.
template <Task K>
std::vector<task_item> evaluation_items(K const& task, index_t count) {
  std::vector<task_item> out;
  for (index_t i = 0; i < std::min<index_t>(count, task.evaluation_size()); ++i) out.push_back(task.evaluation_item(i));
  return out;
}

/// Samples completions of the given questions and grades them.
/// \throws usage_error when a prompt leaves no room in the model's positions
template <class Model, Tokenizer Z, Task K, Sampler S = samplers::multinomial>
evaluation evaluate(Model& model, Z const& tokenizer, K const& task, std::span<task_item const> items,
                    evaluation_options const& options, S const& sampler = {}) {
  static_assert(detail::explain_language_model<Model>());
  expects<usage_error>(options.samples >= 1 && options.batch_questions >= 1,
                       "evaluate: {} samples of {} questions at a time; both must be at least 1", options.samples,
                       options.batch_questions);
  forbid_missing_tokens(model, tokenizer);
  evaluation out;
  out.samples = options.samples;
  out.seed = options.seed;
  int const questions = int(items.size());
  std::vector<int> const stop = stop_ids(tokenizer, model.config().stop_ids);
  index_t tokens_so_far = 0;
  comm::any ranks = options.ranks;
  int const together = options.batch_questions * ranks.size();
  for (int first = 0; first < questions; first += together) {
    if (options.should_stop && options.should_stop()) {
      out.complete = false;
      break;
    }
    int const count = std::min(together, questions - first);
    std::vector<std::vector<int>> prompts;
    for (int i = 0; i < count; ++i) prompts.push_back(task.prompt(items[std::size_t(first + i)], tokenizer));
    generate_options g{.group_size = options.samples,
                       .max_new_tokens = options.max_new_tokens,
                       .temperature = options.temperature,
                       .stop_ids = stop,
                       .seed = options.seed,
                       .step = 0,
                       .first_prompt = 0,
                       .on_progress = {}};
    if (options.on_progress)
      g.on_progress = [&](int finished, int, index_t tokens) {
        options.on_progress(first + finished / options.samples, questions, tokens_so_far + tokens);
      };
    auto sampled =
        comm::share_work<std::vector<completion>>(ranks, prompts.size(), [&](std::size_t from, std::size_t mine) {
          g.first_prompt = std::uint32_t(first) + std::uint32_t(from);
          return generate(model, std::span<std::vector<int> const>(prompts).subspan(from, mine), g, sampler);
        });

    for (int i = 0; i < count; ++i) {
      task_item const& item = items[std::size_t(first + i)];
      question_result q;
      q.id = item.id;
      q.subject = item.subject;
      std::vector<rollout> rollouts;
      for (int s = 0; s < options.samples; ++s) {
        rollouts.push_back(annotate(std::move(sampled[std::size_t(i)][std::size_t(s)]), first + i, s, item, task,
                                    tokenizer, std::span<int const>(stop), no_delimiter_policy::skip));
        rollout const& r = rollouts.back();
        q.correct += r.grade.correct_strict;
        q.correct_flexible += r.grade.correct_flexible;
        q.unparsed += !r.grade.extracted_flexible;
        q.delimiter += r.spans.has_delimiter;
        q.truncated += r.truncated;
        q.tokens += index_t(r.ids.size());
        q.cot_tokens += r.spans.cot.size();
        token_classes const classes = count_token_classes(tokenizer.decode(r.cot()));
        q.words += classes.all;
        q.numbers += classes.numbers;
        q.stop_words += classes.stop_words;
        q.symbols += classes.symbols;
        if (auto const filler = filler_sentences(task, tokenizer, r.cot())) {
          out.knows_filler = true;
          q.filler_sentences += *filler;
        }
      }
      tokens_so_far += q.tokens;
      if (options.on_question) options.on_question(first + i, item, rollouts);
      out.per_question.push_back(std::move(q));
    }
  }
  summarize(out);
  return out;
}

/// The same for the task's first `options.questions` evaluation items.
template <class Model, Tokenizer Z, Task K, Sampler S = samplers::multinomial>
evaluation evaluate(Model& model, Z const& tokenizer, K const& task, evaluation_options const& options,
                    S const& sampler = {}) {
  std::vector<task_item> const items = evaluation_items(task, options.questions);
  return evaluate(model, tokenizer, task, std::span<task_item const>(items), options, sampler);
}

#if ATMANRL_BODIES

ATMANRL_INLINE int questions_per_batch(model_config const& c, index_t longest_prompt, int samples, int max_new_tokens,
                                       std::size_t bytes, std::size_t scalar_bytes) {
  index_t const rows = longest_prompt + index_t(samples) * max_new_tokens;
  double const each = double(rows) * double(2 * c.layers * c.kv_heads * c.head_dim) * double(scalar_bytes) +
                      2.0 * double(samples) * double(c.vocab) * double(scalar_bytes);
  // More than 64 rows make no product faster.
  return int(std::clamp(double(bytes) / each, 1.0, std::max(1.0, 64.0 / double(samples))));
}

ATMANRL_INLINE std::size_t evaluation_bytes(model_config const& c, index_t longest_prompt, int questions, int samples,
                                            int max_new_tokens) {
  // In double, because no number of an option may leave the range.
  double const completion = double(std::min<index_t>(max_new_tokens, c.max_positions));
  double const rows = double(questions) * (double(longest_prompt) + double(samples) * completion);
  double const bytes = sizeof(float) * (rows * double(2 * c.layers * c.kv_heads * c.head_dim) +
                                        double(questions) * double(samples) * double(c.vocab));
  return std::size_t(std::min(bytes, 0x1p62));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
