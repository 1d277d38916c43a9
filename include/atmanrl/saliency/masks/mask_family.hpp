#pragma once

/// \file
/// What a mask family is: which numbers a rollout's mask has, what they do to attention scores, where they start, and
/// what they say about the tokens once they are trained. The paper's additive mask (arXiv:2604.16158, eq. 1) is one.

#include <atmanrl/attention/placed_mask.hpp>
#include <atmanrl/attention/policy.hpp>
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/saliency/reduce.hpp>
#include <atmanrl/saliency/saliency_item.hpp>

#include <concepts>
#include <span>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
template <class M, class B>
concept names_mask_policy = requires {
  typename M::template policy<B>;
}
&&TrainableAttentionPolicy<typename M::template policy<B>>&& std::default_initializable<typename M::template policy<B>>;
template <class M>
concept starts_at_one_value = requires(M const m) {
  { m.initial() } -> std::convertible_to<double>;
};
template <class M>
concept starts_at_values = requires(M const m, mask_extent const& e, std::span<double> values) {
  m.initial(e, values);
};
template <class M>
concept lays_masks_out = requires(M const m, saliency_item const& item, model_config const& model) {
  { m.lay_out(item, mask_rows::all_later, model, index_t{}) } -> std::same_as<mask_extent>;
};
template <class M, class B>
concept assigns_masks = requires(M const m, typename M::template policy<B>& policy, B& backend,
                                 model_config const& model, std::span<saliency_item const> items,
                                 std::span<mask_extent const> extents) {
  m.assign(policy, backend, items, extents, model);
};
template <class M>
concept reduces_masks = requires(M const m, mask_extent const& e, std::span<float const> values) {
  { m.reduce(e, values) } -> std::same_as<mask_saliency>;
};
}  // namespace detail

/// A copyable value with the family's own numbers and
///     static constexpr std::string_view name
///     template <Backend B> using policy = ..       a TrainableAttentionPolicy that can be empty: its memory is reused
///     mask_extent lay_out(saliency_item const&, mask_rows, model_config const&, index_t offset) const
///                                                  where one rollout's mask lies; its values begin at `offset`
///     void assign(policy<B>&, B&, std::span<saliency_item const>, std::span<mask_extent const>, model_config const&)
///     const
///                                                  fills the policy; sequence tag i is item i
///     double initial() const                       where values start: suppressed. Or, entry by entry,
///                                                  void initial(mask_extent const&, std::span<double> values) const
///     mask_saliency reduce(mask_extent const&, std::span<float const> values) const
///                                                  token_saliency: one number per CoT token, larger = more salient;
///                                                  re_enabled: the reward, at most about 1, lowered by tokens that
///                                                  do not matter; as_printed: its reverse
/// `masks::placed` has lay_out and assign for masks whose values lie like those of the paper. Optional:
///     void sparsity_gradient(mask_extent const&, double weight, std::span<double> gradient) const
///                                                  adds the derivative of weight x (mean of what is re-enabled), which
///                                                  does not depend on the values; without it there is no sparsity term
///     double scale                                 a strength that choose_scale may settle when it is 0
///     void check() const                           throws usage_error for numbers that cannot work
/// Scores without a mask are those of the unedited model, so that no value needs to mean "unchanged".
template <class M, class B = reference_backend>
concept MaskFamily = std::copyable<M> && requires {
  { M::name } -> std::convertible_to<std::string_view>;
} && detail::names_mask_policy<M, B> && detail::lays_masks_out<M> && detail::assigns_masks<M, B> &&
    (detail::starts_at_one_value<M> || detail::starts_at_values<M>)&&detail::reduces_masks<M>;

/// Has a strength that may be chosen.
template <class M>
concept ScaledMask = requires(M m) {
  { m.scale } -> std::same_as<double&>;
};

/// Has a sparsity term.
template <class M>
concept SparseMask = requires(M const m, mask_extent const& e, std::span<double> gradient) {
  m.sparsity_gradient(e, 1.0, gradient);
};

namespace detail {
/// One sentence for what is wrong with a type that was meant to be a mask family.
template <class M, class B = reference_backend>
consteval bool explain_mask_family() {
  if constexpr (!MaskFamily<M, B>) {
    if constexpr (!requires {
                    { M::name } -> std::convertible_to<std::string_view>;
                  })
      static_assert(always_false<M>,
                    "atmanrl: not a mask family: it needs `static constexpr std::string_view name` (see "
                    "docs/extending.md#mask-families)");
    else if constexpr (!requires { typename M::template policy<B>; })
      static_assert(always_false<M>,
                    "atmanrl: not a mask family: it needs `template <atmanrl::Backend B> using policy = ..`, the "
                    "attention policy that its values feed (see docs/extending.md#mask-families)");
    else if constexpr (!names_mask_policy<M, B>)
      static_assert(
          always_false<M>,
          "atmanrl: the mask family's policy must be a trainable attention policy with a default constructor: "
          "params() with `parameter(site)` and a call (score, value, site), and parameter_count() (see "
          "docs/extending.md#mask-families)");
    else if constexpr (!lays_masks_out<M>)
      static_assert(
          always_false<M>,
          "atmanrl: the mask family needs `atmanrl::mask_extent lay_out(atmanrl::saliency_item const&, "
          "atmanrl::mask_rows, atmanrl::model_config const&, atmanrl::index_t offset) const`, or masks::placed "
          "as its base (see docs/extending.md#mask-families)");
    else if constexpr (!assigns_masks<M, B>)
      static_assert(
          always_false<M>,
          "atmanrl: the mask family needs `void assign(policy<B>&, B&, std::span<atmanrl::saliency_item const>, "
          "std::span<atmanrl::mask_extent const>, atmanrl::model_config const&) const`, or masks::placed as its "
          "base (see docs/extending.md#mask-families)");
    else if constexpr (!reduces_masks<M>)
      static_assert(always_false<M>,
                    "atmanrl: the mask family needs `atmanrl::mask_saliency reduce(atmanrl::mask_extent const&, "
                    "std::span<float const> values) const` (see docs/extending.md#mask-families)");
    else
      static_assert(
          always_false<M>,
          "atmanrl: the mask family needs `double initial() const`, the value that masks start from, and must be "
          "copyable (see docs/extending.md#mask-families)");
  }
  return true;
}
}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
