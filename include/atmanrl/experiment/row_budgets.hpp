#pragma once

/// \file
/// How many rows packed passes may have within the options' memory for activations (--activation-mib). The split into
/// micro-batches is part of what a run computes, so this is a function of the model and the options alone, and not of
/// what a backend takes (experiment/memory.hpp).

#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/io/model_config.hpp>

#include <algorithm>

namespace atmanrl::inline ATMANRL_ABI {

struct row_budgets {
  index_t update, masks;
};

/// \param kept  the model's kept_numbers
row_budgets budgets_of(model_config const& c, index_t kept, experiment_options const& o);

/// The options with the row budget of masks that the model leaves them.
template <class Model>
experiment_options within_budgets(Model const& model, experiment_options o) {
  o.mask.row_budget = budgets_of(model.config(), Model::kept_numbers(model.config()), o).masks;
  o.mask.recompute = o.recompute;
  return o;
}

#if ATMANRL_BODIES

namespace detail {

/// a * b of numbers that are not negative, at most `most`: options may be any number.
constexpr index_t at_most(index_t most, index_t a, index_t b) {
  index_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? most : std::min(most, product);
}

/// Floats of a row that is only computed: residual stream, one layer, workspace.
inline index_t forward_row_floats(model_config const& c, index_t kept) { return 2 * c.hidden + kept + c.ffn; }

/// What a row that has a gradient takes beside that.
inline index_t gradient_row_floats(model_config const& c, index_t kept, bool recompute) {
  index_t const streams = 2 * c.hidden,
                backward = 2 * c.hidden + c.ffn + 2 * c.heads * c.head_dim + 2 * c.kv_heads * c.head_dim;
  if (recompute) return (c.layers + 1) * c.hidden + backward;
  return (c.layers - 1) * kept + c.layers * streams + backward;
}

/// Parameters of one mask per token of its chain of thought, all copies included; more than any memory holds at most.
inline index_t mask_parameters_per_token(model_config const& c, mask_options const& o, index_t cot) {
  static constexpr index_t most = index_t(1) << 44;
  index_t const triangle = cot % 2 == 0 ? at_most(most, cot / 2, cot + 1) : at_most(most, cot, (cot + 1) / 2);
  index_t const entries = o.shape == mask_shape::column || o.rows == mask_rows::answer_rows ? cot : triangle + cot;
  return at_most(most, entries, o.sites(c).copies()) / cot;
}

}  // namespace detail

ATMANRL_INLINE row_budgets budgets_of(model_config const& c, index_t kept, experiment_options const& o) {
  auto const rows = [&](index_t floats, index_t most) {
    return std::clamp<index_t>((index_t(o.activation_mib) << 20) / (index_t(sizeof(float)) * floats), 64, most);
  };
  index_t const cached = 2 * c.layers * c.kv_heads * c.head_dim / (o.kv_cache == kv_storage::bf16 ? 2 : 1);
  index_t const forward = detail::forward_row_floats(c, kept) + cached;
  index_t const gradient = detail::gradient_row_floats(c, kept, o.recompute);
  index_t const scored = 4 * c.hidden + 11;  // gathered, normed, their gradients, and a row's numbers
  // With answer_rows only the few rows after the chain of thought are kept; a quarter is more than they are.
  bool const all = o.mask.rows == mask_rows::all_later;
  // Pairs, and masks of their own for layers and heads, can take more than the activations do: value, gradient, two
  // moments, a gradient for each key-value head, and that of the sparsity term.
  index_t const of_parameter = 4 + (o.mask.sparsity > 0) + c.kv_heads;
  index_t const masks = forward + (all ? gradient : gradient / 4) +
                        detail::mask_parameters_per_token(c, o.mask, o.max_new_tokens) * of_parameter;
  return {.update = rows(forward + gradient + scored, 4096), .masks = rows(masks, 16384)};
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
