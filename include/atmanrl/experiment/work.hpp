#pragma once

/// \file
/// How much a step of the method asks of a machine: operations and bytes of prefill, decoding, mask training and policy
/// update, as formulas of the model's shape and the step's, and the seconds below which no machine of given limits can
/// do it (the roofline of Williams, Waterman & Patterson 2009). The test counts the library's own calls and finds the
/// same.
///
/// An operation is one addition, multiplication, comparison, division, exponential or root. Bytes are every operand
/// once per call of a kernel and every result once, a result that is added to twice: the least that a kernel can move.
/// Calls are those of a GPU (`device_logit_blocks`).

#include <atmanrl/attention/placed_mask.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/ops/log_prob.hpp>

#include <algorithm>
#include <cmath>

namespace atmanrl {

struct work {
  double operations = 0, bytes = 0;

  work& operator+=(work const& o) {
    operations += o.operations;
    bytes += o.bytes;
    return *this;
  }
  friend work operator+(work a, work const& b) { return a += b; }
  friend work operator*(double n, work const& w) { return {n * w.operations, n * w.bytes}; }
};

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

class work_formulas {
 public:
  work_formulas(model_config const& c, step_shape const& s)
      : w_(s.weight_bytes),
        t_(s.scalar_bytes),
        k_(s.cache_bytes),
        layers_(double(c.layers)),
        hidden_(double(c.hidden)),
        ffn_(double(c.ffn)),
        heads_(double(c.heads)),
        kv_(double(c.kv_heads)),
        dim_(double(c.head_dim)),
        vocab_(double(c.vocab)),
        q_(heads_ * dim_),
        qkv_((heads_ + 2 * kv_) * dim_),
        tied_(c.tied_head) {}

  double matrices() const {
    return layers_ * (qkv_ * hidden_ + hidden_ * q_ + 3 * hidden_ * ffn_) + (tied_ ? 1 : 2) * vocab_ * hidden_;
  }
  double vectors() const { return (2 * layers_ + 1) * hidden_; }

  /// Embedding and layers, upwards.
  /// \param keep  whether the activations that gradients need are kept
  phase_work up(rows_shape const& r, bool keep) const {
    double const n = r.rows;
    phase_work p;
    p.rest +=
        embedded(n) + layers_ * (2 * normed(n) + rotated(n) + appended(n) + work{5 * n * ffn_, 3 * t_ * n * ffn_});
    if (keep) p.rest += layers_ * 2 * copied(n * hidden_);
    p.products += layers_ * (product(n, hidden_, qkv_) + product(n, q_, hidden_, true) + product(n, hidden_, 2 * ffn_) +
                             product(n, ffn_, hidden_, true));
    p.attention += layers_ * work{heads_ * ((r.fresh + r.cached) * (4 * dim_ + 5) + 4 * r.edits),
                                  t_ * (2 * n * q_ + n * heads_ + r.parameters) + k_ * r.keys * 2 * kv_ * dim_};
    return p;
  }

  /// The same downwards, without the head.
  /// \param with_parameters  the weights' gradients too
  phase_work down(rows_shape const& r, bool with_parameters) const {
    double const n = r.rows, gains = with_parameters ? 2 * t_ * hidden_ : 0;
    double const lowest = with_parameters ? 0 : 1;  // below the lowest attention nothing wants a gradient
    work const norm_down{(with_parameters ? 12 : 9) * n * hidden_, t_ * (4 * n * hidden_ + hidden_ + n) + gains};
    phase_work p;
    p.products += layers_ * (product(n, hidden_, ffn_) + product(n, 2 * ffn_, hidden_) + product(n, hidden_, q_)) +
                  (layers_ - lowest) * product(n, qkv_, hidden_);
    p.rest +=
        layers_ * (work{12 * n * ffn_, 5 * t_ * n * ffn_} + norm_down) + (layers_ - lowest) * (norm_down + rotated(n));
    p.attention +=
        layers_ *
        work{heads_ * (r.fresh * (10 * dim_ + 6) + r.cached * (6 * dim_ + 6) + 6 * r.edits) + 2 * n * q_,
             t_ * (3 * n * q_ + n * heads_ + n * qkv_ + r.parameters * (1 + 2 * kv_)) + k_ * r.keys * 2 * kv_ * dim_};
    if (with_parameters) {
      p.weight_gradients += layers_ * (outer(n, hidden_, ffn_) + outer(n, 2 * ffn_, hidden_) + outer(n, hidden_, q_) +
                                       outer(n, qkv_, hidden_));
      p.rest += layers_ * (work{5 * n * ffn_, 3 * t_ * n * ffn_} + 2 * work{2 * n * hidden_, normed(n).bytes});
      p.rest += added(n);
    }
    return p;
  }

  /// Final norm of the scored rows and their log-probabilities, in blocks of rows and chunks of the vocabulary.
  phase_work head_up(double scored, bool entropy = false) const {
    phase_work p;
    p.rest += gathered(scored) + normed(scored) + work{0, 4 * t_ * scored} +
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
                   w_ * blocks(scored) * vocab_ * hidden_ + t_ * scored * (vocab_ + (2 * chunks() - 1) * hidden_)};
    p.rest += work{5 * scored * vocab_, 2 * t_ * scored * vocab_} + chunks() * work{0, (4 + 2 * t_) * scored};
    if (with_parameters)
      p.weight_gradients += {2 * scored * vocab_ * hidden_,
                             t_ * (scored * (vocab_ + chunks() * hidden_) + 2 * blocks(scored) * vocab_ * hidden_)};
    p.rest += work{0, t_ * (scored + rows) * hidden_} + added(scored);
    p.rest += {(with_parameters ? 12 : 9) * scored * hidden_,
               t_ * (4 * scored * hidden_ + hidden_ + scored) + (with_parameters ? 2 * t_ * hidden_ : 0)};
    return p;
  }

  /// Full logits of a few rows, and from them `drawn` tokens with their log-probabilities and entropies.
  phase_work logits(double rows, double drawn) const {
    phase_work p;
    p.rest += gathered(rows) + normed(rows) + work{12 * drawn * vocab_, 2 * t_ * drawn * vocab_} +
              work{0, (24 + 2 * t_) * drawn};
    p.products += product(rows, hidden_, vocab_);
    return p;
  }

  /// The gradient of masks of so many parameters, zeroed, summed over key-value heads, and one step of AdamW.
  work masks_update(double n) const { return work{0, t_ * n * kv_} + work{kv_ * n, t_ * n * (kv_ + 1)} + adamw(n); }

  /// Norm of the gradient, clipping, AdamW, and the new weights rounded into the model.
  phase_work weights_update() const {
    double const n = matrices() + vectors();
    phase_work p;
    p.rest += work{0, t_ * n} + work{2 * n, t_ * n} + work{n, 2 * t_ * n} + adamw(n) +
              work{0, (t_ + w_) * matrices() + 2 * t_ * vectors()};
    return p;
  }

 private:
  work product(double rows, double inputs, double outputs, bool add = false) const {
    return {2 * rows * inputs * outputs, w_ * inputs * outputs + t_ * rows * (inputs + (add ? 2 : 1) * outputs)};
  }
  work outer(double rows, double outputs, double inputs) const {
    return {2 * rows * inputs * outputs, t_ * (rows * (inputs + outputs) + 2 * inputs * outputs)};
  }
  work logit_products(double scored) const {
    return {2 * scored * vocab_ * hidden_,
            w_ * blocks(scored) * vocab_ * hidden_ + t_ * scored * (chunks() * hidden_ + vocab_)};
  }
  double chunks() const { return std::ceil(vocab_ / double(device_logit_blocks.ids)); }
  static double blocks(double scored) { return std::ceil(scored / double(device_logit_blocks.rows)); }

  work normed(double n) const { return {4 * n * hidden_, t_ * (2 * n * hidden_ + hidden_ + n)}; }
  work rotated(double n) const {
    return {3 * n * (heads_ + kv_) * dim_, 2 * t_ * n * (heads_ + kv_) * dim_ + 4 * n + t_ * n * dim_};
  }
  work appended(double n) const { return {0, 4 * n + 2 * n * kv_ * dim_ * (t_ + k_)}; }
  work copied(double elements) const { return {0, 2 * t_ * elements}; }
  work embedded(double n) const { return {0, 4 * n + n * hidden_ * (w_ + t_)}; }
  work gathered(double n) const { return {0, 4 * n + 2 * t_ * n * hidden_}; }
  work added(double n) const { return {n * hidden_, 4 * n + 3 * t_ * n * hidden_}; }
  work adamw(double n) const { return {14 * n, 7 * t_ * n}; }

  double w_, t_, k_, layers_, hidden_, ffn_, heads_, kv_, dim_, vocab_, q_, qkv_;
  bool tied_;
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
inline phase_work prefill_work(model_config const& c, step_shape const& s) {
  double const prompts = double(s.prompts), rows = prompts * double(s.prompt);
  detail::work_formulas const f(c, s);
  return f.up({.rows = rows, .fresh = prompts * detail::triangle(double(s.prompt)), .keys = rows}, false) +
         f.logits(prompts, double(s.rollouts()));
}

/// All other tokens: one row per rollout and position.
inline phase_work decoding_work(model_config const& c, step_shape const& s) {
  double const rollouts = double(s.rollouts()), prompt = double(s.prompt);
  detail::work_formulas const f(c, s);
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
inline phase_work mask_training_work(model_config const& c, step_shape const& s) {
  detail::work_formulas const f(c, s);
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
inline phase_work policy_update_work(model_config const& c, step_shape const& s) {
  detail::work_formulas const f(c, s);
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
