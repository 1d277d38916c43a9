#pragma once

/// \file
/// How much memory a run will take, before it takes it. The run's own code is walked once over a backend that only
/// counts (backend/memory_ledger.hpp): evaluation, sampling, rewards, updates and observation of one step, by the
/// traits' own model, reward, optimizer and edits. So what any part of a program's own asks for is in it.
///
/// All numbers are zero in a walk, and so is the number of its step. Rollouts are made up: the reference solutions of
/// the run's own items, or completions as long as they may be. The step is that of the longest prompts and solutions,
/// the evaluation's batch likewise.

#include <atmanrl/backend/machine_memory.hpp>
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/experiment/observe.hpp>
#include <atmanrl/experiment/trainer.hpp>
#include <atmanrl/experiment/traits_parts.hpp>
#include <atmanrl/rl/generate.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Bytes of the rank that takes most, at the moment when it does.
struct memory_estimate {
  memory_by_use by_use;

  std::size_t peak() const { return by_use.all(); }
};

/// How long completions are.
enum class completion_length {
  of_solutions,  ///< as the reference solutions, where a token ends them; else `longest`
  longest,       ///< --max-new-tokens
};

/// What of its data a run has to hold at once.
struct run_data {
  index_t longest_prompt = 0;
  std::vector<task_item> step;                    ///< the items of the step that has most tokens
  std::vector<std::vector<int>> evaluation = {};  ///< prompts of the evaluation's batch that has most tokens
};

/// What a rank's keys, values and logits take at least while it samples or evaluates, known without a walk: options may
/// be any number, and a walk goes through as many items and rollouts as a step.
std::size_t sampling_bytes(model_config const& c, experiment_options const& o, int ranks);

/// Looks at the evaluation's questions and those of the first steps, and at whether 20000 prompts of a run leave room.
/// \throws usage_error naming the item whose prompt does not: a run is not to end on it after hours
template <Task K, Tokenizer Z>
run_data look_at_data(K const& task, Z const& words, model_config const& c, experiment_options const& o) {
  static constexpr index_t looked_at = 1000;
  static constexpr std::uint64_t measured = 20000;
  run_data data;
  auto const prompt_of = [&](task_item const& item) {
    std::vector<int> prompt = task.prompt(item, words);
    expects<usage_error>(has_room(prompt, c),
                         "the prompt of {} has {} tokens, which leaves no room: the model's limit is {}", item.id,
                         prompt.size(), c.max_positions);
    data.longest_prompt = std::max(data.longest_prompt, index_t(prompt.size()));
    return prompt;
  };
  std::vector<std::vector<int>> questions;
  for (index_t i = 0; i < std::min<index_t>(o.eval_questions, task.evaluation_size()); ++i)
    questions.push_back(prompt_of(task.evaluation_item(i)));

  index_t const prompts = o.prompts_per_step, steps = std::clamp<index_t>(looked_at / prompts, 1, o.steps);
  std::size_t most = 0;
  for (index_t s = 0; s < steps; ++s) {
    std::vector<task_item> items;
    std::size_t tokens = 0;
    for (index_t i = 0; i < prompts; ++i) {
      items.push_back(task.training_item(o.seed, std::uint64_t(s * prompts + i)));
      tokens += prompt_of(items.back()).size() + std::size_t(o.group_size) * words.encode(items.back().solution).size();
    }
    if (tokens > most) most = tokens, data.step = std::move(items);
  }
  std::uint64_t const own = std::min(measured, std::uint64_t(o.steps) * std::uint64_t(prompts)),
                      drawn = std::min(measured, own * std::min(measured, std::uint64_t(o.dynamic_sampling_rounds)));
  for (std::uint64_t i = std::uint64_t(steps * prompts); i < own; ++i) prompt_of(task.training_item(o.seed, i));
  for (std::uint64_t i = 0; i < drawn; ++i) prompt_of(task.training_item(o.seed, first_replacement_item + i));

  std::size_t const together = std::size_t(questions_per_batch(c, data.longest_prompt, o.eval_samples, o.max_new_tokens,
                                                               std::size_t(o.activation_mib) << 20, sizeof(float)));
  most = 0;
  for (std::size_t first = 0; first < questions.size(); first += together) {
    std::span const batch(questions.data() + first, std::min(together, questions.size() - first));
    std::size_t tokens = 0;
    for (auto const& prompt : batch) tokens += prompt.size();
    if (tokens > most) most = tokens, data.evaluation.assign(batch.begin(), batch.end());
  }
  return data;
}

namespace detail {

/// The options of a walk: what is only repeated is done once, and nothing ends early because its numbers are zero.
inline experiment_options walked(experiment_options o) {
  o.inner_passes = 1;
  o.dynamic_sampling_rounds = 0;
  o.mask.steps = std::min(o.mask.steps, 2);
  o.mask.stop_tolerance.reset();
  if (o.mask.scale == 0) o.mask.scale = 10;
  return o;
}

/// A backend that only counts, made from the options (a make_backend of the traits is not asked); null where there is
/// none of this type.
template <class B>
std::unique_ptr<B> counting_twin(experiment_options const& o) {
  std::unique_ptr<B> made;
  if constexpr (HasOptions<B> && requires(typename B::options_type c) { c.only_counts; }) {
    typename B::options_type c = backend_options<B>(o);
    c.only_counts = true;
    made = std::make_unique<B>(c);
  } else if constexpr (KeepsLedger<B> && std::default_initializable<B>) {
    made = std::make_unique<B>();
  }
  if constexpr (KeepsLedger<B>)
    if (made && !made->ledger()) made.reset();  // it would compute
  return made;
}

/// A completion as a run may sample it.
template <Task K, Tokenizer Z>
completion made_up_completion(K const& task, Z const& words, task_item const& item, std::span<int const> stop,
                              index_t room, completion_length length, experiment_options const& o) {
  completion c;
  if (length == completion_length::of_solutions && !stop.empty() && !item.solution.empty()) {
    c.ids = words.encode(item.solution);
    c.ids.push_back(stop.front());
  }
  if (c.ids.empty() || index_t(c.ids.size()) > room) {
    // A chain that never comes to an answer is longest where the answer is forced after it.
    bool const forced = o.no_delimiter == no_delimiter_policy::force && o.mask.label != mask_label::only_correct;
    std::vector<int> const label =
        forced ? std::vector<int>() : words.encode(delimiter_text(task) + task.answer_text(item));
    std::string const chain = item.solution.substr(0, item.solution.find(task.delimiter()));
    std::vector<int> ids = words.encode(chain.empty() ? item.question : chain);
    if (ids.empty()) ids.push_back(0);
    c.ids.clear();
    for (index_t const n = std::max<index_t>(1, room - index_t(label.size())); index_t(c.ids.size()) < n;)
      c.ids.push_back(ids[c.ids.size() % ids.size()]);
    c.ids.insert(c.ids.end(), label.begin(), label.end());
    c.ids.resize(std::size_t(std::min(room, index_t(c.ids.size()))));
    c.truncated = true;
  }
  c.log_probs.assign(c.ids.size(), 0);
  c.entropies.assign(c.ids.size(), 0);
  return c;
}

/// One rank's walk. \returns what it holds when it holds most
template <class Traits, class Model, Task K, Tokenizer Z, class MakeModel>
memory_by_use walk_run(typename Traits::backend& backend, experiment_options const& o, K const& task, Z const& words,
                       run_data const& data, completion_length length, MakeModel const& make_model,
                       comm::any_on<typename Traits::backend> ranks) {
  memory_use_scope const named(backend, memory_use::weights);
  Model model = make_model(backend);
  std::optional<Model> reference;
  if (needs_reference_model<Traits>(o)) reference.emplace(make_model(backend));
  model.set_kv_storage(o.kv_cache);
  if (reference) reference->set_kv_storage(o.kv_cache);
  if constexpr (AdaptableModel<Model>)
    if (o.lora_rank > 0) model.attach(o.lora(), o.seed);
  memory_use_scope const trained(backend, memory_use::gradient);
  auto trainer = make_trainer<Traits>(model, words, task, o, ranks);
  if (reference) trainer.set_reference_model(*reference);
  memory_use_scope const others(backend, memory_use::other);

  auto const sampler = make_traits_sampler<Traits>(o);
  auto const sample = [&](std::span<std::vector<int> const> prompts, int samples) {
    generate(model, prompts,
             {.group_size = samples,
              .max_new_tokens = o.max_new_tokens,
              .temperature = o.temperature,
              .stop_ids = {},
              .on_progress = {}},
             sampler);
  };
  if (!data.evaluation.empty()) sample(data.evaluation, o.eval_samples);

  std::vector<int> const stop = stop_ids(words, model.config().stop_ids);
  std::vector<std::vector<int>> prompts;
  step_rollouts step;
  for (task_item const& item : data.step) {
    prompts.push_back(task.prompt(item, words));
    rollout_group& g = step.groups.emplace_back(rollout_group{prompts.back(), item, {}});
    index_t const room =
        std::min<index_t>(o.max_new_tokens, model.config().max_positions - index_t(prompts.back().size()));
    for (int m = 0; m < o.group_size; ++m)
      g.rollouts.push_back(annotate(made_up_completion(task, words, item, stop, room, length, o),
                                    int(step.groups.size()) - 1, m, item, task, words, std::span<int const>(stop),
                                    o.no_delimiter));
  }
  comm::range const mine = comm::share_of(prompts.size(), ranks.size(), ranks.rank());
  if (mine.count > 0) sample(std::span(prompts).subspan(mine.first, mine.count), o.group_size);
  grpo_step_report report = trainer.learn(std::move(step));
  auto observer = make_observer<Traits>(within_budgets(model, o));
  share_observer(observer, ranks);
  observe(observer, report, model, [](std::string const&) {});
  return backend.ledger()->peak();
}

}  // namespace detail

/// What a run takes of the backend's memory; of several ranks, the one that takes most. Nothing where the backend
/// cannot only count, or the model cannot be made without a file.
/// \param make_model  `Model make_model(backend&)`, with all parameters zero; or the model's file
template <class Traits, class Model, Task K, Tokenizer Z, class MakeModel>
std::optional<memory_estimate> estimate_memory(experiment_options const& given, K const& task, Z const& words,
                                               run_data const& data, completion_length length,
                                               MakeModel const& make_model, int ranks = 1) {
  using B = typename Traits::backend;
  if constexpr (std::same_as<MakeModel, model_file>) {
    if constexpr (detail::MadeUnread<Model, Traits>)
      return estimate_memory<Traits, Model>(
          given, task, words, data, length,
          [&](B& b) { return detail::unread_model<Traits, Model>(b, make_model, given); }, ranks);
    else
      return std::nullopt;
  } else if constexpr (!KeepsLedger<B>) {
    return std::nullopt;
  } else {
    experiment_options const o = detail::walked(given);
    auto const walk = [&](comm::any_on<B> c) {
      auto const backend = detail::counting_twin<B>(o);
      return backend
                 ? std::optional(detail::walk_run<Traits, Model>(*backend, o, task, words, data, length, make_model, c))
                 : std::nullopt;
    };
    std::vector<std::optional<memory_by_use>> of_rank(static_cast<std::size_t>(ranks));
    if (ranks == 1)
      of_rank[0] = walk({});
    else
      comm::threads::run(ranks, [&](comm::threads& c) { of_rank[std::size_t(c.rank())] = walk(c); });
    auto const most = std::max_element(of_rank.begin(), of_rank.end(),
                                       [](auto const& a, auto const& b) { return a && b && a->all() < b->all(); });
    return *most ? std::optional(memory_estimate{**most}) : std::nullopt;
  }
}

/// "1.50 GiB = weights 1.00 GiB + ...".
std::string described(memory_by_use const& m);

/// Largest resident memory of this process so far, in bytes; 0 where the system does not say.
std::size_t peak_process_bytes();

/// "1.50 GiB", "12.3 MiB".
std::string format_bytes(std::size_t bytes);

#if ATMANRL_BODIES

ATMANRL_INLINE std::size_t sampling_bytes(model_config const& c, experiment_options const& o, int ranks) {
  auto const prompts = int(comm::share_of(std::size_t(o.prompts_per_step), ranks, 0).count);
  std::size_t const sampling = evaluation_bytes(c, 1, prompts, o.group_size, o.max_new_tokens),
                    evaluation =
                        o.eval_questions == 0 ? 0 : evaluation_bytes(c, 1, 1, o.eval_samples, o.max_new_tokens);
  return std::max(sampling, evaluation) / (o.kv_cache == kv_storage::bf16 ? 2 : 1);
}

ATMANRL_INLINE std::string described(memory_by_use const& m) {
  std::string text = format_bytes(m.all());
  for (std::size_t i = 0; i < m.bytes.size(); ++i)
    if (m.bytes[i] * 20 > (std::size_t{1} << 20))  // what is 0.0 MiB is left out
      text += fmt::format(" {} {} {}", text.find('=') == std::string::npos ? '=' : '+', memory_use_names[i],
                          format_bytes(m.bytes[i]));
  return text;
}

ATMANRL_INLINE std::size_t peak_process_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "VmHWM:") {
      std::size_t kib = 0;
      status >> kib;
      return kib << 10;
    }
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? std::size_t(usage.ru_maxrss) << 10 : 0;
}

ATMANRL_INLINE std::string format_bytes(std::size_t bytes) {
  double const mib = double(bytes) / double(1 << 20);
  return mib >= 1024 ? fmt::format("{:.2f} GiB", mib / 1024) : fmt::format("{:.1f} MiB", mib);
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
