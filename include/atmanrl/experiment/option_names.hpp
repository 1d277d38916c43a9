#pragma once

/// \file
/// The names of the options and their values as text and JSON: one list from which command lines, options.json and the
/// comparison of a resumed run with its first part are made.

#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/bf16_products.hpp>
#include <atmanrl/experiment/option_values.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/io/json.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// Calls f(name, value, meaning) for every option in the order of the command line; `value` may be assigned through
/// `detail::read_option`.
template <class F>
void for_each_option(experiment_options& o, F&& f) {
  f("preset", o.preset, "demo: settings that were found to work; paper: the printed ones. Other options win over it");
  f("model", o.model, "Hugging Face folder, .gguf or llama2.c .bin");
  f("task", detail::one_of{&o.task, detail::task_names},
    "arithmetic (generated problems), leaked_answer, skipped_step, memorised (such problems with chains that need not "
    "be read) or gsm8k; mmlu has a program of its own, mmlu_experiment");
  f("data", o.data, "folder with the task's files (gsm8k: train.jsonl and test.jsonl; mmlu: dev, val and test)");
  f("few-shot", o.few_shot, "worked examples in front of each question");
  f("chat", detail::one_of{&o.chat.format, chat_formats::names},
    "chat format; auto: the model's own template, plain text where it has none; else plain, chatml, llama3, llama3.1 "
    "or deepseek-r1");
  f("system", o.chat.system, "a system message in front of every question; none: the template's own");
  f("thinking", detail::one_of{&o.chat.thinking, detail::thinking_names},
    "on, off, or auto: as the template has it, for templates that ask for enable_thinking");
  f("chat-date", detail::any_text{&o.chat.date}, "what a template takes for today, as YYYY-MM-DD");
  f("steps", o.steps, "optimiser steps");
  f("prompts-per-step", o.prompts_per_step, "questions per step");
  f("group-size", o.group_size, "rollouts per question");
  f("max-new-tokens", o.max_new_tokens, "longest completion");
  f("temperature", o.temperature, "of sampling, training and evaluation");
  f("mask-steps", o.mask.steps, "updates of each attention mask");
  f("mask-shape", o.mask.shape, "pair (a parameter per query and key) or column (per token)");
  f("mask-rows", o.mask.rows, "all_later or answer_rows: the queries that see the mask");
  f("mask-lr", o.mask.learning_rate, "learning rate of the masks");
  f("mask-init", o.mask.init, "start value of the masks, below 0");
  f("mask-scale", detail::number_or_word{&o.mask.scale, 0, "auto"},
    "strength of the masks, or auto: the smallest that hurts the answer");
  f("mask-sparsity", o.mask.sparsity, "weight of the sparsity term");
  f("mask-objective", o.mask.objective,
    "what the masks restore: cross_entropy of the answer, kl_to_unmasked or excess_cross_entropy");
  f("mask-label", o.mask.label,
    "which answer: ground_truth, own_answer, or only_correct (the truth; wrong rollouts have no mask)");
  f("mask-sharing", o.mask.sharing, "all layers and heads share a mask, or there is one per_layer or per_head");
  f("mask-layers", detail::layer_list{&o.mask.layers}, "layers that see the masks: all, or numbers from 0 like 0,2");
  f("mask-lower-clamp", detail::number_or_word{&o.mask.lower_clamp, -std::numeric_limits<double>::infinity(), "none"},
    "floor of the masks' values, at most their start value, or none");
  f("mask-eps", o.mask.optimizer.eps, "eps of the masks' AdamW: a large one holds entries with small gradients back");
  f("mask-stop-tolerance", detail::number_or_none{&o.mask.stop_tolerance},
    "a mask is final this many nats above CE(0), or none: never");
  f("mask-reduction", o.mask.reduction,
    "of a mask to the reward: mean, token_mean, answer_rows, clipped or length_weighted");
  f("saliency-estimator", detail::one_of{&o.saliency_estimator, estimators::names},
    "learned_mask, leave_one_out, gradient, atman_suppression, gradient_x_input or attention_rollout");
  f("saliency-weight", o.saliency_weight, "weight of the saliency reward, or auto: by its spread");
  f("saliency-share", o.saliency_share, "for auto: spread of the weighted saliency, a share of the outcome's; 0: none");
  f("saliency-direction", o.direction, "re_enabled (1 - mean) or as_printed (mean)");
  f("saliency-gate", o.saliency_gate,
    "none, or correct: only right answers are paid for saliency, others get their least");
  f("no-delimiter", o.no_delimiter, "rollouts without an answer: skip them, or force the true answer after them");
  f("lr", o.learning_rate, "learning rate");
  f("inner-passes", o.inner_passes, "gradient passes over the rollouts of a step");
  f("max-gradient-norm", o.max_gradient_norm, "gradients longer than this are scaled down; 0: never");
  f("lr-schedule", detail::one_of{&o.lr_schedule, schedules::names},
    "of the learning rate: constant, linear or cosine decay");
  f("lr-warmup", o.lr_warmup, "steps in which the learning rate rises");
  f("optimizer", detail::one_of{&o.optimizer, optim::names}, "of the weights: adamw, sgd, lion or muon");
  f("optimizer-beta1", o.optimizer_settings.beta1,
    "of adamw and lion, or auto: the optimizer's own; muon: of its AdamW");
  f("optimizer-beta2", o.optimizer_settings.beta2,
    "of adamw and lion, or auto: the optimizer's own; muon: of its AdamW");
  f("optimizer-eps", o.optimizer_settings.eps, "of adamw, or auto: 1e-8; muon: of its AdamW");
  f("momentum", o.optimizer_settings.momentum, "of sgd and muon, or auto: the optimizer's own");
  f("nesterov", o.optimizer_settings.nesterov, "Nesterov's step in sgd and muon, or auto: the optimizer's own");
  f("weight-decay", o.optimizer_settings.weight_decay, "of the optimizer, or auto: none");
  f("advantage", detail::one_of{&o.advantage, advantages::names},
    "mean_centered, group_normalized, batch_normalized, leave_one_out, gdpo; per token saliency_weighted, chain_only");
  f("loss", detail::one_of{&o.loss, losses::names}, "grpo, bnpo, dr_grpo, dapo, gspo, cispo or two_sided");
  f("ratio", o.loss_settings.level,
    "importance ratio of each token, of the sequence, its sequence_mean, or auto: the loss's own");
  f("clip-low", o.loss_settings.clip_low, "how far below 1 the ratio may go, or auto: the loss's own");
  f("clip-high", o.loss_settings.clip_high,
    "how far above 1 the ratio may go (cispo: its cap), or auto: the loss's own");
  f("clip-delta", o.loss_settings.delta, "bound of the ratio in two_sided, or auto: 4");
  f("kl", detail::one_of{&o.kl, losses::kl_names}, "estimator of the divergence from the reference: k1, k2 or k3");
  f("beta", o.beta, "coefficient of the KL term; 0: no reference model");
  f("entropy-bonus", o.entropy_bonus, "the mean entropy times this is taken from the loss");
  f("mask-truncated", o.mask_truncated_completions, "leave completions that the length limit ended out of the loss");
  f("dynamic-sampling", o.dynamic_sampling_rounds, "rounds in which groups of equal rewards are replaced by new ones");
  f("reward-gradient", o.reward_gradient.update,
    "of rewards with a gradient: off, joined to the loss's gradient, own: in an update of its own after each step's, "
    "own_optimizer: with moments of its own as well");
  f("reward-gradient-weight", o.reward_gradient.weight, "joined: of the mean gradient; else: of the learning rate");
  f("reward-gradient-share", o.reward_gradient.share, "of the rollouts, drawn anew for every step");
  f("sampler", detail::one_of{&o.sampler, samplers::names}, "multinomial or greedy");
  f("top-k", o.cuts.top_k, "sample from the k most probable tokens; 0: from all");
  f("top-p", o.cuts.top_p, "sample from the smallest set of this probability; 1: from all");
  f("min-p", o.cuts.min_p, "sample from tokens of at least this share of the largest probability; 0: from all");
  f("length-penalty", o.length_penalty, "tokens of a chain of thought that cost 1; 0: none");
  f("overlong-cache", o.overlong_cache, "tokens below max-new-tokens from which completions are penalised; 0: none");
  f("lora-rank", o.lora_rank, "rank of low-rank adapters, which alone are trained; 0: all parameters are");
  f("lora-alpha", o.lora_alpha, "their products are scaled by alpha / rank");
  f("lora-targets", o.lora_targets, "the matrices that get one: all, or names like q_proj,v_proj");
  f("adapter", o.adapter, "PEFT folder whose adapters are trained on; it sets the three options above");
  f("merge", o.merge, "also write the model with the adapters merged in");
  f("seed", o.seed, "of everything that is drawn");
  f("threads", o.threads, "0: as many as the processor runs; results do not depend on it");
  f("dtype", o.dtype,
    "of the weights: f32, bf16, or packed: the blocks of a quantised GGUF, which compute what f32 does and are there "
    "for adapters; auto: packed where that can be, else f32");
  f("kv-cache", o.kv_cache,
    "storage of keys and values: f32 or bf16, half the memory; rounded in training as in sampling");
  f("recompute", o.recompute,
    "keep only the layers' inputs of a pass and compute the rest again: less memory per row, more time");
  f("gradient-memory", o.gradient.kept,
    "of several processes: each keeps a whole gradient and whole sums that wait, of sums its slices, or of the "
    "gradient, too, no more than the layers at hand; results do not depend on it");
  f("gradient-sums-on-host", o.gradient.sums_on_host,
    "with slices and layers: sums that wait lie in the host's memory, not the GPU's");
  f("tf32", o.tf32,
    "on a GPU: products of floats, attention's among them, on matrix units, with 10 bits of mantissa (TF32)");
  f("bf16-weight-gradients", o.bf16_weight_gradients,
    "true (on a CPU by AMX) rounds the factors of weights' gradients to bf16; auto: with bf16 weights on a GPU");
  f("split-weight-gradients", detail::on_or_off{&o.split_weight_gradients},
    "on a CPU by AMX: the factors of weights' gradients are split into two bf16 numbers each, on or off");
  f("bf16-products", detail::one_of{&o.bf16_products, bf16_products_names},
    "on a CPU, bf16 weights: floats, pairs, amx, bfmmla, amx_twin, bfmmla_twin or auto; the start says which it is");
  f("graphs", detail::on_or_off{&o.graphs},
    "on a GPU: steps that repeat are launched as CUDA graphs, on or off; results do not depend on it");
  f("skinny-products", detail::on_or_off{&o.skinny_products},
    "on a GPU, bf16 weights: products of up to 16 rows add up in an order that does not depend on how many, on or off");
  f("device", o.device, "number of the GPU, from 0; of several processes on a machine each takes the next one");
  f("activation-mib", o.activation_mib, "memory for the activations of one pass in MiB");
  f("eval-questions", o.eval_questions, "questions of the evaluation before and after; 0: none");
  f("eval-samples", o.eval_samples, "completions per evaluation question");
  f("validate-every", o.validate_every, "steps between tests of whether the rewarded saliency is causal; 0: none");
  f("checkpoint-every", o.checkpoint_every, "steps between checkpoints; 0: none, and the run cannot be resumed");
  for (own_option& each : o.own) f(each.name.c_str(), each.value, each.meaning.c_str());
  f("out", o.out, "folder for the run's files");
}

/// \throws usage_error when an option of the program's own has the name of another
void check_own_options(experiment_options o);

/// Sets one option from text.
/// \throws usage_error for an unknown name or a value that it cannot have
void set_option(experiment_options& o, std::string_view name, std::string_view text);

/// All options as JSON, numbers with all their digits.
json options_to_json(experiment_options o);

/// Reads what options_to_json wrote.
/// \throws file_error for a missing, unknown or impossible value
/// \param what  name for the error's text, usually the file. Options that are younger than the file have their defaults
/// \param own   options of the program's own
experiment_options options_from_json(json const& from, std::string const& what, std::vector<own_option> own = {});

/// Refuses to continue a run under other options; the number of threads, the device, graphs, what ranks keep of a
/// gradient and the folder's name are free.
/// \throws usage_error that names the first option that differs
void check_same_run(experiment_options const& stored, experiment_options const& given, std::string const& folder);

#if ATMANRL_BODIES

namespace detail {
/// Options that a run may go on without, or with another value of.
inline bool changes_no_bit(std::string_view name) { return name == "graphs" || name.starts_with("gradient-"); }
/// Options that runs of an earlier version did not write.
inline bool is_younger_option(std::string_view name) {
  return name.starts_with("chat") || name == "system" || name == "thinking" || name == "device" ||
         name.ends_with("-weight-gradients") || name.ends_with("-products") || name.starts_with("reward-gradient") ||
         changes_no_bit(name);
}
}  // namespace detail

ATMANRL_INLINE void check_own_options(experiment_options o) {
  std::vector<std::string> names;
  for_each_option(o, [&](char const* name, auto&&, char const*) { names.emplace_back(name); });
  for (own_option const& each : o.own)
    expects<usage_error>(std::count(names.begin(), names.end(), each.name) == 1,
                         "own_options() names --{}, but there is an option of that name", each.name);
}

ATMANRL_INLINE void set_option(experiment_options& o, std::string_view name, std::string_view text) {
  bool known = false;
  for_each_option(o, [&](std::string_view each, auto&& value, char const*) {
    if (each != name) return;
    known = true;
    detail::read_option(name, text, value);
  });
  expects<usage_error>(known, "there is no option --{}", name);
}

ATMANRL_INLINE json options_to_json(experiment_options o) {
  json out;
  for_each_option(o, [&](char const* name, auto&& value, char const*) { out[name] = detail::option_json(value); });
  return out;
}

ATMANRL_INLINE experiment_options options_from_json(json const& from, std::string const& what,
                                                    std::vector<own_option> own) {
  expects<file_error>(from.is_object(), "{}: is no list of options", what);
  experiment_options o;
  o.own = std::move(own);
  if (!from.contains("bf16-weight-gradients")) o.bf16_weight_gradients = false;  // older runs rounded none
  std::size_t found = 0;
  for_each_option(o, [&](char const* name, auto&& value, char const*) {
    if (!from.contains(name) && detail::is_younger_option(name)) return;
    expects<file_error>(from.contains(name), "{}: {} is missing", what, name);
    json const& x = from[name];
    ++found;
    // Paths that were not given are written as empty texts, a system message that was not as null.
    using V = std::remove_cvref_t<decltype(value)>;
    if (std::is_same_v<V, std::filesystem::path> && x.is_string() && x.template get_ref<std::string const&>().empty())
      return;
    if (std::is_same_v<V, std::optional<std::string>> && x.is_null()) return;
    try {
      detail::read_option(name, x.is_string() ? x.template get<std::string>() : x.dump(), value);
    } catch (usage_error const& e) {
      fail<file_error>("{}: {}", what, e.what());
    }
  });
  expects<file_error>(found == from.size(), "{}: has {} values but {} options are known", what, from.size(), found);
  return o;
}

ATMANRL_INLINE void check_same_run(experiment_options const& stored, experiment_options const& given,
                                   std::string const& folder) {
  json const a = options_to_json(stored), b = options_to_json(given);
  for (auto const& [name, value] : a.items()) {
    if (name == "threads" || name == "device" || name == "out" || detail::changes_no_bit(name)) continue;
    expects<usage_error>(value == b[name], "--{} {} contradicts the run in {}, which was started with {}", name,
                         detail::option_text(b[name]), folder, detail::option_text(value));
  }
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
