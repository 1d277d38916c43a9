#pragma once

/// \file
/// A model with what it takes to change it: master weights in compute precision, their gradient, an optimizer's state;
/// of all its parameters, or of its adapters alone where it has some.

#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/optim/gradient_clip.hpp>

#include <cmath>
#include <string>

namespace atmanrl {

/// Master weights and gradient are flat arrays in the order of the model's trainable layout. Adapters are attached
/// before they are made.
template <class Model>
class trainable_weights {
  static_assert(detail::explain_trainable_model<Model>());

 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

  explicit trainable_weights(Model& model)
      : model_(&model),
        master_(model.backend(), {model.trainable_layout().size()}),
        gradient_(tensor<B, T, 1>::zeros(model.backend(), {model.trainable_layout().size()})) {
    if constexpr (AdaptableModel<Model>) {
      lora_config const* const l = model.adapter_config();
      expects<usage_error>(!l || l->dropout == 0,
                           "the adapters were made for a dropout of {}; training here has none (set lora_dropout to 0)",
                           l ? l->dropout : 0);
    }
    model.read_trainable(master_.view());
  }

  Model& model() { return *model_; }
  tensor<B, T, 1>& master() { return master_; }
  tensor<B, T, 1>& gradient() { return gradient_; }

  void zero_gradient() { gradient_.fill_zero(); }

  /// Name of the first parameter with a value that is not finite in an array of the layout; empty when there is none.
  std::string first_not_finite(view_on<B, T const, 1> flat) const {
    for (parameter_info const& p : model_->trainable_layout().all())
      if (!std::isfinite(sum_of_squares(model_->backend(), flat.rows(p.offset, p.size())))) return p.name;
    return {};
  }

 private:
  Model* model_;
  tensor<B, T, 1> master_, gradient_;
};

/// The same with an optimizer, whose state may take as much again: with AdamW all of it is 16 bytes per parameter.
/// \tparam OptimizerT  models Optimizer
template <class Model, class OptimizerT = optim::adamw>
class trainable_policy : public trainable_weights<Model> {
  static_assert(detail::explain_optimizer<OptimizerT, typename Model::backend_type, typename Model::scalar>());

 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  using optimizer_state = typename OptimizerT::template state<B, T>;

  explicit trainable_policy(Model& model, OptimizerT const& optimizer = {})
      : trainable_weights<Model>(model), optimizer_(state_of(model, optimizer)) {}

  optimizer_state& optimizer() { return optimizer_; }

  /// Clips the gradient, updates the master weights and rounds them into the model.
  /// \returns the gradient norm before clipping
  /// \throws numeric_error naming the tensor when the gradient is not finite; the weights stay as they were
  double update(double learning_rate, double max_gradient_norm) {
    Model& model = this->model();
    auto const gradient = this->gradient().view();
    double const norm = clip_gradient_norm(model.backend(), gradient, max_gradient_norm);
    if (!std::isfinite(norm))
      fail<numeric_error>("the gradient of {} is not finite; no update was made with it",
                          this->first_not_finite(gradient));
    optimizer_.step(this->master().view(), gradient, learning_rate);
    model.assign_trainable(this->master().cview());
    return norm;
  }

 private:
  static optimizer_state state_of(Model& model, OptimizerT const& optimizer) {
    auto const& layout = model.trainable_layout();
    auto const shapes = optim::shapes_of(layout);
    return optimizer_state(optimizer, model.backend(), {layout.size(), shapes});
  }

  optimizer_state optimizer_;
};

}  // namespace atmanrl
