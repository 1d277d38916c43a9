#pragma once

/// \file
/// Everything that a run is described by, with two sets of defaults: `paper`, the printed settings (arXiv:2604.16158,
/// sections 3.2 to 3.4), and `demo`, those that were found to work on small models (docs/method.md).

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/option_naming.hpp>
#include <atmanrl/io/lora_config.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/optim/any.hpp>
#include <atmanrl/optim/schedule.hpp>
#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/grpo_options.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/rl/rewards/gated.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/samplers/any.hpp>
#include <atmanrl/saliency/estimators/any.hpp>
#include <atmanrl/saliency/mask_options.hpp>
#include <atmanrl/text/chat_formats.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

enum class weight_dtype {
  f32,
  bf16,
  packed,   ///< float, where the quantised matrices of a GGUF file stay its blocks; the bits of f32, for adapters
  by_file,  ///< packed where that can be: a quantised file, adapters, a backend that reads blocks; else f32
};
enum class experiment_preset { demo, paper };

/// A number on the command line that a part of one's own reads: a reward's weight or target, for instance.
struct own_option {
  std::string name;     ///< without the dashes
  double value;         ///< where nothing is said
  std::string meaning;  ///< for --help
};

/// The trainer's options and the masks' are held as they are: a run trains with exactly these (`experiment/trainer.hpp`
/// adds what follows from the model: row_budget and total_steps).
struct experiment_options : grpo_options {
  experiment_options() {
    max_new_tokens = 160;
    learning_rate = 2e-5;
  }

  experiment_preset preset = experiment_preset::demo;  ///< where the other values came from; changes nothing by itself

  std::filesystem::path model = "examples/models/tiny";  ///< Hugging Face folder, .gguf or llama2.c .bin
  std::string task = "arithmetic";                       ///< of generated_task_names, "gsm8k" or "mmlu"
  std::filesystem::path data;                            ///< folder of the task's files; empty: where they usually are
  int few_shot = 0;                                      ///< worked examples in front of each question
  chat_options chat{};                                   ///< how questions are put to the model

  int steps = 100;

  mask_options mask = mask_options::recommended();  ///< scale 0: chosen at the first step with masks
  std::string saliency_estimator = "learned_mask";  ///< a name of estimators::names
  saliency_direction direction = saliency_direction::re_enabled;
  rewards::gate_choice saliency_gate = rewards::gate_choice::none;  ///< correct: only right rollouts are paid for it
  std::optional<double> saliency_weight;  ///< λ; none: chosen so that its spread is `saliency_share` of the outcome's
  double saliency_share = 0.5;

  std::string lr_schedule = "constant";  ///< a name of schedules::names; its length is `steps`
  int lr_warmup = 10;                    ///< steps; AdamW's first steps move every weight by the whole rate
  std::string optimizer = "adamw";       ///< a name of optim::names
  optim::settings optimizer_settings;    ///< what is empty is the optimizer's own

  std::string advantage = "mean_centered";  ///< a name of advantages::names
  std::string loss = "grpo";                ///< a name of losses::names
  losses::settings loss_settings;           ///< what is empty is the loss's own
  std::string kl = "k3";                    ///< a name of losses::kl_names
  double beta = 0;                          ///< coefficient of the KL term; 0: no reference model
  std::string sampler = "multinomial";      ///< a name of samplers::names
  samplers::multinomial cuts;               ///< log-probabilities are those before the cut
  double length_penalty = 0;                ///< CoT tokens that cost 1; 0: none
  double overlong_cache = 0;                ///< tokens below max_new_tokens at which the penalty begins; 0: none

  int lora_rank = 0;  ///< 0: all parameters are trained
  double lora_alpha = 16;
  std::vector<std::string> lora_targets{};  ///< names of matrices; empty: all
  std::filesystem::path adapter;            ///< PEFT folder that training goes on from; empty: fresh adapters
  bool merge = false;                       ///< also write the model with the adapters merged in

  int threads = 0;  ///< 0: as many as the processor runs; the results do not depend on it
  weight_dtype dtype = weight_dtype::by_file;
  kv_storage kv_cache = kv_storage::full;  ///< bf16: keys and values are rounded in training as in sampling
  bool tf32 = false;  ///< on a GPU: factors of float products, attention's, too, are rounded to 10 bits of mantissa
  std::optional<bool> bf16_weight_gradients{};  ///< factors rounded to bf16, on a CPU by AMX; none: as weights on a GPU
  bool split_weight_gradients = false;          ///< on a CPU by AMX: these factors are two bf16 numbers each
  std::string bf16_products = "auto";           ///< on a CPU, bf16 weights: a name of bf16_products_names
  bool graphs = true;  ///< on a GPU: steps that repeat are launched as CUDA graphs; the results do not depend on it
  bool skinny_products = false;  ///< on a GPU, bf16 weights: what a decoded row gives depends on no other row of its
                                 ///< batch, up to 16 rows (cuda/skinny.cuh)
  int device = 0;                ///< ordinal of the GPU; of several ranks on a machine each takes the next one
  int activation_mib = 2048;     ///< bounds the activations of one forward and backward pass; 1 MiB = 2^20 bytes

  int eval_questions = 200;   ///< before and after; 0: no evaluation
  int eval_samples = 4;       ///< completions per question
  int validate_every = 10;    ///< steps between measurements of whether the rewarded saliency is causal; 0: none
  int checkpoint_every = 10;  ///< steps; 0: no checkpoints, so that the run cannot be resumed

  std::vector<own_option> own{};  ///< of a program's own parts (the traits' own_options)

  std::filesystem::path out;     ///< folder of the run's files; must not exist or be empty
  std::filesystem::path resume;  ///< folder of a run to continue; empty: a new run

  /// Value of an option of one's own.
  /// \throws usage_error when the program has none of this name
  double own_value(std::string_view name) const {
    for (own_option const& each : own)
      if (each.name == name) return each.value;
    fail<usage_error>("the program has no option --{} of its own: name it in the traits' own_options()", name);
  }

  lora_config lora() const { return {.rank = lora_rank, .alpha = lora_alpha, .targets = lora_targets}; }

  /// The values that are meant where nothing else is said.
  static experiment_options of_preset(experiment_preset p) {
    experiment_options o;
    o.preset = p;
    if (p == experiment_preset::demo) return o;
    o.steps = 160;
    o.prompts_per_step = 8;
    o.max_new_tokens = 1024;
    o.mask = mask_options{};
    o.saliency_weight = 1;
    o.learning_rate = 1e-6;
    o.lr_warmup = 0;
    o.eval_questions = 1000;
    return o;
  }
};

/// \throws usage_error that names the option and the value
void validate(experiment_options const& o);

#if ATMANRL_BODIES

namespace detail {
/// `mask learning rate` is --mask-lr there; most options have their member's name.
inline std::string name_on_command_line(std::string_view words) {
  std::string name = "--" + std::string(words);
  for (auto const& [longer, shorter] : {std::pair("learning rate", "lr"), {" rounds", ""}})
    if (auto const at = name.find(longer); at != name.npos) name.replace(at, std::string_view(longer).size(), shorter);
  std::replace(name.begin(), name.end(), ' ', '-');
  return name;
}
}  // namespace detail

ATMANRL_INLINE void validate(experiment_options const& o) {
  auto const at_least = [](std::string_view words, auto value, auto least) {
    expects_at_least(detail::name_on_command_line, words, value, decltype(value)(least));
  };
  at_least("few-shot", o.few_shot, 0);
  validate(o.chat);
  at_least("steps", o.steps, 1);
  validate(static_cast<grpo_options const&>(o), detail::name_on_command_line);
  validate(o.mask, detail::name_on_command_line);
  estimators::by_name(o.saliency_estimator, o.mask);
  at_least("saliency-share", o.saliency_share, 0);
  at_least("lr-warmup", o.lr_warmup, 0);
  at_least("beta", o.beta, 0);
  at_least("length-penalty", o.length_penalty, 0);
  expects<usage_error>(o.overlong_cache >= 0 && o.overlong_cache <= o.max_new_tokens,
                       "--overlong-cache is {}, it must lie between 0 and --max-new-tokens, {}", o.overlong_cache,
                       o.max_new_tokens);
  schedules::by_name(o.lr_schedule);
  optim::by_name(o.optimizer, o.optimizer_settings);
  advantages::by_name(o.advantage);
  losses::add_kl(losses::by_name(o.loss, o.loss_settings), o.kl, o.beta);
  samplers::by_name(o.sampler, o.cuts);
  at_least("lora-rank", o.lora_rank, 0);
  expects<usage_error>(o.lora_rank <= 65536, "--lora-rank is {}, it must be at most 65536", o.lora_rank);
  expects<usage_error>(o.lora_alpha > 0, "--lora-alpha is {}, it must be above 0", o.lora_alpha);
  expects<usage_error>(o.lora_rank > 0 || !o.adapter.empty() || !o.merge,
                       "--merge needs adapters: --lora-rank or --adapter");
  at_least("threads", o.threads, 0);
  expects<usage_error>(o.threads <= 4096, "--threads is {}, it must be at most 4096", o.threads);
  at_least("device", o.device, 0);
  at_least("activation-mib", o.activation_mib, 1);
  at_least("eval-questions", o.eval_questions, 0);
  at_least("eval-samples", o.eval_samples, 1);
  at_least("validate-every", o.validate_every, 0);
  at_least("checkpoint-every", o.checkpoint_every, 0);
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
