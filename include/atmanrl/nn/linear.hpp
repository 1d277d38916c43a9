#pragma once

/// \file
/// A linear layer y = x Wᵀ (+ bias) (+ s (x Aᵀ) Bᵀ) with its gradient. Its weight may be several matrices that share
/// their input, stacked: one product serves them. Adapters live in here, so that whoever writes a block never meets
/// them.

#include <atmanrl/nn/gradient_stretches.hpp>
#include <atmanrl/nn/lora.hpp>
#include <atmanrl/ops/elementwise.hpp>
#include <atmanrl/ops/matmul.hpp>

#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// What one forward or backward pass says to every linear layer and to every part of a block.
template <Backend B, class T>
struct pass_context {
  B& backend;
  lora_workspace<B, T>& lora;
  bool adapted = false;              ///< whether the adapters act
  gradient_window<B, T> gradient{};  ///< of all parameters, or of those at hand; empty when it is not wanted
  view_on<B, T, 1> lora_gradient{};  ///< flat, of all adapters; empty when it is not wanted

  /// Whether inputs of linear layers are needed for gradients of parameters.
  bool wants_parameters() const { return !gradient.empty() || !lora_gradient.empty(); }
};

/// Weight (outputs, inputs) of type `W`, and an optional bias.
template <Backend B, class W>
class linear {
 public:
  using scalar = compute_t<W>;
  using T = scalar;
  using F = factor_t<B, W>;  ///< what its products take

  linear() = default;
  /// \param weight_offset, bias_offset  where the gradients lie in the flat array of all parameters; bias_offset is -1
  ///                                    without a bias
  linear(B& backend, index_t outputs, index_t inputs, index_t weight_offset, index_t bias_offset = -1,
         weight_storage storage = weight_storage::full)
      : weight_(backend, outputs, inputs, storage), weight_offset_(weight_offset), bias_offset_(bias_offset) {
    if (bias_offset >= 0) bias_ = tensor<B, T, 1>::zeros(backend, {outputs});
  }

  /// y = x Wᵀ + bias, or added to y.
  void forward(pass_context<B, T> const& call, view_on<B, F const, 2> x, view_on<B, T, 2> y,
               store how = store::overwrite) const {
    matmul(call.backend, x, weight_.view(), y, how);
    if (bias_.size()) add_bias(call.backend, bias_.cview(), y);
    if (call.adapted) adapter_.forward(call.backend, x, y, call.lora);
  }

  /// Whether `forward` is the product with the weight and nothing else in such a call.
  bool is_product(pass_context<B, T> const& call) const { return bias_.size() == 0 && !(call.adapted && adapter_); }

  /// dx = dy W, and the gradients of the parameters that the call wants, added to them.
  /// \param x  the input; only read where parameters are wanted
  void backward(pass_context<B, T> const& call, view_on<B, F const, 2> dy, view_on<B, F const, 2> x,
                view_on<B, T, 2> dx) const {
    if (!call.gradient.empty()) {
      matmul_backward_weight<B, T>(call.backend, dy, x,
                                   {call.gradient.at(weight_offset_), {weight_.outputs(), weight_.inputs()}});
      if (bias_.size()) add_bias_backward<B, T>(call.backend, dy, {call.gradient.at(bias_offset_), {bias_.size()}});
    }
    matmul_backward_input(call.backend, dy, weight_.view(), dx);
    if (call.adapted) adapter_.backward(call.backend, dy, x, dx, call.lora_gradient, call.lora);
  }

  void attach(lora_linear<B, T, F> adapter) { adapter_ = std::move(adapter); }
  lora_linear<B, T, F>& adapter() { return adapter_; }
  lora_linear<B, T, F> const& adapter() const { return adapter_; }

  atmanrl::weight<B, W>& weight() { return weight_; }
  atmanrl::weight<B, W> const& weight() const { return weight_; }
  tensor<B, T, 1>& bias() { return bias_; }
  tensor<B, T, 1> const& bias() const { return bias_; }

 private:
  atmanrl::weight<B, W> weight_;
  tensor<B, T, 1> bias_;
  index_t weight_offset_ = -1, bias_offset_ = -1;
  lora_linear<B, T, F> adapter_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
