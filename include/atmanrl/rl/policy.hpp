#pragma once

/// \file
/// A model with what it takes to change it: master weights in compute precision, their gradient, an optimizer; of all
/// its parameters, or of its adapters alone where it has some.

#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/optim/gradient_clip.hpp>

#include <cmath>

namespace atmanrl {

/// Master weights, gradient and moments are flat arrays in the order of the model's trainable layout: 16 bytes per
/// trained parameter. Adapters are attached before the policy is made.
template <class Model>
class trainable_policy {
 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

  trainable_policy(Model& model, adamw_options const& optimizer)
      : model_(&model),
        master_(model.backend(), {model.trainable_layout().size()}),
        gradient_(tensor<B, T, 1>::zeros(model.backend(), {model.trainable_layout().size()})),
        optimizer_(model.backend(), model.trainable_layout().size(), optimizer) {
    lora_config const* const l = model.adapter_config();
    expects<usage_error>(!l || l->dropout == 0,
                         "the adapters were made for a dropout of {}; training here has none (set lora_dropout to 0)",
                         l ? l->dropout : 0);
    model.read_trainable(master_.view());
  }

  Model& model() { return *model_; }
  tensor<B, T, 1>& master() { return master_; }
  tensor<B, T, 1>& gradient() { return gradient_; }
  adamw<B, T>& optimizer() { return optimizer_; }

  void zero_gradient() { gradient_.fill_zero(); }

  /// Clips the gradient, updates the master weights and rounds them into the model.
  /// \returns the gradient norm before clipping
  /// \throws numeric_error naming the tensor when the gradient is not finite; the weights stay as they were
  double update(double learning_rate, double max_gradient_norm) {
    double const norm = clip_gradient_norm(model_->backend(), gradient_.view(), max_gradient_norm);
    if (!std::isfinite(norm))
      fail<numeric_error>("the gradient of {} is not finite; no update was made with it",
                          first_not_finite(gradient_.cview()));
    optimizer_.step(master_.view(), gradient_.cview(), learning_rate);
    model_->assign_trainable(master_.cview());
    return norm;
  }

  /// Name of the first parameter with a value that is not finite in an array of the layout; empty when there is none.
  std::string first_not_finite(view_on<B, T const, 1> flat) const {
    for (parameter_info const& p : model_->trainable_layout().all())
      if (!std::isfinite(sum_of_squares(model_->backend(), flat.rows(p.offset, p.size())))) return p.name;
    return {};
  }

 private:
  Model* model_;
  tensor<B, T, 1> master_, gradient_;
  adamw<B, T> optimizer_;
};

}  // namespace atmanrl
