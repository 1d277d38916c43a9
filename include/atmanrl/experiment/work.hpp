#pragma once

/// \file
/// How much a step of the method asks of a machine: operations and bytes of prefill, decoding, mask training and policy
/// update, as formulas of the model's block, its shape and the step's, and the seconds below which no machine of given
/// limits can do it (the roofline of Williams, Waterman & Patterson 2009). The test counts the library's own calls and
/// finds the same.
///
/// What a layer is made of follows from its block (`detail::describe_layer`); what a part of a block does follows from
/// `part_work` (experiment/part_work.hpp). Adapters are not counted.
///
/// An operation is one addition, multiplication, comparison, division, exponential, hyperbolic tangent or root. An edit
/// of a score is four operations forwards and six backwards. Bytes are every operand once per call of a kernel and
/// every result once, a result that is added to twice: the least that a kernel can move. Calls are those of a GPU
/// (`device_logit_blocks`), where a product's factors are stored as its weights are (factor_t) and are written by the
/// kernels that compute them; where no such kernel writes one, there is a pass that rounds it.

#include <atmanrl/attention/placed_mask.hpp>
#include <atmanrl/experiment/part_work.hpp>
#include <atmanrl/io/architecture.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/nn/blocks.hpp>
#include <atmanrl/ops/log_prob.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

namespace atmanrl {

/// Products with weights, the products that are weights' gradients, attention, and all that goes over an array once.
enum class work_kind { products, weight_gradients, attention, rest };

struct phase_work {
  work products, weight_gradients, attention, rest;

  work& of(work_kind k) {
    switch (k) {
      case work_kind::products:
        return products;
      case work_kind::weight_gradients:
        return weight_gradients;
      case work_kind::attention:
        return attention;
      default:
        return rest;
    }
  }
  work all() const { return products + weight_gradients + attention + rest; }
  friend phase_work operator+(phase_work const& a, phase_work const& b) {
    return {a.products + b.products, a.weight_gradients + b.weight_gradients, a.attention + b.attention,
            a.rest + b.rest};
  }
  friend phase_work operator*(double n, phase_work const& p) {
    return {n * p.products, n * p.weight_gradients, n * p.attention, n * p.rest};
  }
};

/// Printed limits of one GPU; the defaults are those of an H100 SXM.
struct machine_limits {
  double products = 989e12;         ///< operations per second of the matrix units, bf16 factors and float sums, dense
  double weight_gradients = 67e12;  ///< of products of two float matrices; float by default, as cuda_options has it
  double arithmetic = 67e12;        ///< float operations per second of the ordinary units, attention's included
  double bandwidth = 3.35e12;       ///< bytes per second of its memory

  double rate(work_kind k) const {
    return k == work_kind::products ? products : k == work_kind::weight_gradients ? weight_gradients : arithmetic;
  }
  /// Seconds that this work takes at least.
  double floor(work_kind k, work const& w) const { return std::max(w.operations / rate(k), w.bytes / bandwidth); }
};

/// What a step is made of. Rollouts of a prompt share its rows; all completions have the same length.
struct step_shape {
  index_t prompts = 1, group = 8;
  index_t prompt = 200, completion = 400;        ///< tokens
  index_t cot = 392, delimiter = 2, answer = 5;  ///< tokens of a mask's item
  mask_shape shape = mask_shape::pair;
  mask_rows rows = mask_rows::all_later;
  index_t mask_steps = 200, passes = 2;
  index_t row_budget = 4096;                                   ///< rows of one pass of the update
  double weight_bytes = 2, scalar_bytes = 4, cache_bytes = 4;  ///< per element: weights, activations, keys and values

  index_t rollouts() const { return prompts * group; }
};

namespace detail {

/// How many edits every score goes through that a model has of its own. A window hides keys, but no kernel skips them.
template <class Edit>
inline constexpr int edits_of_scores = 1;
template <>
inline constexpr int edits_of_scores<attention::none> = 0;
template <class A, class B>
inline constexpr int edits_of_scores<attention::compose<A, B>> = edits_of_scores<A> + edits_of_scores<B>;

/// Rows that go through the layers together.
struct rows_shape {
  double rows = 0;
  double fresh = 0, cached = 0;  ///< (query, key) pairs with keys of the same call and of earlier ones
  double keys = 0;               ///< different keys that are read
  double scored = 0;             ///< rows that reach the head
  double edits = 0;              ///< pairs whose score the mask changes
  double parameters = 0;         ///< of the masks
};

/// Pairs that `rows` rows of one sequence make with each other.
inline double triangle(double rows) { return rows * (rows + 1) / 2; }

/// \tparam Block  of the model
template <TransformerBlock Block>
class work_formulas {
  using norm = part_work<typename Block::norm>;
  using activation = part_work<typename Block::activation>;
  using residual = typename Block::residual;
  static constexpr bool before_attention = bool(residual::attention_before),
                        after_attention = bool(residual::attention_after), before_ffn = bool(residual::ffn_before),
                        after_ffn = bool(residual::ffn_after);

 public:
  /// \throws usage_error when the numbers are those of a model of another kind than the block's
  work_formulas(model_config const& c, step_shape const& s)
      : config_(c),
        w_(s.weight_bytes),
        f_(s.weight_bytes),
        t_(s.scalar_bytes),
        k_(s.cache_bytes),
        hidden_(double(c.hidden)),
        heads_(double(c.heads)),
        kv_(double(c.kv_heads)),
        dim_(double(c.head_dim)),
        vocab_(double(c.vocab)),
        q_(heads_ * dim_) {
    find_architecture(architectures_of<Block>(), c.architecture);
    matrices_ = (c.tied_head ? 1 : 2) * vocab_ * hidden_;
    vectors_ = hidden_;
    for (index_t l = 0; l < c.layers; ++l) {
      auto const parameters = describe_layer<Block>(c, l).parameters;
      for (parameter_spec const& p : parameters) (p.is_vector() ? vectors_ : matrices_) += double(p.size());
      layers_.push_back(linear_shapes(parameters));
    }
  }

  /// Embedding and layers, upwards.
  /// \param keep  whether the activations that gradients need are kept
  phase_work up(rows_shape const& r, bool keep) const {
    double const n = r.rows;
    phase_work p;
    p.rest += embedded(n);
    for (index_t l = 0; l < config_.layers; ++l) {
      part_rows const rows = rows_of(n, l);
      p.rest += enters<before_attention>(n, l, keep);
      linear_up(p, n, at(l, linear_slot::qkv));
      p.rest += work_into_cache<typename Block::qk>(rows, appended(n));
      p.attention += {heads_ * ((r.fresh + r.cached) * (4 * dim_ + 5 + 4 * own_edits) + 4 * r.edits),
                      t_ * (n * q_ + n * heads_ + r.parameters) + k_ * r.keys * 2 * kv_ * dim_ + f_ * n * q_ +
                          (keep && rounds() ? t_ * n * q_ : 0)};
      linear_up(p, n, at(l, linear_slot::out), !after_attention);
      if (after_attention) p.rest += norm::forward(rows, hidden_) + added_to_stream(n);
      p.rest += enters<before_ffn>(n, l, keep);
      linear_up(p, n, at(l, linear_slot::up));
      p.rest += activation::forward(into_product(n, l), width(l));
      linear_up(p, n, at(l, linear_slot::down), !after_ffn);
      if (after_ffn) p.rest += norm::forward(rows, hidden_) + added_to_stream(n);
    }
    return p;
  }

  /// The same downwards, without the head.
  /// \param with_parameters  the weights' gradients too
  phase_work down(rows_shape const& r, bool with_parameters) const {
    double const n = r.rows;
    phase_work p;
    if (!after_ffn) p.rest += rounded(n * hidden_);
    for (index_t l = 0; l < config_.layers; ++l) {
      part_rows const into_products = into_product(n, l);
      if (with_parameters) p.rest += activation::forward(into_products, width(l));
      if (after_ffn) p.rest += left(n, l, with_parameters);
      linear_down(p, n, at(l, linear_slot::down), with_parameters);
      p.rest += activation::backward(into_products, width(l));
      linear_down(p, n, at(l, linear_slot::up), with_parameters);
      p.rest += entered<before_ffn, after_attention>(n, l, with_parameters);
      if (after_attention) p.rest += left(n, l, with_parameters);
      if (with_parameters) p.rest += rounded(n * q_);
      linear_down(p, n, at(l, linear_slot::out), with_parameters);
      double const qkv = double(at(l, linear_slot::qkv).outputs);
      p.attention +=
          {heads_ * (r.fresh * (10 * dim_ + 6 + 6 * own_edits) + r.cached * (6 * dim_ + 6 + 6 * own_edits) +
                     6 * r.edits) +
               2 * n * q_,
           t_ * (3 * n * q_ + n * heads_ + n * qkv + r.parameters * (1 + 2 * kv_)) + k_ * r.keys * 2 * kv_ * dim_};
      if (l == 0 && !with_parameters) continue;  // below the lowest attention nothing wants a gradient
      p.rest += work_into_factor<typename Block::qk>(into_products, with_parameters);
      linear_down(p, n, at(l, linear_slot::qkv), with_parameters);
      p.rest += entered<before_attention, after_ffn>(n, l, with_parameters);
    }
    if (with_parameters) {
      if (config_.embedding_scale != 1) p.rest += scaled(n);
      p.rest += added(n);
    }
    return p;
  }

  /// Final norm of the scored rows and their log-probabilities, in blocks of rows and chunks of the vocabulary.
  phase_work head_up(double scored, bool entropy = false) const {
    phase_work p;
    p.rest += gathered(scored) + norm::forward(into_product(scored), hidden_) + work{0, 4 * t_ * scored} +
              work{5 * scored, t_ * (6 + (entropy ? 1 : 0)) * scored};
    p.rest += chunks() * work{0, (4 + 8 * t_) * scored} + work{7 * scored * vocab_, t_ * scored * vocab_};
    p.products += logit_products(scored);
    return p;
  }
  /// Their backward pass, down to the rows of the residual stream.
  /// \param rows  of the whole pass
  phase_work head_down(double scored, double rows, bool with_parameters) const {
    phase_work p;
    p.products += logit_products(scored);
    // dh is added to by every chunk but the first.
    p.products += {2 * scored * vocab_ * hidden_,
                   w_ * blocks(scored) * vocab_ * hidden_ + scored * (f_ * vocab_ + t_ * (2 * chunks() - 1) * hidden_)};
    p.rest += work{5 * scored * vocab_, (t_ + f_) * scored * vocab_} + chunks() * work{0, (4 + 2 * t_) * scored};
    if (with_parameters)
      p.weight_gradients += {2 * scored * vocab_ * hidden_,
                             f_ * scored * (vocab_ + chunks() * hidden_) + t_ * 2 * blocks(scored) * vocab_ * hidden_};
    p.rest += work{0, t_ * (scored + rows) * hidden_} + added(scored) +
              norm::backward(rows_of(scored), hidden_, with_parameters);
    return p;
  }

  /// Full logits of a few rows, and from them `drawn` tokens with their log-probabilities and entropies.
  phase_work logits(double rows, double drawn) const {
    phase_work p;
    p.rest += gathered(rows) + norm::forward(into_product(rows), hidden_) +
              work{12 * drawn * vocab_, 2 * t_ * drawn * vocab_} + work{0, (24 + 2 * t_) * drawn};
    p.products += product(rows, hidden_, vocab_);
    return p;
  }

  /// The gradient of masks of so many parameters, zeroed, summed over key-value heads, and one step of AdamW.
  work masks_update(double n) const { return work{0, t_ * n * kv_} + work{kv_ * n, t_ * n * (kv_ + 1)} + adamw(n); }

  /// Norm of the gradient, clipping, AdamW, and the new weights rounded into the model.
  phase_work weights_update() const {
    double const n = matrices_ + vectors_;
    phase_work p;
    // The gradient is zeroed, its norm is taken; AdamW scales it on the way and stores the new weights.
    p.rest += work{0, t_ * n} + work{2 * n, t_ * n} + work{n, 0} + adamw(n) + work{0, w_ * matrices_ + t_ * vectors_};
    return p;
  }

 private:
  static constexpr double own_edits =
      edits_of_scores<std::remove_cvref_t<decltype(Block::score_edit(std::declval<model_config const&>()))>>;

  part_rows rows_of(double n, index_t layer = 0) const { return {config_, layer, n, t_, t_, 0}; }
  /// Whose result a product takes.
  part_rows into_product(double n, index_t layer = 0) const { return {config_, layer, n, t_, f_, 0}; }
  /// Whose result is scalars that a product takes as well.
  part_rows beside_product(double n, index_t layer) const { return {config_, layer, n, t_, t_, rounds() ? f_ : 0}; }
  /// Whether factors are no scalars.
  bool rounds() const { return f_ != t_; }
  /// A pass that rounds them, where there is one.
  work rounded(double elements) const { return {0, rounds() ? (t_ + f_) * elements : 0}; }
  linear_shape const& at(index_t layer, linear_slot slot) const {
    return layers_[std::size_t(layer)][std::size_t(slot)];
  }
  /// Of what the activation makes.
  double width(index_t layer) const { return double(at(layer, linear_slot::down).inputs); }

  work product(double rows, double inputs, double outputs, bool add = false) const {
    return {2 * rows * inputs * outputs, w_ * inputs * outputs + rows * (f_ * inputs + t_ * (add ? 2 : 1) * outputs)};
  }
  work outer(double rows, double outputs, double inputs) const {
    return {2 * rows * inputs * outputs, f_ * rows * (inputs + outputs) + t_ * 2 * inputs * outputs};
  }
  void linear_up(phase_work& p, double n, linear_shape const& l, bool add = false) const {
    double const outputs = double(l.outputs);
    p.products += product(n, double(l.inputs), outputs, add);
    if (l.biased) p.rest += {n * outputs, t_ * (outputs + 2 * n * outputs)};
  }
  void linear_down(phase_work& p, double n, linear_shape const& l, bool with_parameters) const {
    double const outputs = double(l.outputs), inputs = double(l.inputs);
    p.products += product(n, outputs, inputs);
    if (!with_parameters) return;
    p.weight_gradients += outer(n, outputs, inputs);
    if (l.biased) p.rest += {n * outputs, f_ * n * outputs + t_ * 2 * outputs};
  }
  /// From the residual stream to what a half of the layer reads; a copy of the stream is kept.
  template <bool Norm>
  work enters(double n, index_t layer, bool keep) const {
    if constexpr (!Norm) return rounded(n * hidden_) + (keep ? copied(n * hidden_) : work{});
    return norm::forward(into_product(n, layer), hidden_) + work{0, keep ? t_ * n * hidden_ : 0};
  }
  /// From what a half of the layer reads back to the residual stream, whose gradient a product takes next unless a norm
  /// does.
  template <bool Norm, bool NormIsNext>
  work entered(double n, index_t layer, bool with_parameters) const {
    if constexpr (!Norm)
      return added_to_stream(n) + (with_parameters ? rounded(n * hidden_) : work{}) +
             (NormIsNext ? work{} : rounded(n * hidden_));
    return norm::backward(NormIsNext ? rows_of(n, layer) : beside_product(n, layer), hidden_, with_parameters) +
           (with_parameters ? norm::recompute(into_product(n, layer), hidden_) : work{});
  }
  /// Through a norm behind a half, whose gradient is zeroed first.
  work left(double n, index_t layer, bool with_parameters) const {
    return work{0, t_ * n * hidden_} + norm::backward(beside_product(n, layer), hidden_, with_parameters);
  }
  work logit_products(double scored) const {
    return {2 * scored * vocab_ * hidden_,
            w_ * blocks(scored) * vocab_ * hidden_ + scored * (f_ * chunks() * hidden_ + t_ * vocab_)};
  }
  double chunks() const { return std::ceil(vocab_ / double(device_logit_blocks.ids)); }
  static double blocks(double scored) { return std::ceil(scored / double(device_logit_blocks.rows)); }

  work appended(double n) const { return {0, 4 * n + 2 * n * kv_ * dim_ * (t_ + k_)}; }
  work copied(double elements) const { return {0, 2 * t_ * elements}; }
  work added_to_stream(double n) const { return {n * hidden_, 3 * t_ * n * hidden_}; }
  work scaled(double n) const { return {n * hidden_, 2 * t_ * n * hidden_}; }
  work embedded(double n) const {
    return work{0, 4 * n + n * hidden_ * (w_ + t_)} + (config_.embedding_scale != 1 ? scaled(n) : work{});
  }
  work gathered(double n) const { return {0, 4 * n + 2 * t_ * n * hidden_}; }
  work added(double n) const { return {n * hidden_, 4 * n + 3 * t_ * n * hidden_}; }
  work adamw(double n) const { return {14 * n, 7 * t_ * n}; }

  model_config config_;
  double w_, f_, t_, k_, hidden_, heads_, kv_, dim_, vocab_, q_;
  double matrices_ = 0, vectors_ = 0;  // numbers in the model's matrices and vectors
  std::vector<std::array<linear_shape, linear_slots>> layers_;
};

/// Rows of a mask step, and what every rollout's mask looks at.
inline rows_shape mask_rows_of(step_shape const& s) {
  double const rollouts = double(s.rollouts()), cot = double(s.cot), tail = double(s.delimiter + s.answer - 1),
               prompt = double(s.prompt);
  mask_extent const e = make_mask_extent(s.shape, s.rows, int(s.prompt), int(s.prompt + s.cot),
                                         int(s.prompt + s.cot + s.delimiter + s.answer), 0);
  bool const later = s.rows == mask_rows::all_later;
  double const rows = tail + (later ? cot : 0), before = prompt + (later ? 0 : cot);
  return {.rows = rollouts * rows,
          .fresh = rollouts * triangle(rows),
          .cached = rollouts * rows * before,
          .keys = double(s.prompts) * prompt + rollouts * (cot + tail),
          .scored = rollouts * double(s.answer),
          .edits = rollouts * double(e.entries()),
          .parameters = rollouts * double(e.count)};
}

}  // namespace detail

/// The prompts, once for all their rollouts, and the first token of each rollout.
template <TransformerBlock Block = standard_block>
phase_work prefill_work(model_config const& c, step_shape const& s) {
  double const prompts = double(s.prompts), rows = prompts * double(s.prompt);
  detail::work_formulas<Block> const f(c, s);
  return f.up({.rows = rows, .fresh = prompts * detail::triangle(double(s.prompt)), .keys = rows}, false) +
         f.logits(prompts, double(s.rollouts()));
}

/// All other tokens: one row per rollout and position.
template <TransformerBlock Block = standard_block>
phase_work decoding_work(model_config const& c, step_shape const& s) {
  double const rollouts = double(s.rollouts()), prompt = double(s.prompt);
  detail::work_formulas<Block> const f(c, s);
  phase_work all;
  for (index_t t = 1; t < s.completion; ++t)
    all = all +
          f.up({.rows = rollouts,
                .fresh = rollouts,
                .cached = rollouts * (prompt + double(t - 1)),
                .keys = double(s.prompts) * prompt + rollouts * double(t)},
               false) +
          f.logits(rollouts, rollouts);
  return all;
}

/// Mask training of all rollouts in one packed batch: what does not change once, the unmasked and the last evaluation,
/// and all steps.
template <TransformerBlock Block = standard_block>
phase_work mask_training_work(model_config const& c, step_shape const& s) {
  detail::work_formulas<Block> const f(c, s);
  detail::rows_shape const r = detail::mask_rows_of(s);
  double const prompts = double(s.prompts) * double(s.prompt), cots = double(s.rollouts()) * double(s.cot);
  detail::rows_shape unmasked = r;
  unmasked.edits = unmasked.parameters = 0;
  phase_work const head = f.head_up(r.scored), evaluations = f.up(unmasked, false) + f.up(r, false) + head + head;
  phase_work step = f.up(r, true) + f.head_up(r.scored) + f.head_down(r.scored, r.rows, false) + f.down(r, false);
  step.rest += f.masks_update(r.parameters);
  phase_work all =
      f.up({.rows = prompts, .fresh = double(s.prompts) * detail::triangle(double(s.prompt)), .keys = prompts}, false);
  if (s.rows == mask_rows::answer_rows)
    all = all + f.up({.rows = cots,
                      .fresh = double(s.rollouts()) * detail::triangle(double(s.cot)),
                      .cached = cots * double(s.prompt),
                      .keys = prompts + cots},
                     false);
  all.rest += {0, 4 * s.scalar_bytes * r.parameters};  // values, gradient and moments
  return all + evaluations + double(s.mask_steps) * step;
}

/// Forward and backward passes over all rollouts of the step and the updates of all weights.
template <TransformerBlock Block = standard_block>
phase_work policy_update_work(model_config const& c, step_shape const& s) {
  detail::work_formulas<Block> const f(c, s);
  double const prompt = double(s.prompt), completion = double(s.completion), rows_behind = completion - 1;
  phase_work pass = f.weights_update();
  // As many rollouts together as fit the budget; a prompt whose rollouts are cut apart is computed in both parts.
  for (index_t first = 0; first < s.rollouts();) {
    index_t rows = 0, last = first, roots = 0;
    for (; last < s.rollouts(); ++last) {
      bool const shares = last > first && last % s.group != 0;
      index_t const mine = s.completion + (shares ? 0 : s.prompt);
      if (last > first && rows + mine > s.row_budget) break;
      rows += mine;
      roots += !shares;
    }
    double const n = double(last - first), all = double(roots) * prompt + n * rows_behind;
    detail::rows_shape const r{
        .rows = all,
        .fresh = double(roots) * detail::triangle(prompt) + n * (detail::triangle(rows_behind) + rows_behind * prompt),
        .keys = all};
    pass = pass + f.up(r, true) + f.head_up(n * completion) + f.head_down(n * completion, all, true) + f.down(r, true);
    first = last;
  }
  return double(s.passes) * pass;
}

}  // namespace atmanrl
