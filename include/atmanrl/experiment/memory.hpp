#pragma once

/// \file
/// How much memory a run will take, before it takes it: weights, master weights with gradient and moments, and the
/// largest of sampling, mask training and update. An upper bound in so far as every completion is as long as allowed.

#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/ops/log_prob.hpp>
#include <atmanrl/ops/matmul.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>

namespace atmanrl {

/// Bytes.
struct memory_estimate {
  std::size_t weights = 0;    ///< as the backend keeps them, adapters included
  std::size_t optimizer = 0;  ///< master weights, gradient, two moments of what is trained
  std::size_t sampling = 0;   ///< keys and values, prefill, logits
  std::size_t saliency = 0;   ///< keys and values, activations of one packed batch, masks
  std::size_t update = 0;     ///< keys and values, activations of one micro-batch

  std::size_t peak() const { return weights + optimizer + std::max({sampling, saliency, update}); }
};

/// What an estimate needs to know of the data.
struct run_shape {
  index_t longest_prompt = 0;  ///< tokens
  index_t label_tokens = 8;    ///< delimiter and true answer, about
};

namespace detail {

/// Floats that one row of a pass takes.
struct row_floats {
  index_t forward, kept, head, cache;
};

inline row_floats floats_per_row(model_config const& c) {
  index_t const q = c.heads * c.head_dim, qkv = (c.heads + 2 * c.kv_heads) * c.head_dim;
  index_t const layer = qkv + q + c.heads + 2 + 2 * c.ffn;  // layer_activations but for the two residual streams
  return {.forward = c.hidden + layer + c.hidden + c.ffn,   // residual stream, one layer, workspace
          .kept = 2 * c.hidden + c.layers * (layer + 2 * c.hidden) + 2 * c.hidden + 2 * c.ffn + q + qkv,
          .head = 4 * c.hidden + 10,
          .cache = 2 * c.layers * c.kv_heads * c.head_dim};
}

/// Separate H of a mask: one, or one for each layer (and head) that sees it.
inline index_t mask_copies(model_config const& c, mask_options const& o) {
  return mask_edit{.sharing = o.sharing, .layers = o.layers, .model_layers = c.layers, .heads = c.heads}.copies();
}

/// Parameters of one mask, all copies included.
inline index_t mask_parameters(model_config const& c, mask_options const& o, index_t cot, index_t label_tokens) {
  index_t const entries = o.shape == mask_shape::column          ? cot
                          : o.rows == mask_rows::answer_rows ? cot * label_tokens
                                                             : cot * (cot + 1) / 2 + cot * label_tokens;
  return entries * mask_copies(c, o);
}

/// Floats that one parameter of a mask takes: value, gradient, two moments, gradient per head, two copies on the host.
inline index_t floats_per_mask_parameter(model_config const& c) { return 6 + c.kv_heads; }

/// Scratch of the fused head: a block of logits, in the backward pass with its transposed panels.
inline std::size_t head_scratch_bytes() { return sizeof(float) * std::size_t(log_prob_row_block * vocabulary_chunk); }

}  // namespace detail

/// Rows that packed passes may have within the options' memory for activations. A function of the model and the options
/// alone, because the split into micro-batches is part of what a run computes.
struct row_budgets {
  index_t update, masks;
};

inline row_budgets budgets_of(model_config const& c, experiment_options const& o) {
  detail::row_floats const f = detail::floats_per_row(c);
  auto const rows = [&](index_t floats, index_t most) {
    return std::clamp<index_t>((index_t(o.activation_mib) << 20) / (index_t(sizeof(float)) * floats), 64, most);
  };
  // With answer_rows only the few rows behind the chain of thought are kept; a quarter is more than they are.
  bool const all = o.mask.rows == mask_rows::all_later;
  // Pairs, and masks of their own for layers and heads, can take more than the activations do.
  index_t const parameters = detail::mask_parameters(c, o.mask, o.max_new_tokens, 1) / o.max_new_tokens;
  index_t const masks = f.forward + f.cache + (all ? f.kept : f.kept / 4) + parameters * detail::floats_per_mask_parameter(c);
  return {.update = rows(f.kept + f.head + f.cache, 4096), .masks = rows(masks, 16384)};
}

/// \tparam B  backend
/// \tparam W  storage of the matrices
template <class B, class W>
memory_estimate estimate_memory(model_config const& c, experiment_options const& o, run_shape const& shape) {
  using detail::floats_per_row;
  static constexpr std::size_t real = sizeof(float);
  memory_estimate m;
  auto const matrix = [&](index_t outputs, index_t inputs) {
    m.weights += sizeof(W) * std::size_t(kernels::matmul<B>::template storage_size<W>(outputs, inputs));
  };
  matrix(c.vocab, c.hidden);
  if (!c.tied_head) matrix(c.vocab, c.hidden);
  for (index_t l = 0; l < c.layers; ++l) {
    matrix((c.heads + 2 * c.kv_heads) * c.head_dim, c.hidden);
    matrix(c.hidden, c.heads * c.head_dim);
    matrix(2 * c.ffn, c.hidden);
    matrix(c.hidden, c.ffn);
    m.weights += real * std::size_t(2 * c.hidden);
  }
  m.weights += real * std::size_t(c.hidden);
  index_t lora_floats = 0;  // per row, of the adapters' products
  if (o.lora_rank > 0) {
    // The adapters of a fused matrix are packed together: A stacked, B block-diagonal.
    using enum lora_target;
    for (auto const& [first, last] : {std::pair{q_proj, v_proj}, std::pair{o_proj, o_proj}, std::pair{gate_proj, up_proj},
                                      std::pair{down_proj, down_proj}}) {
      index_t outputs = 0, inputs = 0, rank = 0, largest = 0;
      for (int t = int(first); t <= int(last); ++t) {
        lora_matrix const each = lora_matrix_of(c, lora_target(t));
        if (o.lora().has(lora_target(t))) {
          rank += o.lora_rank;
          if (first != last) largest = std::max(largest, each.outputs);
        }
        outputs += each.outputs;
        inputs = each.inputs;
      }
      if (rank == 0) continue;
      m.weights += real * std::size_t(c.layers) * std::size_t(kernels::matmul<B>::template storage_size<float>(rank, inputs) +
                                                              kernels::matmul<B>::template storage_size<float>(outputs, rank));
      lora_floats = std::max(lora_floats, 3 * rank + largest);
    }
  }
  if (o.beta > 0 && o.lora_rank == 0) m.weights *= 2;  // the reference model
  m.optimizer = 4 * real * std::size_t((o.lora_rank > 0 ? parameter_layout(c, o.lora()) : parameter_layout(c)).size());

  detail::row_floats const f = floats_per_row(c);
  auto const floats = [](index_t rows, index_t each) { return real * std::size_t(rows) * std::size_t(each); };
  index_t const positions = std::max<index_t>(1, c.max_positions - shape.longest_prompt);
  index_t const completion = std::min<index_t>(o.max_new_tokens, positions);
  index_t const prompts = o.prompts_per_step * shape.longest_prompt, rollouts = index_t(o.prompts_per_step) * o.group_size;
  row_budgets const budget = budgets_of(c, o);

  // The logits of a decoding step stand in the backend's memory and once more where the tokens are drawn.
  m.sampling = floats(prompts + rollouts * completion, f.cache) + floats(std::max(prompts, rollouts), f.forward) + 2 * floats(rollouts, c.vocab);

  index_t const masked = std::min<index_t>(rollouts, std::max<index_t>(1, budget.masks / (completion + shape.label_tokens)));
  index_t const tail = o.mask.rows == mask_rows::answer_rows ? shape.label_tokens : completion + shape.label_tokens;
  index_t const fixed = std::max(prompts, o.mask.rows == mask_rows::answer_rows ? masked * completion : 0);
  index_t const parameters = masked * detail::mask_parameters(c, o.mask, completion, shape.label_tokens);
  // A divergence holds the logits of the scored rows on the device, on the host, and once more as the unmasked model's.
  index_t const logits = o.mask.objective == mask_objective::kl_to_unmasked ? 3 * c.vocab : 0;
  m.saliency = floats(prompts + masked * (completion + shape.label_tokens), f.cache) +
               std::max(floats(fixed, f.forward), floats(masked * tail, f.kept)) + floats(masked * shape.label_tokens, f.head + logits) +
               floats(parameters, detail::floats_per_mask_parameter(c)) + detail::head_scratch_bytes();

  index_t const rows = std::min(budget.update, prompts + rollouts * completion);
  m.update = floats(rows, f.kept + f.cache + f.head + lora_floats) + detail::head_scratch_bytes();
  return m;
}

/// Largest resident memory of this process so far, in bytes; 0 where the system does not say.
inline std::size_t peak_process_bytes() {
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

/// "1.50 GiB", "12.3 MiB".
inline std::string format_bytes(std::size_t bytes) {
  double const mib = double(bytes) / double(1 << 20);
  return mib >= 1024 ? fmt::format("{:.2f} GiB", mib / 1024) : fmt::format("{:.1f} MiB", mib);
}

}  // namespace atmanrl
