#pragma once

/// \file
/// The names of the options and their values as text and JSON: one list from which command lines, options.json and the
/// comparison of a resumed run with its first part are made.

#include <atmanrl/experiment/options.hpp>
#include <atmanrl/io/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

namespace atmanrl {

namespace detail {

/// A number of which 0 means that it is to be chosen, written "auto".
struct zero_is_auto {
  double* value;
};

/// A number of which minus infinity means that there is none, written "none".
struct lowest_is_none {
  double* value;
};

/// A number that may be missing, written "none".
struct number_or_none {
  std::optional<double>* value;
};

/// Numbers of layers in ascending order; the empty list means all and is written "all".
struct layer_list {
  std::vector<int>* value;
};

/// A text that is one of a list of names.
struct one_of {
  std::string* value;
  std::span<std::string_view const> names;
};

template <class E>
struct named_values;
template <>
struct named_values<losses::ratio_level> {
  static constexpr std::array all{std::pair{losses::ratio_level::token, "token"}, std::pair{losses::ratio_level::sequence, "sequence"},
                                  std::pair{losses::ratio_level::sequence_mean, "sequence_mean"}};
};
template <>
struct named_values<experiment_preset> {
  static constexpr std::array all{std::pair{experiment_preset::demo, "demo"}, std::pair{experiment_preset::paper, "paper"}};
};
template <>
struct named_values<weight_dtype> {
  static constexpr std::array all{std::pair{weight_dtype::f32, "f32"}, std::pair{weight_dtype::bf16, "bf16"}};
};
template <>
struct named_values<mask_shape> {
  static constexpr std::array all{std::pair{mask_shape::pair, "pair"}, std::pair{mask_shape::column, "column"}};
};
template <>
struct named_values<mask_rows> {
  static constexpr std::array all{std::pair{mask_rows::all_later, "all_later"}, std::pair{mask_rows::answer_rows, "answer_rows"}};
};
template <>
struct named_values<mask_objective> {
  static constexpr std::array all{std::pair{mask_objective::cross_entropy, "cross_entropy"}, std::pair{mask_objective::kl_to_unmasked, "kl_to_unmasked"},
                                  std::pair{mask_objective::excess_cross_entropy, "excess_cross_entropy"}};
};
template <>
struct named_values<mask_sharing> {
  static constexpr std::array all{std::pair{mask_sharing::all, "all"}, std::pair{mask_sharing::per_layer, "per_layer"},
                                  std::pair{mask_sharing::per_head, "per_head"}};
};
template <>
struct named_values<mask_label> {
  static constexpr std::array all{std::pair{mask_label::ground_truth, "ground_truth"}, std::pair{mask_label::own_answer, "own_answer"},
                                  std::pair{mask_label::only_correct, "only_correct"}};
};
template <>
struct named_values<saliency_reduction> {
  static constexpr std::array all{std::pair{saliency_reduction::mean, "mean"}, std::pair{saliency_reduction::token_mean, "token_mean"},
                                  std::pair{saliency_reduction::answer_rows, "answer_rows"}, std::pair{saliency_reduction::clipped, "clipped"},
                                  std::pair{saliency_reduction::length_weighted, "length_weighted"}};
};
template <>
struct named_values<rewards::gate_choice> {
  static constexpr std::array all{std::pair{rewards::gate_choice::none, "none"}, std::pair{rewards::gate_choice::correct, "correct"}};
};
template <>
struct named_values<saliency_direction> {
  static constexpr std::array all{std::pair{saliency_direction::re_enabled, "re_enabled"},
                                  std::pair{saliency_direction::as_printed, "as_printed"}};
};
template <>
struct named_values<no_delimiter_policy> {
  static constexpr std::array all{std::pair{no_delimiter_policy::skip, "skip"}, std::pair{no_delimiter_policy::force, "force"}};
};

inline constexpr std::array<char const*, 3> task_names{"arithmetic", "gsm8k", "mmlu"};

template <class N>
void read_number(std::string_view name, std::string_view text, N& out, char const* kind) {
  N value{};
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool ok = problem == std::errc{} && end == text.data() + text.size() && !text.empty();
  if constexpr (std::is_floating_point_v<N>) ok = ok && std::isfinite(value);
  expects<usage_error>(ok, "--{} is \"{}\", it must be {}", name, text, kind);
  out = value;
}

inline void read_option(std::string_view name, std::string_view text, int& out) { read_number(name, text, out, "a whole number"); }
inline void read_option(std::string_view name, std::string_view text, std::uint64_t& out) {
  read_number(name, text, out, "a whole number that is not negative");
}
inline void read_option(std::string_view name, std::string_view text, double& out) { read_number(name, text, out, "a number"); }
inline void read_option(std::string_view name, std::string_view text, std::optional<double>& out) {
  if (text == "auto") return out.reset();
  double value = 0;
  read_number(name, text, value, "a number or auto");
  out = value;
}
inline void read_option(std::string_view name, std::string_view text, zero_is_auto out) {
  if (text == "auto") {
    *out.value = 0;
    return;
  }
  read_number(name, text, *out.value, "a number or auto");
}
inline void read_option(std::string_view name, std::string_view text, lowest_is_none out) {
  if (text == "none") {
    *out.value = -std::numeric_limits<double>::infinity();
    return;
  }
  read_number(name, text, *out.value, "a number or none");
}
inline void read_option(std::string_view name, std::string_view text, number_or_none out) {
  if (text == "none") return out.value->reset();
  double value = 0;
  read_number(name, text, value, "a number or none");
  *out.value = value;
}
inline void read_option(std::string_view name, std::string_view text, layer_list out) {
  static constexpr char const* kind = "all or numbers of layers like 0,2, each once and in ascending order";
  std::vector<int> layers;
  for (std::size_t first = 0; text != "all" && first <= text.size();) {
    std::size_t const end = std::min(text.find(',', first), text.size());
    int layer = 0;
    auto const [stop, problem] = std::from_chars(text.data() + first, text.data() + end, layer);
    bool const ok = problem == std::errc{} && stop == text.data() + end && layer > (layers.empty() ? -1 : layers.back());
    expects<usage_error>(ok, "--{} is \"{}\", it must be {}", name, text, kind);
    layers.push_back(layer);
    first = end + 1;
  }
  *out.value = std::move(layers);
}
inline void read_option(std::string_view name, std::string_view text, std::filesystem::path& out) {
  expects<usage_error>(!text.empty(), "--{} is empty, it must be a path", name);
  out = std::filesystem::path(text);
}
inline void read_option(std::string_view name, std::string_view text, std::string& out) {
  // The only option of this kind.
  bool known = false;
  for (char const* const t : task_names) known = known || text == t;
  expects<usage_error>(known, "--{} is \"{}\", it must be one of {}", name, text, fmt::join(task_names, ", "));
  out = text;
}
inline void read_option(std::string_view name, std::string_view text, one_of out) {
  bool const known = std::find(out.names.begin(), out.names.end(), text) != out.names.end();
  expects<usage_error>(known, "--{} is \"{}\", it must be one of {}", name, text, fmt::join(out.names, ", "));
  *out.value = text;
}
inline void read_option(std::string_view name, std::string_view text, std::vector<lora_target>& out) {
  out = parse_lora_targets(text, fmt::format("--{}", name));
}
inline void read_option(std::string_view name, std::string_view text, bool& out) {
  // An option that is named without a value is switched on.
  expects<usage_error>(text.empty() || text == "true" || text == "false", "--{} is \"{}\", it must be true or false", name, text);
  out = text != "false";
}
template <class E>
  requires std::is_enum_v<E>
void read_option(std::string_view name, std::string_view text, E& out) {
  std::string names;
  for (auto const& [value, word] : named_values<E>::all) {
    if (text == word) {
      out = value;
      return;
    }
    names += (names.empty() ? "" : ", ") + std::string(word);
  }
  fail<usage_error>("--{} is \"{}\", it must be one of {}", name, text, names);
}
template <class E>
  requires std::is_enum_v<E>
void read_option(std::string_view name, std::string_view text, std::optional<E>& out) {
  if (text == "auto") return out.reset();
  E value{};
  read_option(name, text, value);
  out = value;
}

inline json option_json(int x) { return x; }
inline json option_json(std::uint64_t x) { return x; }
inline json option_json(double x) { return x; }
inline json option_json(std::optional<double> const& x) { return x ? json(*x) : json("auto"); }
inline json option_json(zero_is_auto x) { return *x.value == 0 ? json("auto") : json(*x.value); }
inline json option_json(lowest_is_none x) { return std::isinf(*x.value) ? json("none") : json(*x.value); }
inline json option_json(number_or_none x) { return *x.value ? json(**x.value) : json("none"); }
inline json option_json(layer_list x) { return x.value->empty() ? json("all") : json(fmt::format("{}", fmt::join(*x.value, ","))); }
inline json option_json(std::filesystem::path const& x) { return x.string(); }
inline json option_json(std::string const& x) { return x; }
inline json option_json(one_of x) { return *x.value; }
inline json option_json(std::vector<lora_target> const& x) { return lora_targets_text(x); }
inline json option_json(bool x) { return x; }
template <class E>
  requires std::is_enum_v<E>
json option_json(E x) {
  for (auto const& [value, word] : named_values<E>::all)
    if (x == value) return word;
  fail("an option has the unnamed value {}", int(x));
}
template <class E>
  requires std::is_enum_v<E>
json option_json(std::optional<E> const& x) {
  return x ? option_json(*x) : json("auto");
}

}  // namespace detail

/// Calls f(name, value, meaning) for every option in the order of the command line; `value` may be assigned through
/// `detail::read_option`.
template <class F>
void for_each_option(experiment_options& o, F&& f) {
  f("preset", o.preset, "demo: settings that were found to work; paper: the printed ones. Other options win over it");
  f("model", o.model, "Hugging Face folder, .gguf or llama2.c .bin");
  f("task", o.task, "arithmetic (generated problems) or gsm8k; mmlu has a program of its own, mmlu_experiment");
  f("data", o.data, "folder with the task's files (gsm8k: train.jsonl and test.jsonl; mmlu: dev, val and test)");
  f("few-shot", o.few_shot, "worked examples in front of each question");
  f("steps", o.steps, "optimiser steps");
  f("prompts-per-step", o.prompts_per_step, "questions per step");
  f("group-size", o.group_size, "rollouts per question");
  f("max-new-tokens", o.max_new_tokens, "longest completion");
  f("temperature", o.temperature, "of sampling, training and evaluation");
  f("mask-steps", o.mask.steps, "updates of each attention mask");
  f("mask-shape", o.mask.shape, "pair (a parameter per query and key) or column (per token)");
  f("mask-rows", o.mask.rows, "all_later or answer_rows: the queries that see the mask");
  f("mask-lr", o.mask.optimizer.learning_rate, "learning rate of the masks");
  f("mask-init", o.mask.init, "start value of the masks, below 0");
  f("mask-scale", detail::zero_is_auto{&o.mask.scale}, "strength of the masks, or auto: the smallest that hurts the answer");
  f("mask-sparsity", o.mask.sparsity, "weight of the sparsity term");
  f("mask-objective", o.mask.objective, "what the masks restore: cross_entropy of the answer, kl_to_unmasked or excess_cross_entropy");
  f("mask-label", o.mask.label, "which answer: ground_truth, own_answer, or only_correct (the truth; wrong rollouts have no mask)");
  f("mask-sharing", o.mask.sharing, "all layers and heads share a mask, or there is one per_layer or per_head");
  f("mask-layers", detail::layer_list{&o.mask.layers}, "layers that see the masks: all, or numbers from 0 like 0,2");
  f("mask-lower-clamp", detail::lowest_is_none{&o.mask.lower_clamp}, "floor of the masks' values, at most their start value, or none");
  f("mask-eps", o.mask.optimizer.eps, "eps of the masks' AdamW: a large one holds entries with small gradients back");
  f("mask-stop-tolerance", detail::number_or_none{&o.mask.stop_tolerance}, "a mask is final within this many nats of the unmasked answer, or none: never");
  f("mask-reduction", o.mask.reduction, "of a mask to the reward: mean, token_mean, answer_rows, clipped or length_weighted");
  f("saliency-estimator", detail::one_of{&o.saliency_estimator, estimators::names}, "learned_mask, leave_one_out, gradient or atman_suppression");
  f("saliency-weight", o.saliency_weight, "weight of the saliency reward, or auto: by its spread");
  f("saliency-share", o.saliency_share, "for auto: spread of the weighted saliency reward as a share of the outcome's");
  f("saliency-direction", o.direction, "re_enabled (1 - mean) or as_printed (mean)");
  f("saliency-gate", o.saliency_gate, "who is paid for saliency: none (everybody), or correct: right answers, others get the least of them");
  f("no-delimiter", o.no_delimiter, "rollouts without an answer: skip them, or force the true answer behind them");
  f("lr", o.learning_rate, "learning rate");
  f("inner-passes", o.inner_passes, "gradient passes over the rollouts of a step");
  f("max-gradient-norm", o.max_gradient_norm, "gradients longer than this are scaled down; 0: never");
  f("lr-schedule", detail::one_of{&o.lr_schedule, schedules::names}, "of the learning rate: constant, linear or cosine decay");
  f("lr-warmup", o.lr_warmup, "steps in which the learning rate rises");
  f("advantage", detail::one_of{&o.advantage, advantages::names}, "mean_centered, group_normalized, batch_normalized, leave_one_out or gdpo");
  f("loss", detail::one_of{&o.loss, losses::names}, "grpo, bnpo, dr_grpo, dapo, gspo, cispo or two_sided");
  f("ratio", o.loss_settings.level, "importance ratio of each token, of the sequence, its sequence_mean, or auto: the loss's own");
  f("clip-low", o.loss_settings.clip_low, "how far below 1 the ratio may go, or auto: the loss's own");
  f("clip-high", o.loss_settings.clip_high, "how far above 1 the ratio may go (cispo: its cap), or auto: the loss's own");
  f("clip-delta", o.loss_settings.delta, "bound of the ratio in two_sided, or auto: 4");
  f("kl", detail::one_of{&o.kl, losses::kl_names}, "estimator of the divergence from the reference model: k1, k2 or k3");
  f("beta", o.beta, "coefficient of the KL term; 0: no reference model");
  f("entropy-bonus", o.entropy_bonus, "the mean entropy times this is taken from the loss");
  f("mask-truncated", o.mask_truncated, "leave completions that the length limit ended out of the loss");
  f("dynamic-sampling", o.dynamic_sampling, "rounds in which groups of equal rewards are replaced by new ones");
  f("sampler", detail::one_of{&o.sampler, samplers::names}, "multinomial or greedy");
  f("top-k", o.cuts.top_k, "sample from the k most probable tokens; 0: from all");
  f("top-p", o.cuts.top_p, "sample from the smallest set of this probability; 1: from all");
  f("min-p", o.cuts.min_p, "sample from tokens of at least this share of the largest probability; 0: from all");
  f("length-penalty", o.length_penalty, "tokens of a chain of thought that cost 1; 0: none");
  f("overlong-cache", o.overlong_cache, "completions are penalised from this many tokens below max-new-tokens; 0: none");
  f("lora-rank", o.lora_rank, "rank of low-rank adapters, which alone are trained; 0: all parameters are");
  f("lora-alpha", o.lora_alpha, "their products are scaled by alpha / rank");
  f("lora-targets", o.lora_targets, "the matrices that get one: all, or names like q_proj,v_proj");
  f("adapter", o.adapter, "PEFT folder whose adapters are trained on; it sets the three options above");
  f("merge", o.merge, "also write the model with the adapters merged in");
  f("seed", o.seed, "of everything that is drawn");
  f("threads", o.threads, "0: as many as the processor runs; results do not depend on it");
  f("dtype", o.dtype, "of the weights: f32 or bf16");
  f("activation-mib", o.activation_mib, "memory for the activations of one pass in MiB");
  f("eval-questions", o.eval_questions, "questions of the evaluation before and after; 0: none");
  f("eval-samples", o.eval_samples, "completions per evaluation question");
  f("validate-every", o.validate_every, "steps between measurements of whether the rewarded saliency is causal; 0: none");
  f("checkpoint-every", o.checkpoint_every, "steps between checkpoints; 0: none, and the run cannot be resumed");
  f("out", o.out, "folder for the run's files");
}

/// Sets one option from text.
/// \throws usage_error for an unknown name or a value that it cannot have
inline void set_option(experiment_options& o, std::string_view name, std::string_view text) {
  bool known = false;
  for_each_option(o, [&](std::string_view each, auto&& value, char const*) {
    if (each != name) return;
    known = true;
    detail::read_option(name, text, value);
  });
  expects<usage_error>(known, "there is no option --{}", name);
}

/// All options as JSON, numbers with all their digits.
inline ordered_json options_to_json(experiment_options o) {
  ordered_json out;
  for_each_option(o, [&](char const* name, auto&& value, char const*) { out[name] = detail::option_json(value); });
  return out;
}

/// Reads what options_to_json wrote.
/// \param what  name for the error's text, usually the file
/// \throws file_error for a missing, unknown or impossible value
inline experiment_options options_from_json(json const& from, std::string const& what) {
  expects<file_error>(from.is_object(), "{}: is no list of options", what);
  experiment_options o;
  std::size_t found = 0;
  for_each_option(o, [&](char const* name, auto&& value, char const*) {
    expects<file_error>(from.contains(name), "{}: {} is missing", what, name);
    json const& x = from[name];
    ++found;
    // Only paths that were not given are written as empty texts.
    if (x.is_string() && x.template get_ref<std::string const&>().empty()) return;
    try {
      detail::read_option(name, x.is_string() ? x.template get<std::string>() : x.dump(), value);
    } catch (usage_error const& e) {
      fail<file_error>("{}: {}", what, e.what());
    }
  });
  expects<file_error>(found == from.size(), "{}: has {} values but {} options are known", what, from.size(), found);
  return o;
}

/// Refuses to continue a run under other options; the number of threads and the folder's name are free.
/// \throws usage_error that names the first option that differs
inline void check_same_run(experiment_options const& stored, experiment_options const& given, std::string const& folder) {
  ordered_json const a = options_to_json(stored), b = options_to_json(given);
  for (auto const& [name, value] : a.items()) {
    if (name == "threads" || name == "out") continue;
    auto const text = [](ordered_json const& x) { return x.is_string() ? x.get<std::string>() : x.dump(); };
    expects<usage_error>(value == b[name], "--{} {} contradicts the run in {}, which was started with {}", name, text(b[name]), folder, text(value));
  }
}

}  // namespace atmanrl
