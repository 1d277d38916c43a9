#pragma once

/// \file
/// What a saliency estimator is: it says for every token of a chain of thought how much the answer rests on it, and
/// sums that up in one number, which the saliency reward pays.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/saliency/mask_training.hpp>
#include <atmanrl/saliency/variants.hpp>

#include <chrono>
#include <concepts>
#include <span>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Saliency of a batch. Of a `saliency_result`, an estimator fills token_saliency (any unit, larger = more salient),
/// re_enabled (the reward number: bounded above by 1, lowered by tokens that do not matter), as_printed = 1 -
/// re_enabled, ce_unmasked, and, where it has them, ce_start (the answer under its strongest edit), ce_end and mask.
struct saliency_estimate {
  std::vector<saliency_result> items;
  row_count rows;                ///< what it cost
  double seconds = 0;            ///< filled by estimate_saliency
  gradient_quantiles gradients;  ///< of learned masks
};

/// `static constexpr std::string_view name` (or a member of each object) and
/// `saliency_estimate operator()(Model& model, std::span<saliency_item const> items)`.
/// It may keep state between calls (a chosen scale).
/// One whose items do not depend on each other says `static constexpr bool independent_items = true`: several ranks
/// then share them out. One that shares its work itself has `operator()(model, items, comm::any ranks)` as well, which
/// all ranks call at once; of others every rank does all.
template <class E, class Model>
concept SaliencyEstimator = std::movable<E> && requires(E e, Model& model, std::span<saliency_item const> items) {
  { E::name } -> std::convertible_to<std::string_view>;
  { e(model, items) } -> std::same_as<saliency_estimate>;
};

namespace detail {
/// One sentence for what is wrong with a type that was meant to be a saliency estimator.
template <class E, class Model>
consteval bool explain_saliency_estimator() {
  if constexpr (!SaliencyEstimator<E, Model>) {
    if constexpr (!requires {
                    { E::name } -> std::convertible_to<std::string_view>;
                  })
      static_assert(always_false<E>,
                    "atmanrl: not a saliency estimator: it needs `static constexpr std::string_view name` (see "
                    "docs/extending.md#saliency-estimators)");
    else
      static_assert(always_false<E>,
                    "atmanrl: not a saliency estimator: write `atmanrl::saliency_estimate operator()(auto& model, "
                    "std::span<atmanrl::saliency_item const> items)` (see docs/extending.md#saliency-estimators)");
  }
  return true;
}
}  // namespace detail

namespace detail {
/// \param ranks  that ask for the same items at once
template <class Estimator, class Model>
saliency_estimate shared_estimate(Estimator& estimator, Model& model, std::span<saliency_item const> items,
                                  comm::any ranks) {
  if constexpr (requires { estimator(model, items, ranks); }) {
    return estimator(model, items, ranks);
  } else if constexpr (requires { requires Estimator::independent_items; }) {
    saliency_estimate out;
    out.items = comm::share_work<saliency_result>(ranks, items.size(), [&](std::size_t first, std::size_t count) {
      saliency_estimate mine = estimator(model, items.subspan(first, count));
      out.rows = mine.rows;
      return std::move(mine.items);
    });
    return out;
  } else {
    return estimator(model, items);
  }
}
}  // namespace detail

/// Calls an estimator, checks its result and takes the time.
/// \param ranks  that ask for the same items at once, and may each estimate a part of them; rows and seconds are then
///               those of this one
/// \throws shape_error when it returns another number of items or tokens
template <class Estimator, class Model>
saliency_estimate estimate_saliency(Estimator& estimator, Model& model, std::span<saliency_item const> items,
                                    comm::any ranks = {}) {
  static_assert(detail::explain_saliency_estimator<Estimator, Model>());
  auto const begin = std::chrono::steady_clock::now();
  saliency_estimate out = detail::shared_estimate(estimator, model, items, ranks);
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  expects<shape_error>(out.items.size() == items.size(), "the saliency estimator {} returned {} results for {} items",
                       estimator.name, out.items.size(), items.size());
  for (std::size_t i = 0; i < items.size(); ++i)
    expects<shape_error>(out.items[i].token_saliency.size() == items[i].cot.size(),
                         "the saliency estimator {} returned {} values for the {} tokens of item {}", estimator.name,
                         out.items[i].token_saliency.size(), items[i].cot.size(), i);
  return out;
}

/// Reward number of estimators that measure an effect d_v in nats per answer token: the mean over tokens of
/// 1 - exp(-max(d_v, 0)), which is the share of the answer's probability that the token holds. In [0, 1): tokens
/// without effect add 0 to the sum and 1 to its divisor, so that filler lowers it.
inline double mean_lost_probability(std::span<float const> effects) {
  double sum = 0;
  for (float const d : effects) sum -= std::expm1(-std::max(double(d), 0.0));
  return effects.empty() ? 0 : sum / double(effects.size());
}

namespace detail {
/// The rows of one pass over the items' masks: those of the prompts and chains that never change, and those of a step.
struct mask_rows_count {
  index_t fixed = 0, step = 0;
};
inline mask_rows_count count_mask_rows(std::span<saliency_item const> items, mask_rows rows) {
  mask_rows_count n;
  std::map<std::vector<int>, bool> prompts;
  for (saliency_item const& i : items) {
    if (prompts.try_emplace(std::vector<int>(i.prompt.begin(), i.prompt.end()), true).second)
      n.fixed += index_t(i.prompt.size());
    (rows == mask_rows::answer_rows ? n.fixed : n.step) += index_t(i.cot.size());
    n.step += index_t(i.delimiter.size() + i.answer.size()) - 1;
  }
  return n;
}
}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
