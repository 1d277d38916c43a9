#pragma once

/// \file
/// The options of a run as they are recorded: checked once, paths absolute, "auto" replaced by what it means here,
/// those of a run that goes on compared with what it was started with. And what is compared with them afterwards:
/// ranks, the model, the machine.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/machines.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/experiment/option_names.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/run_folder.hpp>
#include <atmanrl/experiment/run_inputs.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/io/peft.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/tasks/task_folder.hpp>

#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

struct settled_options {
  experiment_options options;
  std::optional<lora_config> asked_adapters{};  ///< by options beside --adapter
};

/// \param keeps_blocks  whether the program's backend reads the blocks of quantised files
/// \throws usage_error for options that cannot be used
settled_options settled(experiment_options given, bool keeps_blocks);

namespace detail {

/// \param build  of the program
/// \throws comm::communication_error when ranks have other options or builds, or find other files
void check_ranks(experiment_options const& o, comm::any ranks, std::string_view build);

/// \param tokens  of the tokenizer
/// \throws usage_error when tokenizer, model and options do not fit each other
void check_model(experiment_options const& o, index_t tokens, model_config const& config);

/// \throws usage_error for targets that the model does not have, or options that contradict --adapter's folder
void check_adapter(settled_options const& s, std::vector<lora_matrix> const& matrices);

/// \param bytes    that a rank takes
/// \param m        what they are for; null where only the keys and values of sampling were counted
/// \param machine  bytes of memory that there are for the ranks of this machine; 0: not known
/// \throws usage_error when there are less, or when nobody has so many
void check_fits(experiment_options const& o, comm::any ranks, std::size_t bytes, memory_estimate const* m,
                std::size_t machine);

}  // namespace detail

#if ATMANRL_BODIES

namespace detail {

/// Rank, alpha and targets are those of --adapter's folder.
inline void adopt_adapter(settled_options& s) {
  experiment_options& o = s.options;
  lora_config const l = read_peft_config(o.adapter);
  expects<usage_error>(l.dropout == 0, "--adapter {}: lora_dropout is {}, but training here has none",
                       o.adapter.string(), l.dropout);
  if (o.lora_rank > 0) s.asked_adapters = o.lora();
  o.lora_rank = int(l.rank);
  o.lora_alpha = l.alpha;
  o.lora_targets = l.targets;
}

/// Chooses where the options leave it to the file.
/// \throws usage_error where packed cannot be
inline void settle_dtype(experiment_options& o, bool keeps_blocks) {
  bool const adapters = o.lora_rank > 0;
  if (o.dtype == weight_dtype::by_file)
    o.dtype = keeps_blocks && adapters && has_quantised_matrices(o.model) ? weight_dtype::packed : weight_dtype::f32;
  if (o.dtype != weight_dtype::packed) return;
  expects<usage_error>(keeps_blocks,
                       "--dtype packed: this backend does not read the blocks of quantised files, use f32");
  expects<usage_error>(adapters,
                       "--dtype packed: packed weights are not trained, adapters are: add --lora-rank, or use f32");
  expects<usage_error>(has_quantised_matrices(o.model), "--dtype packed: {} is no GGUF file with quantised matrices",
                       o.model.string());
}

}  // namespace detail

ATMANRL_INLINE settled_options settled(experiment_options given, bool keeps_blocks) {
  settled_options s{.options = std::move(given)};
  experiment_options& o = s.options;
  check_own_options(o);
  validate(o);
  check_input_path("--model", o.model);
  check_input_path("--data", o.data);
  check_input_path("--adapter", o.adapter);
  auto const settle = [](std::filesystem::path& p) {
    if (p.empty()) return;
    p = std::filesystem::absolute(p).lexically_normal();
    if (!p.has_filename()) p = p.parent_path();
  };
  if (!is_generated_task(o.task)) o.data = task_folder(o.task, o.data);
  for (auto* const path : {&o.model, &o.data, &o.adapter, &o.out, &o.resume}) settle(*path);
  if (!o.adapter.empty()) detail::adopt_adapter(s);
  if (o.resume.empty()) {
    detail::settle_dtype(o, keeps_blocks);
    check_fresh(o.out);
  } else {
    experiment_options const stored = stored_options(o.resume, o.own);
    if (o.dtype == weight_dtype::by_file) o.dtype = stored.dtype;
    detail::settle_dtype(o, keeps_blocks);
    expects<usage_error>(o.out.empty() || o.out == o.resume,
                         "--out {} contradicts --resume {}: a run goes on in its own folder", o.out.string(),
                         o.resume.string());
    check_same_run(stored, o, o.resume.string());
    o.out = o.resume;
  }
  return s;
}

ATMANRL_INLINE void detail::check_ranks(experiment_options const& o, comm::any ranks, std::string_view build) {
  if (ranks.size() == 1) return;
  std::string text, files;
  comm::all_or_none(ranks, [&] {
    json const all = options_to_json(o);
    json shared = options_of_checkpoint(o);
    for (auto const& [name, value] : all.items())
      if (detail::changes_no_bit(name)) shared[name] = value;  // but ranks must agree on it
    text = shared.dump();
    files = input_hashes(o).dump();
  });
  comm::expects_same_everywhere(ranks, "the program", fmt::format("{} {} {}", ATMANRL_VERSION, __VERSION__, build));
  comm::expects_same_everywhere(ranks, "the options", text);
  comm::expects_same_everywhere(ranks, "the hash of the files", files);
}

ATMANRL_INLINE void detail::check_model(experiment_options const& o, index_t tokens, model_config const& config) {
  expects<usage_error>(tokens <= config.vocab, "{}: the tokenizer has {} tokens but the model has {}", o.model.string(),
                       tokens, config.vocab);
  expects<usage_error>(o.mask.layers.empty() || o.mask.layers.back() < config.layers,
                       "--mask-layers names layer {}, but {} has {} layers, counted from 0",
                       o.mask.layers.empty() ? 0 : o.mask.layers.back(), o.model.string(), config.layers);
}

ATMANRL_INLINE void detail::check_adapter(settled_options const& s, std::vector<lora_matrix> const& matrices) {
  experiment_options const& o = s.options;
  lora_config const l = resolved(o.lora(), matrices, "--lora-targets");
  if (s.asked_adapters)
    expects<usage_error>(resolved(*s.asked_adapters, matrices, "--lora-targets") == l,
                         "--adapter {} has rank {}, alpha {} and targets {}: --lora-rank, --lora-alpha and "
                         "--lora-targets must not say something else",
                         o.adapter.string(), l.rank, l.alpha, lora_targets_text(l.targets));
}

ATMANRL_INLINE void detail::check_fits(experiment_options const& o, comm::any ranks, std::size_t bytes,
                                       memory_estimate const* m, std::size_t machine) {
  static constexpr std::size_t of_no_machine = std::size_t{1} << 50;
  machine = machine == 0 ? of_no_machine : machine / std::size_t(comm::ranks_of_machine(ranks).all);
  expects<usage_error>(
      bytes <= machine,
      "the run is estimated to take {} of memory{}, but there are {}: less is taken by fewer --prompts-per-step ({} "
      "now), a smaller --group-size ({}), --max-new-tokens ({}), --eval-samples ({}) or --activation-mib ({}), "
      "--kv-cache bf16 and --dtype bf16",
      format_bytes(bytes), m ? fmt::format(" ({})", described(m->by_use)) : " to sample alone", format_bytes(machine),
      o.prompts_per_step, o.group_size, o.max_new_tokens, o.eval_samples, o.activation_mib);
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
