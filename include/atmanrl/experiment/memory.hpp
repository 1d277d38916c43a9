#pragma once

/// \file
/// How much memory a run will take, before it takes it. Sampling, mask training, updates, evaluation and validation
/// share one cache and one set of activations (nn/workspace.hpp), so a buffer is as large as the largest of them makes
/// it.

#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/comm/leaf_tree.hpp>
#include <atmanrl/comm/shares.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/experiment/evaluate.hpp>
#include <atmanrl/experiment/machine_memory.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/nn/gradient_stretches.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/ops/attention.hpp>
#include <atmanrl/ops/log_prob.hpp>
#include <atmanrl/ops/matmul.hpp>
#include <atmanrl/optim/gradient_memory.hpp>
#include <atmanrl/optim/gradient_sum.hpp>
#include <atmanrl/optim/slice_gather.hpp>
#include <atmanrl/rl/observers/causality.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace atmanrl {

/// Bytes. What is more than any machine has is some such number.
struct memory_estimate {
  std::size_t weights = 0;      ///< as the backend keeps them, adapters and a reference model included
  std::size_t optimizer = 0;    ///< master weights and gradient of what is trained, the optimizer's moments
  std::size_t cache = 0;        ///< keys and values
  std::size_t activations = 0;  ///< of one forward and backward pass
  std::size_t head = 0;         ///< scored rows and logits
  std::size_t masks = 0;        ///< H, its gradient and moments
  std::size_t scratch = 0;      ///< of the backend's kernels

  std::size_t peak() const { return weights + optimizer + cache + activations + head + masks + scratch; }
};

/// What an estimate needs to know of the data, in tokens.
struct run_shape {
  index_t longest_prompt = 0;
  index_t mean_prompt = 0;      ///< 0: all are as long as the longest
  index_t mean_completion = 0;  ///< that of the reference solutions; 0: all run to max_new_tokens
  index_t label_tokens = 8;     ///< longest delimiter and true answer
};

namespace detail {

/// More rows, or bytes, than any memory holds. Options may be any number; their products must not leave 64 bits.
inline constexpr index_t countless = index_t(1) << 34;

/// a * b of numbers that are not negative, at most `most`.
constexpr index_t at_most(index_t most, index_t a, index_t b) {
  index_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? most : std::min(most, product);
}

/// Floats of a row of the cache.
inline index_t cache_row_floats(model_config const& c) { return 2 * c.layers * c.kv_heads * c.head_dim; }

/// Floats of a row that is only computed: residual stream, one layer, workspace.
/// \param kept  the model's kept_numbers
inline index_t forward_row_floats(model_config const& c, index_t kept) { return 2 * c.hidden + kept + c.ffn; }

/// What a row that has a gradient takes beside that.
inline index_t gradient_row_floats(model_config const& c, index_t kept, bool recompute) {
  index_t const streams = 2 * c.hidden,
                backward = 2 * c.hidden + c.ffn + 2 * c.heads * c.head_dim + 2 * c.kv_heads * c.head_dim;
  if (recompute) return (c.layers + 1) * c.hidden + backward;
  return (c.layers - 1) * kept + c.layers * streams + backward;
}

/// Floats of a scored row: gathered, normed, their gradients, and its numbers.
inline index_t scored_row_floats(model_config const& c) { return 4 * c.hidden + 11; }

/// Separate H of a mask: one, or one for each layer (and head) that sees it.
inline index_t mask_copies(model_config const& c, mask_options const& o) { return o.sites(c).copies(); }

/// Parameters of one mask, all copies included.
inline index_t mask_parameters(model_config const& c, mask_options const& o, index_t cot, index_t label_tokens) {
  static constexpr index_t most = index_t(1) << 44;
  index_t const triangle = cot % 2 == 0 ? at_most(most, cot / 2, cot + 1) : at_most(most, cot, (cot + 1) / 2);
  index_t const entries = o.shape == mask_shape::column      ? cot
                          : o.rows == mask_rows::answer_rows ? at_most(most, cot, label_tokens)
                                                             : triangle + at_most(most, cot, label_tokens);
  return at_most(most, entries, mask_copies(c, o));
}

/// Floats that one parameter of a mask takes: value, gradient, two moments, gradient per head, the sparsity term's.
inline index_t floats_per_mask_parameter(model_config const& c, mask_options const& o) {
  return 4 + (o.sparsity > 0) + c.kv_heads;
}

}  // namespace detail

/// Rows that packed passes may have within the options' memory for activations. A function of the model and the options
/// alone, because the split into micro-batches is part of what a run computes.
struct row_budgets {
  index_t update, masks;
};

/// \param kept  the model's kept_numbers
row_budgets budgets_of(model_config const& c, index_t kept, experiment_options const& o);

/// What a run trains: the adapters, or all.
template <class Model>
parameter_layout trained_layout(model_config const& c, experiment_options const& o) {
  architecture const& kind = Model::kind_of(c);
  return o.lora_rank > 0 ? parameter_layout(c, kind, o.lora()) : parameter_layout(c, kind);
}

/// The type in which a model's file holds the matrix of a name; empty where matrices do not stay blocks.
using matrix_types = std::function<gguf_type(std::string_view)>;

/// What each of so many ranks takes at most.
/// \param types  of a packed model's matrices
template <class Model>
memory_estimate estimate_memory(model_config const& c, experiment_options const& o, run_shape const& shape,
                                int ranks = 1, matrix_types const& types = {}) {
  using B = typename Model::backend_type;
  using W = typename Model::weight_type;
  static constexpr std::size_t real = sizeof(float);
  architecture const& kind = Model::kind_of(c);
  index_t const kept = Model::kept_numbers(c);
  memory_estimate m;
  auto const rows_of_matrix = [&](std::string_view name, index_t rows) -> typed_rows {
    return {rows, types ? types(name) : gguf_type::f32};
  };
  auto const matrix = [&](std::vector<typed_rows> const& rows, index_t inputs) {
    m.weights += weight<B, W>::bytes(rows, inputs);
  };
  matrix({rows_of_matrix(embedding_name, c.vocab)}, c.hidden);
  if (!c.tied_head) matrix({rows_of_matrix(head_name, c.vocab)}, c.hidden);
  for (index_t l = 0; l < c.layers; ++l) {
    std::array<std::vector<typed_rows>, linear_slots> rows{};
    std::array<index_t, linear_slots> inputs{};
    for (parameter_spec const& p : kind.layer_parameters(c, l)) {
      if (p.is_vector())
        m.weights += real * std::size_t(p.columns);
      else
        rows[std::size_t(p.linear)].push_back(rows_of_matrix(layer_parameter_name(l, p), p.rows)),
            inputs[std::size_t(p.linear)] = p.columns;
    }
    for (std::size_t slot = 0; slot < linear_slots; ++slot) matrix(rows[slot], inputs[slot]);
  }
  m.weights += real * std::size_t(c.hidden);
  index_t lora_low = 0, lora_backward = 0,
          lora_rows = 0;  // floats per row of a pass, and per update, of the adapters' products
  if (o.lora_rank > 0) {
    // The adapters of a fused matrix are packed together: A stacked, B block-diagonal.
    auto const matrices = lora_matrices(c, kind);
    for (int slot = 0; slot < linear_slots; ++slot) {
      index_t outputs = 0, inputs = 0, rank = 0, largest = 0, tallest = 0;
      for (lora_matrix const& each : matrices) {
        if (int(each.linear) != slot) continue;
        outputs += each.outputs;
        inputs = each.inputs;
        if (!o.lora().has(each.name())) continue;
        rank += o.lora_rank;
        tallest = std::max(tallest, each.outputs);
      }
      if (tallest < outputs) largest = tallest;  // several matrices in one: their columns are copied out
      if (rank == 0) continue;
      m.weights += real * std::size_t(c.layers) *
                   std::size_t(kernels::matmul<B>::template storage_size<float>(rank, inputs) +
                               kernels::matmul<B>::template storage_size<float>(outputs, rank));
      lora_low = std::max(lora_low, rank);
      lora_backward = std::max(lora_backward, rank + (largest > 0 ? o.lora_rank + largest : 0));
      lora_rows = std::max(lora_rows, tallest * rank);
    }
    m.weights += real * std::size_t(lora_rows);
  }
  if (o.beta > 0 && o.lora_rank == 0) m.weights *= 2;  // the reference model
  // Master weights, gradient, and what the optimizer keeps; one of a program's own counts as AdamW.
  parameter_layout const layout = trained_layout<Model>(c, o);
  auto const shapes = optim::shapes_of(layout);
  optim::any const optimizer = optim::by_name(o.optimizer, o.optimizer_settings);
  // The first rank has the largest share of everything.
  bool const is_sliced = ranks > 1 && optimizer.is_elementwise();
  auto const parameters_of_rank =
      is_sliced ? index_t(comm::slice_of(std::size_t(layout.size()), ranks, 0).count) : layout.size();
  index_t const groups = index_t(comm::share_of(std::size_t(o.prompts_per_step), ranks, 0).count);
  std::size_t waiting = 0, nodes = 0;  // sums of gradients of groups
  for (int r = 0; r < ranks && (ranks > 1 || o.prompts_per_step > 1); ++r) {
    auto const leaves = std::min<std::size_t>(std::size_t(o.prompts_per_step), 1u << 16);
    waiting = std::max(waiting, comm::most_waiting(leaves, comm::share_of(leaves, ranks, r)));
    if (ranks > 1) nodes += comm::whole_nodes(leaves, comm::share_of(leaves, ranks, r)).size();
  }
  index_t const piece = std::min(parameters_of_rank, index_t(gradient_sum<B, float>::default_piece));
  auto const all = std::size_t(layout.size());
  bool const dealt = ranks > 1 && o.gradient.kept != gradient_memory::whole,
             layers = dealt && o.gradient.kept == gradient_memory::layers;
  std::size_t gradient = (1 + waiting) * all + nodes * std::size_t(piece);
  if (dealt) {
    auto const held = elements_of_dealt_sums(std::min<std::size_t>(std::size_t(o.prompts_per_step), 1u << 16), all,
                                             ranks, layers ? most_open_elements(layout) : all, o.gradient.sums_on_host);
    gradient = held.all() + (HostBackend<B> ? held.on_host : 0);
  }
  m.optimizer =
      real * (gradient + std::size_t(parameters_of_rank + optimizer.state_size({parameters_of_rank, shapes})));
  if (is_sliced && o.lora_rank == 0 && std::is_same_v<W, bf16>)  // new weights on their way
    m.optimizer += slice_gather<B, float>::packed_bytes(std::size_t(layout.size()), ranks);

  auto const product = [](index_t a, index_t b) { return detail::at_most(detail::countless, a, b); };
  auto const floats = [](index_t rows, index_t each) {
    return real * std::size_t(detail::at_most(index_t(1) << 56, rows, each));
  };
  index_t const positions = std::max<index_t>(1, c.max_positions - shape.longest_prompt);
  index_t const room = std::min<index_t>(o.max_new_tokens, positions);
  index_t const completion = shape.mean_completion > 0 ? std::min(shape.mean_completion, room) : room;
  index_t const prompt = shape.mean_prompt > 0 ? shape.mean_prompt : shape.longest_prompt;
  index_t const rollouts = product(groups, o.group_size), prompts = product(groups, prompt);
  row_budgets const budget = budgets_of(c, kept, o);
  bool const answer_rows = o.mask.rows == mask_rows::answer_rows;

  // The largest of the uses makes a buffer as large as it is: rows in the cache, rows that are computed, rows that are
  // kept for a backward pass, scored rows with and without one, and rows whose logits are all there.
  struct {
    index_t cached = 0, computed = 0, kept = 0, scored = 0, scored_back = 0, logits = 0;
  } most;
  auto const use = [](index_t& largest, index_t rows) {
    largest = std::max(largest, std::min(rows, detail::countless));
  };
  // Sampling makes room for the longest completions, whatever comes.
  use(most.cached, prompts + product(rollouts, room));
  use(most.computed, std::max(prompts, rollouts));
  use(most.logits, std::max<index_t>(groups, rollouts));
  if (o.eval_questions > 0) {
    index_t const questions = std::min<index_t>(
        o.eval_questions, questions_per_batch(c, shape.longest_prompt, o.eval_samples, o.max_new_tokens,
                                              std::size_t(o.activation_mib) << 20, real));
    use(most.cached, product(questions, prompt + product(o.eval_samples, room)));
    use(most.computed, std::max(product(questions, prompt), product(questions, o.eval_samples)));
    use(most.logits, product(questions, o.eval_samples));
  }
  use(most.scored, most.logits);

  index_t const of_group = product(o.group_size, completion);
  index_t const update = std::min(budget.update, prompt + of_group);  // groups are learned from one by one
  if (HostBackend<B> && layers && update < prompt + of_group) m.optimizer += real * all;  // between its passes
  use(most.cached, update);
  use(most.computed, update);
  use(most.kept, update);
  use(most.scored_back, std::min(update, of_group));
  // A reference, by which groups are scored together; the model itself where it has adapters.
  index_t const frozen = std::min(budget.update, prompts + product(rollouts, completion));
  if (o.beta > 0 && o.lora_rank > 0) {
    use(most.cached, frozen);
    use(most.computed, frozen);
    use(most.scored, std::min(frozen, product(rollouts, completion)));
  }

  index_t const masked =
      std::min<index_t>(rollouts, std::max<index_t>(1, budget.masks / (completion + shape.label_tokens)));
  index_t const tail = masked * (answer_rows ? shape.label_tokens : completion + shape.label_tokens);
  use(most.cached, prompts + masked * (completion + shape.label_tokens));
  use(most.computed, std::max({prompts, answer_rows ? masked * completion : 0, tail}));
  use(most.kept, tail);
  use(most.scored_back, masked * shape.label_tokens);
  index_t const parameters =
      detail::at_most(index_t(1) << 56, masked, detail::mask_parameters(c, o.mask, completion, shape.label_tokens));
  m.masks = floats(parameters, detail::floats_per_mask_parameter(c, o.mask));

  if (o.validate_every > 0) {
    // Each of a few rollouts once for every token of its chain of thought, which is left out.
    index_t const validated = std::min<index_t>(rollouts, observers::causality_options{}.rollouts),
                  variants = validated * completion;
    index_t const computed = std::min(budget.masks, variants * shape.label_tokens);
    use(most.cached, validated * (prompt + completion) + computed);
    use(most.computed, computed);
    use(most.scored, computed / 2);
  }
  use(most.scored, most.scored_back);

  index_t const most_cached = (index_t(1) << 58) / detail::cache_row_floats(c);
  m.cache = kv_cache<B, float>::bytes(c, std::min(most.cached, most_cached), o.kv_cache);
  m.activations = floats(most.computed, detail::forward_row_floats(c, kept) + lora_low) +
                  floats(most.kept, detail::gradient_row_floats(c, kept, o.recompute) + lora_backward);
  if (o.beta > 0 && o.lora_rank == 0) {
    // The reference model scores rollouts in memory of its own.
    m.cache += kv_cache<B, float>::bytes(c, frozen, o.kv_cache);
    m.activations += floats(frozen, detail::forward_row_floats(c, kept) + 2 * c.hidden + 9);
  }
  // An objective over distributions holds the logits of all scored rows of the masks.
  index_t const divergence = o.mask.objective.needs_logits ? masked * shape.label_tokens : 0;
  constexpr logit_blocks blocks = logit_blocks_of<B>();
  m.head = floats(most.scored, 2 * c.hidden + 9) + floats(most.scored_back, 2 * c.hidden + 2) +
           floats(most.logits + divergence, c.vocab) +
           floats(std::min(most.scored, blocks.rows), std::min(c.vocab, blocks.ids));
  if constexpr (requires { kernels::matmul<B>::template scratch_bytes<W>(index_t{}, index_t{}); }) {
    // One scratch for all kernels, as large as the largest of them makes it: rounded factors, attention's parts.
    auto const rounded = [&](index_t rows, index_t columns) {
      m.scratch = std::max(m.scratch, kernels::matmul<B>::template scratch_bytes<W>(rows, columns));
    };
    index_t const queries = c.heads * c.head_dim;
    rounded(most.computed, std::max({c.hidden, queries, c.ffn}));
    rounded(most.kept, std::max({c.hidden, queries + 2 * c.kv_heads * c.head_dim, 2 * c.ffn}));
    rounded(std::min(most.scored_back, blocks.rows), std::min(c.vocab, blocks.ids));
    if (o.bf16_weight_gradients.value_or(o.dtype == weight_dtype::bf16)) {
      auto const both_rounded = [&](index_t rows, index_t outputs, index_t inputs) {
        m.scratch = std::max(m.scratch, kernels::matmul<B>::gradient_scratch_bytes(rows, outputs, inputs));
      };
      if (o.lora_rank > 0) {  // one side of an adapter's matrix is the rank, of at most three that share an input
        both_rounded(update, std::max({c.ffn, c.hidden, queries}), 3 * o.lora_rank);
      } else {
        both_rounded(update, std::max(2 * c.ffn, queries + 2 * c.kv_heads * c.head_dim), c.hidden);
        both_rounded(std::min(most.scored_back, blocks.rows), std::min(c.vocab, blocks.ids), c.hidden);
      }
    }
    attention_extents const e{
        .heads = c.heads, .kv_heads = c.kv_heads, .head_dim = c.head_dim, .bf16_weights = std::is_same_v<W, bf16>};
    auto const attended = [&](attention_pass_size const& pass, bool backward) {
      m.scratch = std::max(m.scratch, kernels::attention<B>::scratch_bytes(e, pass, backward));
    };
    attended({.rows = most.logits, .sequences = most.logits, .most_rows = 1, .longest = shape.longest_prompt + room},
             false);
    index_t const viewers = std::min<index_t>(o.group_size, std::max<index_t>(update - prompt, 0) / completion + 1);
    attended({.rows = update,
              .sequences = viewers + 1,
              .most_rows = std::max(prompt, completion),
              .longest = prompt + completion,
              .longest_root = prompt,
              .root_viewers = viewers + 1},
             true);
    attended({.rows = tail,
              .sequences = masked,
              .most_rows = tail / masked,
              .longest = shape.longest_prompt + completion + shape.label_tokens},
             true);
    m.scratch += kernels::matmul<B>::workspace_bytes();
  } else if constexpr (requires { kernels::matmul<B>::scratch_bytes(index_t{}, index_t{}, index_t{}, 0); }) {
    m.scratch = kernels::matmul<B>::scratch_bytes(most.kept, std::max(2 * c.ffn, std::min(c.vocab, blocks.ids)),
                                                  std::max(c.ffn, c.hidden),
                                                  o.threads > 0 ? o.threads : int(std::thread::hardware_concurrency()));
  }
  return m;
}

/// What the evaluation's questions and those of the first steps look like, for `estimate_memory` and to know of a
/// prompt that is too long before anything is written.
/// \throws usage_error naming the item whose prompt leaves no room
template <Task K, Tokenizer Z>
run_shape shape_of(K const& task, Z const& words, model_config const& c, experiment_options const& o) {
  static constexpr index_t looked_at = 1000;
  run_shape shape{.label_tokens = 0};
  index_t prompts = 0, prompt_tokens = 0, solutions = 0, solution_tokens = 0;
  auto const look_at = [&](task_item const& item) {
    index_t const prompt = index_t(task.prompt(item, words).size());
    expects<usage_error>(prompt > 0 && prompt < c.max_positions,
                         "the prompt of {} has {} tokens, which leaves no room: the model's limit is {}", item.id,
                         prompt, c.max_positions);
    shape.longest_prompt = std::max(shape.longest_prompt, prompt);
    shape.label_tokens =
        std::max(shape.label_tokens, index_t(words.encode(delimiter_text(task) + task.answer_text(item)).size()));
    ++prompts;
    prompt_tokens += prompt;
    if (item.solution.empty()) return;
    ++solutions;
    solution_tokens += index_t(words.encode(item.solution).size()) + 1;  // and the token that ends it
  };
  for (index_t i = 0; i < std::min<index_t>(o.eval_questions, task.evaluation_size()); ++i)
    look_at(task.evaluation_item(i));
  for (index_t i = 0; i < std::min(looked_at, index_t(o.steps) * o.prompts_per_step); ++i)
    look_at(task.training_item(o.seed, std::uint64_t(i)));
  shape.mean_prompt = (prompt_tokens + prompts - 1) / std::max<index_t>(prompts, 1);
  if (c.stop_ids.empty()) return shape;  // nothing ends a completion
  shape.mean_completion = (solution_tokens + solutions - 1) / std::max<index_t>(solutions, 1);
  return shape;
}

/// Largest resident memory of this process so far, in bytes; 0 where the system does not say.
std::size_t peak_process_bytes();

/// "1.50 GiB", "12.3 MiB".
std::string format_bytes(std::size_t bytes);

#if ATMANRL_BODIES

ATMANRL_INLINE row_budgets budgets_of(model_config const& c, index_t kept, experiment_options const& o) {
  auto const rows = [&](index_t floats, index_t most) {
    return std::clamp<index_t>((index_t(o.activation_mib) << 20) / (index_t(sizeof(float)) * floats), 64, most);
  };
  index_t const forward =
      detail::forward_row_floats(c, kept) + detail::cache_row_floats(c) / (o.kv_cache == kv_storage::bf16 ? 2 : 1);
  index_t const gradient = detail::gradient_row_floats(c, kept, o.recompute);
  // With answer_rows only the few rows behind the chain of thought are kept; a quarter is more than they are.
  bool const all = o.mask.rows == mask_rows::all_later;
  // Pairs, and masks of their own for layers and heads, can take more than the activations do.
  index_t const parameters = detail::mask_parameters(c, o.mask, o.max_new_tokens, 1) / o.max_new_tokens;
  index_t const masks =
      forward + (all ? gradient : gradient / 4) + parameters * detail::floats_per_mask_parameter(c, o.mask);
  return {.update = rows(forward + gradient + detail::scored_row_floats(c), 4096), .masks = rows(masks, 16384)};
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

}  // namespace atmanrl
