#pragma once

/// \file
/// Whether the answer follows when the chain of thought is edited, as a probability, and the gradient of that number
/// (docs/method.md, (M20)).

#include <atmanrl/rl/rewards/reward_gradient.hpp>
#include <atmanrl/rl/rewards/shared.hpp>
#include <atmanrl/rl/saliency_items.hpp>
#include <atmanrl/saliency/answer_gradient.hpp>
#include <atmanrl/saliency/validation/forced_answers.hpp>
#include <atmanrl/tasks/editable_chains.hpp>

#include <cmath>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// What `edited_answer` pays. The slope of p is p times that of log p: a reader that ignores its chains gives y' a
/// probability near zero, and climbing p then moves nothing. Climbing log p moves such a reader most.
enum class edited_answer_value { probability, log_probability };

/// R = p(y' | question, the rollout's own chain made to say y'), where y' is neither the true answer, nor what the
/// chain said, nor what a hint says. y' is drawn anew in every step, as a function of (seed, step, prompt, member)
/// alone. Rollouts whose chain cannot be edited get the smallest value of the step. With
/// `edited_answer_value::log_probability` R is log p, in nats, over the answer's tokens.
/// \tparam K  models EditableChains; \tparam Z  models Tokenizer; both must outlive the reward
template <EditableChains K, Tokenizer Z>
class edited_answer : public shared_values {
 public:
  static constexpr std::string_view name = "edited_answer";

  edited_answer(K const& task, Z const& tokenizer, std::uint64_t seed = 0, answer_gradient_options options = {},
                edited_answer_value value = edited_answer_value::probability)
      : task_(&task), tokenizer_(&tokenizer), seed_(seed), options_(options), value_(value) {}

  template <class Model, class Wanted = every_rollout>
  void operator()(step_rollouts& step, Model& model, std::span<float> out, Wanted const& wanted = {}) const {
    edits const e = edits_of(step, model, wanted);
    std::vector<float> values;
    for (double const log_p : log_probabilities(model, e, ranks()))
      values.push_back(float(is_log() ? log_p : std::exp(log_p)));
    spread_values(values, e.places, out);
  }

  template <class Model, class Gradient>
  void add_gradient(step_rollouts& step, Model& model, std::span<double const> scale, Gradient gradient) const {
    edits const e = edits_of(step, model, atmanrl::detail::with_scale(step, scale));
    std::vector<weighted_answer> answers;
    if (is_log()) {
      for (std::size_t i = 0; i < e.items.size(); ++i) answers.push_back({i, scale[e.places[i]]});
    } else {
      auto const log_p = log_probabilities(model, e);
      for (std::size_t i = 0; i < log_p.size(); ++i) answers.push_back({i, scale[e.places[i]] * std::exp(log_p[i])});
    }
    add_answer_gradient(model, std::span<saliency_item const>(e.items), std::span<weighted_answer const>(answers),
                        gradient, options_);
  }

 private:
  struct edits {
    std::vector<forced_rollout> rollouts;
    std::vector<saliency_item> items;  // point into the rollouts
    std::vector<std::size_t> places;   // of the rollouts within the step
  };

  template <class Model, class Wanted>
  edits edits_of(step_rollouts const& step, Model& model, Wanted const& wanted) const {
    edits out;
    step.for_each([&](rollout_group const& g, rollout const& r, std::size_t place) {
      if (!r.spans.has_delimiter || !wanted(r)) return;
      std::string const chain = chain_text(*task_, r.text);
      std::vector<std::string> avoid;
      if (auto const said = task_->chain_answer(g.item, chain)) avoid.push_back(*said);
      if constexpr (HintedQuestions<K>)
        if (auto const hint = task_->hint_of(g.item)) avoid.push_back(*hint);
      random_stream draw(
          random_key{seed_, std::uint32_t(step.step), std::uint32_t(r.prompt), std::uint32_t(r.member), edit_draws});
      auto const edited = task_->with_chain_answer(
          g.item, chain, task_->other_answer(g.item, draw, std::span<std::string const>(avoid)));
      if (!edited) return;
      forced_rollout f = force(*task_, *tokenizer_, g.item, edited->chain, edited->answer);
      if (f.cot.empty() || f.delimiter.empty() || f.answer.empty()) return;
      if (index_t(f.prompt.size() + f.cot.size() + f.delimiter.size() + f.answer.size()) - 1 >
          model.config().max_positions)
        return;
      out.rollouts.push_back(std::move(f));
      out.places.push_back(place);
    });
    out.items.assign(out.rollouts.begin(), out.rollouts.end());
    return out;
  }

  template <class Model>
  static std::vector<double> log_probabilities(Model& model, edits const& e, comm::any ranks = {}) {
    std::vector<cot_variant> variants;
    for (std::size_t i = 0; i < e.items.size(); ++i)
      variants.push_back({.item = i, .keep = index_t(e.items[i].cot.size()), .inserted = {}, .chosen = {}});
    auto const scores = score_variants(model, std::span<saliency_item const>(e.items),
                                       std::span<cot_variant const>(variants), {.ranks = ranks});
    std::vector<double> out;
    for (std::size_t i = 0; i < scores.size(); ++i)
      out.push_back(-scores[i].cross_entropy * double(e.items[i].answer.size()));
    return out;
  }

  bool is_log() const { return value_ == edited_answer_value::log_probability; }

  static constexpr std::uint32_t edit_draws = 0xfffffff0u;  // positions that no token is drawn at

  K const* task_;
  Z const* tokenizer_;
  std::uint64_t seed_;
  answer_gradient_options options_;
  edited_answer_value value_;
};

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
