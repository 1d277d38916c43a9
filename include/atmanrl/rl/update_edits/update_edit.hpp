#pragma once

/// \file
/// What an update edit is: an attention edit that the policy loss alone sees. It says what rows may see while the loss
/// and its gradient are computed; sampling, masks, rewards and evaluation do not see it.

#include <atmanrl/attention/policy.hpp>
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/rl/training_batch.hpp>

#include <concepts>
#include <span>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
using rollouts_of_pass = std::span<training_rollout const* const>;

template <class U, class B>
concept makes_something = requires(U const u, B& backend, rollouts_of_pass rollouts) {
  u(backend, rollouts);
};
template <class U, class B>
using edit_made_by = decltype(std::declval<U const&>()(std::declval<B&>(), std::declval<rollouts_of_pass>()));
}  // namespace detail

/// `template <Backend B> auto operator()(B&, std::span<training_rollout const* const> rollouts) const`: the attention
/// policy for one forward and backward pass over these rollouts. The rows of rollout i have the tag i, positions count
/// from the beginning of its prompt, and the last token of a completion has no row. Rollouts share the rows of an equal
/// prompt, which predict their first tokens; those have the tag -1, so that an edit cannot mean one rollout and reach
/// the others. The policy has no parameters: those of an edit that is trained belong to the model.
template <class U, class B = reference_backend>
concept UpdateEdit = std::copyable<U> && detail::makes_something<U, B> && AttentionPolicy<detail::edit_made_by<U, B>> &&
                     !TrainableAttentionPolicy<detail::edit_made_by<U, B>> &&
                     detail::edits_scores<detail::params_of<detail::edit_made_by<U, B>>>;

namespace update_edits {

/// The loss sees what the sampler saw.
struct none {
  template <class B>
  attention::none operator()(B&, std::span<training_rollout const* const>) const {
    return {};
  }
};
static_assert(UpdateEdit<none>);

}  // namespace update_edits

namespace detail {

template <class U>
inline constexpr bool edits_updates = !std::same_as<U, update_edits::none>;

/// The tag of a prompt's rows under an edit; without one it stays what it is in every other tree.
template <class U>
inline constexpr int prompt_tag = edits_updates<U> ? -1 : 0;

/// One sentence for what is wrong with a type that was meant to be an update edit.
template <class U, class B = reference_backend>
consteval bool explain_update_edit() {
  if constexpr (!UpdateEdit<U, B>) {
    if constexpr (!makes_something<U, B>) {
      static_assert(always_false<U>,
                    "atmanrl: not an UpdateEdit: write `template <class B> auto operator()(B& backend, "
                    "std::span<atmanrl::training_rollout const* const> rollouts) const`, which returns an attention "
                    "policy (see docs/extending.md#update-edits)");
    } else if constexpr (!AttentionPolicy<edit_made_by<U, B>>) {
      explain_attention_policy<edit_made_by<U, B>>();
    } else if constexpr (TrainableAttentionPolicy<edit_made_by<U, B>>) {
      static_assert(always_false<U>,
                    "atmanrl: the attention policy of an update edit has parameters, but nothing would train them: "
                    "give them to the model (the Edit of a decoder), or fix them with attention::frozen");
    } else if constexpr (!edits_scores<params_of<edit_made_by<U, B>>>) {
      static_assert(always_false<U>,
                    "atmanrl: the attention policy of an update edit needs the row's smallest score, so it has no "
                    "derivative, and the policy loss needs one");
    } else {
      static_assert(always_false<U>, "atmanrl: an update edit must be copyable");
    }
  }
  return true;
}

}  // namespace detail
}  // namespace atmanrl::inline ATMANRL_ABI
