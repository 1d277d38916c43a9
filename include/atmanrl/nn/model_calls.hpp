#pragma once

/// \file
/// Arguments of a language model's members (nn/language_model.hpp), by name: how a forward pass runs, what the gradient
/// of a loss is, where the gradients of a backward pass go, and an edit of attention with its values.
///
///     model.forward(cache, batch, pass, {.mode = gradient_mode::activations}, edited{policy, values});
///     model.backward(cache, pass, {.log_p = dlog_p}, {.edit = gradient}, edited{policy, values});

#include <atmanrl/attention/policy.hpp>
#include <atmanrl/nn/forward_pass.hpp>
#include <atmanrl/nn/gradient_stretches.hpp>
#include <atmanrl/nn/lora.hpp>

#include <concepts>
#include <span>
#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI {

/// How a forward pass runs.
struct forward_options {
  gradient_mode mode = gradient_mode::none;            ///< what is kept for a backward pass
  atmanrl::adapters adapters = atmanrl::adapters::on;  ///< off: the model without them, the reference of a LoRA run
};

/// Derivatives of a loss by what log_probs gives of the scored tokens: log-probabilities and entropies.
template <class T>
struct loss_gradients {
  std::span<T const> log_p = {};    ///< one per scored token
  std::span<T const> entropy = {};  ///< one per scored token; empty when the entropy is not in the loss
};

/// Where a backward pass leaves gradients. What is empty is not wanted; `parameters`, or `stretches` in their place,
/// must be there exactly when the forward pass had gradient_mode::parameters.
template <Backend B, class T>
struct pass_gradients {
  view_on<B, T, 1> parameters = {};              ///< flat, in the order of trainable_layout(), added to
  view_on<B, T, 2> edit = {};                    ///< (kv_heads, parameters of the policy), added to
  view_on<B, T, 2> input = {};                   ///< (rows, hidden), overwritten with that of forward_pass::input()
  gradient_receiver<B, T>* stretches = nullptr;  ///< takes those of the parameters one stretch after the other

  bool wants_parameters() const { return !parameters.empty() || stretches; }
};

/// Stands for the values of an edit that has no parameters: an empty view of any kind.
struct no_values {
  template <class T, class Space>
  constexpr operator view<T, 1, Space>() const {
    return {};
  }
};

/// What a model that computes in T on B can read as the values of an edit's parameters.
template <class V, class B, class T>
concept EditValues = std::convertible_to<V, view_on<B, T const, 1>>;

/// A policy that edits the scores of one call (attention/policy.hpp), and the values of its parameters where it is
/// trainable: `edited{policy}`, `edited{policy, values}`. The policy is referred to, not copied: it must live as long
/// as the call. The values are (policy.parameter_count()) in the memory of the model's backend.
/// \tparam P  the policy
/// \tparam V  view<T const, 1, Space> or no_values
template <class P = attention::none, class V = no_values>
struct edited {
  P const& policy;
  V values;

  /// Leaves the scores as they are.
  constexpr edited() requires(std::same_as<P, attention::none>) : policy(unedited), values{} {}
  explicit constexpr edited(P const& policy, std::type_identity_t<V> values = {}) : policy(policy), values(values) {}

 private:
  static constexpr attention::none unedited{};
};

template <class P>
edited(P const&) -> edited<P, no_values>;
template <class P, class T, class Space>
edited(P const&, view<T, 1, Space>) -> edited<P, view<T const, 1, Space>>;

}  // namespace atmanrl::inline ATMANRL_ABI
