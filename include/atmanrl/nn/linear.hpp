#pragma once

/// \file
/// A linear layer y = x Wᵀ (+ bias) with its gradient.

#include <atmanrl/ops/elementwise.hpp>
#include <atmanrl/ops/matmul.hpp>

namespace atmanrl {

/// Weight (outputs, inputs) stored as `W`, and an optional bias.
template <Backend B, class W>
class linear {
 public:
  using scalar = compute_t<W>;

  linear() = default;
  linear(B& backend, index_t outputs, index_t inputs, bool with_bias = false) : weight_(backend, outputs, inputs) {
    if (with_bias) bias_ = tensor<B, scalar, 1>::zeros(backend, {outputs});
  }

  /// y = x Wᵀ + bias, or added to y.
  void forward(B& backend, view_on<B, scalar const, 2> x, view_on<B, scalar, 2> y, store how = store::overwrite) const {
    matmul(backend, x, weight_.view(), y, how);
    if (bias_.size()) add_bias(backend, bias_.cview(), y);
  }

  /// dx = dy W.
  void backward_input(B& backend, view_on<B, scalar const, 2> dy, view_on<B, scalar, 2> dx) const {
    matmul_backward_input(backend, dy, weight_.view(), dx);
  }

  /// dweight += dyᵀ x, dbias += column sums of dy; empty views are skipped.
  void backward_parameters(B& backend, view_on<B, scalar const, 2> dy, view_on<B, scalar const, 2> x,
                           view_on<B, scalar, 2> dweight, view_on<B, scalar, 1> dbias = {}) const {
    if (!dweight.empty()) matmul_backward_weight(backend, dy, x, dweight);
    if (!dbias.empty()) add_bias_backward(backend, dy, dbias);
  }

  atmanrl::weight<B, W>& weight() { return weight_; }
  atmanrl::weight<B, W> const& weight() const { return weight_; }
  tensor<B, scalar, 1>& bias() { return bias_; }
  tensor<B, scalar, 1> const& bias() const { return bias_; }

 private:
  atmanrl::weight<B, W> weight_;
  tensor<B, scalar, 1> bias_;
};

}  // namespace atmanrl
