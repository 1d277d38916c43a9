#pragma once

/// \file
/// What every block of a model promises (docs/extending.md#blocks): exact gradients of all its parameters, of its input
/// and of an edit's values, the same bits whether tokens are decoded one by one, scored at once or trained on, and the
/// same bits from a pass that computes its activations again.

#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/testing/attention_tree.hpp>
#include <atmanrl/testing/broken_promise.hpp>
#include <atmanrl/testing/derivatives.hpp>
#include <atmanrl/testing/small_model.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// A random model of the block in double on plain loops, a ragged prefix tree, and a loss of everything that it scores.
template <TransformerBlock Block>
class block_run {
 public:
  using B = reference_backend;
  using model_type = decoder<B, double, Block>;

  struct results {
    std::vector<double> log_p, parameters, edit, input;  ///< gradients; those of an edit summed over key-value heads
  };

  explicit block_run(model_config const& config)
      : model(backend_, config),
        policy{int(config.layers), int(config.heads)},
        parameters(random_parameters(model.layout())),
        values(random_values(policy.parameter_count(), 30, 0.3)),
        tree(ragged_tree(config.vocab)),
        scored(score_all(int(laid_out<B, double>::rows(tree)), config.vocab)),
        dlog_p_(random_values(index_t(scored.size()), 21)),
        dentropy_(random_values(index_t(scored.size()), 22)) {
    model.assign(as(parameters, {index_t(parameters.size())}));
  }

  /// The loss at other parameters and values of the edit.
  double loss(std::vector<double> const& flat, std::vector<double> const& at) {
    model.assign(as(flat, {index_t(flat.size())}));
    laid_out<B, double> on(backend_, model.config(), tree);
    forward_pass<B, double> pass(backend_);
    model.forward(on.cache, on.batch, pass, {}, edited{policy, as(at, {index_t(at.size())})});
    model.log_probs(pass, scored, temperature, true);
    model.assign(as(parameters, {index_t(parameters.size())}));
    return weighted_sum(pass.log_p(), dlog_p_) + weighted_sum(pass.entropy(), dentropy_);
  }

  /// Both passes at the run's own parameters and values.
  results both_passes(gradient_mode mode, bool recompute) {
    auto const space = model.borrow_pass(laid_out<B, double>::rows(tree), recompute);
    auto& [cache, pass] = *space;
    auto const ids = add_sequences(cache, tree);
    ragged_batch batch;
    for (std::size_t i = 0; i < tree.size(); ++i) batch.add(ids[i], tree[i].tokens, int(i));
    auto const edit = edited{policy, as(std::as_const(values), {index_t(values.size())})};
    model.forward(cache, batch, pass, {.mode = mode}, edit);
    model.log_probs(pass, scored, temperature, true);
    results r{pass.log_p(), {}, std::vector<double>(values.size()), {}};
    if (mode == gradient_mode::none) return r;
    if (mode == gradient_mode::parameters) r.parameters.assign(parameters.size(), 0.5);  // added to
    index_t const kv_heads = model.config().kv_heads;
    std::vector<double> by_head(std::size_t(kv_heads) * values.size());
    r.input.assign(std::size_t(batch.rows() * model.config().hidden), NAN);  // overwritten
    model.backward(cache, pass, {.log_p = dlog_p_, .entropy = dentropy_},
                   {.parameters = as(r.parameters, {index_t(r.parameters.size())}),
                    .edit = as(by_head, {kv_heads, index_t(values.size())}),
                    .input = as(r.input, {batch.rows(), model.config().hidden})},
                   edit);
    for (double& g : r.parameters) g -= 0.5;
    for (std::size_t i = 0; i < by_head.size(); ++i) r.edit[i % values.size()] += by_head[i];
    return r;
  }

  /// Log-probabilities of the scored tokens where every row has a call of its own.
  std::vector<double> decoded() {
    laid_out<B, double> on(backend_, model.config(), tree);
    forward_pass<B, double> pass(backend_);
    std::vector<double> log_p(scored.size());
    auto const edit = edited{policy, as(std::as_const(values), {index_t(values.size())})};
    for (std::size_t i = 0; i < tree.size(); ++i)
      for (std::size_t t = 0; t < tree[i].tokens.size(); ++t) {
        ragged_batch one;
        one.add(on.ids[i], std::span(tree[i].tokens).subspan(t, 1), int(i));
        model.forward(on.cache, one, pass, {}, edit);
        for (std::size_t s = 0; s < scored.size(); ++s)
          if (scored[s].row == on.first_row[i] + int(t)) {
            model.log_probs(pass, std::array{scored_token{0, scored[s].target}}, temperature, true);
            log_p[s] = pass.log_p().front();
          }
      }
    return log_p;
  }

  static constexpr double temperature = 0.7;

 private:
  reference_backend backend_;

 public:
  model_type model;
  distance_factors policy;
  std::vector<double> parameters, values;
  std::vector<branch> tree;
  std::vector<scored_token> scored;

 private:
  std::vector<double> dlog_p_, dentropy_;
};

/// A model with an output layer of its own, so that the embedding's gradient is its input's.
inline model_config config_of_checked_block() {
  model_config c = small_config();
  c.tied_head = false;
  return c;
}

/// \param config  of a small model; a block with numbers of its own finds them there
/// \throws broken_promise
template <TransformerBlock Block>
void check_block(model_config const& config = config_of_checked_block(), std::string const& name = name_of<Block>()) {
  block_run<Block> run(config);
  auto const same = [&](std::vector<double> const& a, std::vector<double> const& b, std::string_view what,
                        std::string_view when) {
    for (std::size_t i = 0; i < b.size(); ++i)
      expects<broken_promise>(a[i] == b[i], "{}: {} {} is {} {} and {} in a pass that keeps everything", name, what, i,
                              a[i], when, b[i]);
  };
  auto const trained = run.both_passes(gradient_mode::parameters, false);
  auto const masked = run.both_passes(gradient_mode::activations, false);
  for (std::size_t i = 0; i < trained.log_p.size(); ++i)
    expects<broken_promise>(std::isfinite(trained.log_p[i]), "{}: the log-probability of scored token {} is {}", name,
                            i, trained.log_p[i]);
  same(run.both_passes(gradient_mode::none, false).log_p, trained.log_p, "the log-probability of scored token",
       "in sampling's gradient mode");
  same(run.decoded(), trained.log_p, "the log-probability of scored token", "where its sequence is decoded row by row");
  for (gradient_mode const mode : {gradient_mode::parameters, gradient_mode::activations}) {
    auto const again = run.both_passes(mode, true), &kept = mode == gradient_mode::parameters ? trained : masked;
    same(again.log_p, kept.log_p, "the log-probability of scored token", "where activations are computed again");
    same(again.parameters, kept.parameters, "element of the gradient", "where activations are computed again");
    same(again.edit, kept.edit, "the derivative by an edit's value", "where activations are computed again");
  }

  constexpr double h = 1e-6, tolerance = 1e-5;
  for (parameter_info const& p : run.model.layout().all()) {
    auto const first = std::size_t(p.offset), count = std::size_t(p.size());
    auto const along = [&](std::vector<double> const& direction) {
      return difference_quotient(
          [&](double by) {
            auto moved = run.parameters;
            for (std::size_t i = 0; i < count; ++i) moved[first + i] += by * direction[i];
            return run.loss(moved, run.values);
          },
          h);
    };
    auto const direction = random_values(p.size(), 50);
    double derivative = 0, squares = 0;
    for (std::size_t i = 0; i < count; ++i) {
      derivative += trained.parameters[first + i] * direction[i];
      squares += trained.parameters[first + i] * trained.parameters[first + i];
    }
    double const quotient = along(direction), size = std::max(std::sqrt(squares), std::abs(quotient));
    if (std::abs(derivative - quotient) <= tolerance * size + 1e-6) continue;
    // Which of them it is.
    std::size_t worst = 0;
    double worst_quotient = 0, worst_difference = -1;
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<double> one(count);
      one[i] = 1;
      double const q = along(one), difference = std::abs(q - trained.parameters[first + i]);
      if (difference > worst_difference) worst = i, worst_quotient = q, worst_difference = difference;
    }
    fail<broken_promise>("{}: d loss / d {}[{}] is {:.6g} by its backward pass but {:.6g} by the difference quotient",
                         name, p.name, worst, trained.parameters[first + worst], worst_quotient);
  }
  for (std::size_t i = 0; i < run.values.size(); ++i) {
    double const quotient = difference_quotient(
        [&](double by) {
          auto moved = run.values;
          moved[i] += by;
          return run.loss(run.parameters, moved);
        },
        h);
    for (auto const* const r : {&masked, &trained})
      expects<broken_promise>(std::abs(r->edit[i] - quotient) <= tolerance * std::max(1.0, std::abs(quotient)),
                              "{}: d loss / d value {} of an attention edit is {:.6g} {} but {:.6g} by the difference "
                              "quotient",
                              name, i, r->edit[i],
                              r == &masked ? "where no parameter has a gradient" : "beside the parameters' gradient",
                              quotient);
  }
  if (config.tied_head) return;
  // A row of the embedding collects from all rows of its token.
  parameter_info const& embedding = *run.model.layout().find(embedding_name);
  std::vector<double> of_tokens(std::size_t(embedding.size()));
  std::size_t const hidden = std::size_t(config.hidden);
  std::size_t row = 0;
  for (branch const& b : run.tree)
    for (int const id : b.tokens) {
      for (std::size_t c = 0; c < hidden; ++c)
        of_tokens[std::size_t(id) * hidden + c] += config.embedding_scale * masked.input[row * hidden + c];
      ++row;
    }
  for (std::size_t i = 0; i < of_tokens.size(); ++i) {
    double const exact = trained.parameters[std::size_t(embedding.offset) + i];
    expects<broken_promise>(std::abs(of_tokens[i] - exact) <= 1e-9 * std::max(1.0, std::abs(exact)),
                            "{}: the gradient of the input gives the embedding's element {} the derivative {:.6g}, but "
                            "it is {:.6g}",
                            name, i, of_tokens[i], exact);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
