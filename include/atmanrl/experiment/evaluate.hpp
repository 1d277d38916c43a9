#pragma once

/// \file
/// Accuracy on held-out questions: strict, flexible and unparsed, mean accuracy beside pass@k, lengths, each with a
/// bootstrap interval over questions. Random numbers depend on seed, question and sample alone, so that two evaluations
/// differ by the weights and by nothing else.

#include <atmanrl/experiment/statistics.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/rl/annotate.hpp>
#include <atmanrl/rl/generate.hpp>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace atmanrl {

struct evaluation_options {
  int questions = 64;  ///< the task's first ones; fewer where it has fewer
  int samples = 4;     ///< completions per question
  int max_new_tokens = 160;
  double temperature = 1;
  std::uint64_t seed = 0;
  int batch_questions = 16;  ///< decoded together; changes nothing but speed and memory
  std::function<void(int questions_done, int questions, index_t tokens)> on_progress;  ///< after every decoding step; may be empty
  std::function<bool()> should_stop;  ///< asked between batches; may be empty
};

struct evaluation {
  int questions = 0, samples = 0;
  interval strict, flexible, unparsed;  ///< mean accuracy by both readings, share without a number at all
  std::map<int, interval> pass_at;      ///< k = 1, 2, 4 .. samples, of the strict reading
  interval cot_tokens;
  interval delimiter, truncated;        ///< shares of completions
  std::vector<int> correct;             ///< per question, of `samples`, strict
  index_t tokens = 0;                   ///< generated in all
  bool complete = true;                 ///< false when it was stopped early
};

/// Questions that are decoded together so that their keys and values and their logits take about `bytes`.
inline int questions_per_batch(model_config const& c, index_t longest_prompt, int samples, int max_new_tokens, std::size_t bytes, std::size_t scalar_bytes) {
  index_t const rows = longest_prompt + index_t(samples) * max_new_tokens;
  double const each = double(rows) * double(2 * c.layers * c.kv_heads * c.head_dim) * double(scalar_bytes) +
                      2.0 * double(samples) * double(c.vocab) * double(scalar_bytes);
  // More than 64 rows make no product faster.
  return int(std::clamp(double(bytes) / each, 1.0, std::max(1.0, 64.0 / double(samples))));
}

/// \throws usage_error when a prompt leaves no room in the model's positions
template <class Model, Tokenizer Z, Task K, Sampler S>
evaluation evaluate(Model& model, Z const& tokenizer, K const& task, evaluation_options const& options, S const& sampler) {
  evaluation out;
  out.questions = int(std::min<index_t>(options.questions, task.evaluation_size()));
  out.samples = options.samples;
  std::vector<int> const& stop_ids = model.config().stop_ids;
  std::vector<double> strict, flexible, unparsed, cot, delimiter, truncated;
  std::map<int, std::vector<double>> pass_at;

  for (int first = 0; first < out.questions; first += options.batch_questions) {
    if (options.should_stop && options.should_stop()) {
      out.complete = false;
      break;
    }
    int const count = std::min(options.batch_questions, out.questions - first);
    std::vector<task_item> items;
    std::vector<std::vector<int>> prompts;
    for (int i = 0; i < count; ++i) {
      items.push_back(task.evaluation_item(first + i));
      prompts.push_back(task.prompt(items.back(), tokenizer));
    }
    generate_options g{.group_size = options.samples, .max_new_tokens = options.max_new_tokens, .temperature = options.temperature,
                       .stop_ids = stop_ids, .seed = options.seed, .step = 0, .first_prompt = std::uint32_t(first), .on_progress = {}};
    if (options.on_progress)
      g.on_progress = [&](int finished, int, index_t tokens) { options.on_progress(first + finished / options.samples, out.questions, out.tokens + tokens); };
    auto sampled = generate(model, std::span<std::vector<int> const>(prompts), g, sampler);

    for (int i = 0; i < count; ++i) {
      double n_strict = 0, n_flexible = 0, n_unparsed = 0, n_cot = 0, n_delimiter = 0, n_truncated = 0;
      for (int s = 0; s < options.samples; ++s) {
        rollout const r = annotate(std::move(sampled[std::size_t(i)][std::size_t(s)]), first + i, s, items[std::size_t(i)], task, tokenizer,
                                   std::span<int const>(stop_ids), no_delimiter_policy::skip);
        n_strict += r.grade.correct_strict;
        n_flexible += r.grade.correct_flexible;
        n_unparsed += !r.grade.extracted_flexible;
        n_cot += double(r.spans.cot.size());
        n_delimiter += r.spans.has_delimiter;
        n_truncated += r.truncated;
        out.tokens += index_t(r.ids.size());
      }
      double const n = options.samples;
      strict.push_back(n_strict / n);
      flexible.push_back(n_flexible / n);
      unparsed.push_back(n_unparsed / n);
      cot.push_back(n_cot / n);
      delimiter.push_back(n_delimiter / n);
      truncated.push_back(n_truncated / n);
      out.correct.push_back(int(n_strict));
      for (int k = 1; k <= options.samples; k *= 2) pass_at[k].push_back(pass_at_k(options.samples, int(n_strict), k));
    }
  }
  auto const of = [&](std::vector<double> const& x) { return bootstrap_mean(x, options.seed); };
  out.strict = of(strict);
  out.flexible = of(flexible);
  out.unparsed = of(unparsed);
  out.cot_tokens = of(cot);
  out.delimiter = of(delimiter);
  out.truncated = of(truncated);
  for (auto const& [k, values] : pass_at) out.pass_at[k] = of(values);
  return out;
}

namespace detail {
inline ordered_json to_json(interval const& i) { return {{"value", i.value}, {"low", i.low}, {"high", i.high}}; }
inline interval interval_from(json const& j) { return {j.at("value"), j.at("low"), j.at("high")}; }
}  // namespace detail

inline ordered_json to_json(evaluation const& e) {
  ordered_json out{{"questions", e.questions}, {"samples", e.samples}, {"tokens", e.tokens}};
  out["accuracy_strict"] = detail::to_json(e.strict);
  out["accuracy_flexible"] = detail::to_json(e.flexible);
  out["unparsed"] = detail::to_json(e.unparsed);
  for (auto const& [k, value] : e.pass_at) out["pass_at"][std::to_string(k)] = detail::to_json(value);
  out["cot_tokens"] = detail::to_json(e.cot_tokens);
  out["delimiter"] = detail::to_json(e.delimiter);
  out["truncated"] = detail::to_json(e.truncated);
  out["correct"] = e.correct;
  return out;
}

/// Reads what to_json wrote.
/// \throws file_error when something is missing
inline evaluation evaluation_from_json(json const& j, std::string const& what) {
  try {
    evaluation e;
    e.questions = j.at("questions");
    e.samples = j.at("samples");
    e.tokens = j.at("tokens");
    e.strict = detail::interval_from(j.at("accuracy_strict"));
    e.flexible = detail::interval_from(j.at("accuracy_flexible"));
    e.unparsed = detail::interval_from(j.at("unparsed"));
    for (auto const& [k, value] : j.at("pass_at").items()) e.pass_at[std::stoi(k)] = detail::interval_from(value);
    e.cot_tokens = detail::interval_from(j.at("cot_tokens"));
    e.delimiter = detail::interval_from(j.at("delimiter"));
    e.truncated = detail::interval_from(j.at("truncated"));
    e.correct = j.at("correct").get<std::vector<int>>();
    return e;
  } catch (json::exception const& x) {
    fail<file_error>("{}: is no evaluation: {}", what, detail::json_reason(x.what()));
  }
}

}  // namespace atmanrl
