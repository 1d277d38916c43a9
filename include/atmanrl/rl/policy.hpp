#pragma once

/// \file
/// Trainable weights with an optimizer: a policy that can be updated. Of several ranks each has, with an optimizer that
/// allows it, a slice of the optimizer's state (ZeRO-1).

#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/optim/gradient_clip.hpp>
#include <atmanrl/rl/trainable_weights.hpp>

#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// The same with an optimizer, whose state may take as much again: with AdamW all of it is 16 bytes per parameter, and
/// a gradient for each node that waits while a step's gradients are summed.
/// \tparam OptimizerT  models Optimizer
template <class Model, class OptimizerT = optim::adamw>
class trainable_policy : public trainable_weights<Model> {
  static_assert(detail::explain_optimizer<OptimizerT, typename Model::backend_type, typename Model::scalar>());

 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  using optimizer_state = typename OptimizerT::template state<B, T>;

  /// \param two_objectives  whether there is a second objective, whose updates have an optimizer state of their own
  explicit trainable_policy(Model& model, OptimizerT const& optimizer = {}, comm::any_on<B> ranks = {},
                            gradient_memory_options memory = {}, bool two_objectives = false)
      : trainable_weights<Model>(model, ranks, optim::is_elementwise(optimizer), memory),
        optimizer_(state_of(model, optimizer, this->slice())) {
    if (two_objectives) second_optimizer_.emplace(state_of(model, optimizer, this->slice()));
  }

  /// Its arrays have an element for each of `slice()`, or as many as the optimizer wants where that is everything.
  optimizer_state& optimizer() { return optimizer_; }
  /// The second objective's; none where there is one objective.
  std::optional<optimizer_state>& second_optimizer() { return second_optimizer_; }
  /// The arrays of both by their names in a checkpoint, the second objective's with "second_" before them.
  std::vector<std::pair<std::string, tensor<B, T, 1>*>> optimizer_arrays() {
    std::vector<std::pair<std::string, tensor<B, T, 1>*>> all;
    for (auto const& array : optimizer_.arrays()) all.emplace_back(array.name, array.values);
    if (second_optimizer_)
      for (auto const& array : second_optimizer_->arrays())
        all.emplace_back(fmt::format("second_{}", array.name), array.values);
    return all;
  }
  /// Updates that were made, of all objectives.
  std::uint64_t updates() const {
    return optimizer_.steps() + (second_optimizer_ ? second_optimizer_->steps() : std::uint64_t(0));
  }

  /// Clips the gradient, updates the master weights and rounds them into the model. A call of all ranks, which have
  /// their slices of the gradient (sum_gradient), which afterwards is clipped or as it was.
  /// \returns the gradient norm before clipping
  /// \throws numeric_error naming the tensor when the gradient is not finite; the weights stay as they were
  double update(double learning_rate, double max_gradient_norm) {
    return update(optimizer_, learning_rate, max_gradient_norm);
  }
  /// The same along the gradient of the second objective.
  double update_second(double learning_rate, double max_gradient_norm) {
    return update(second_optimizer_.value(), learning_rate, max_gradient_norm);
  }

  /// After master weights and the optimizers' arrays were put back.
  void restored() { this->assign_master(); }

 private:
  double update(optimizer_state& optimizer, double learning_rate, double max_gradient_norm) {
    memory_use_scope const named(this->model().backend(), memory_use::optimizer);
    auto const gradient = this->gradient_slice();
    double const norm = this->gradient_norm();
    if (!std::isfinite(norm))
      fail<numeric_error>("the gradient of {} is not finite; no update was made with it",
                          this->first_not_finite(gradient));
    if (step_into_model(optimizer, gradient, learning_rate, clip_factor(norm, max_gradient_norm))) return norm;
    clip_to_norm(this->model().backend(), gradient, norm, max_gradient_norm);
    optimizer.step(this->master().view(), gradient, learning_rate);
    this->assign_master();
    return norm;
  }

  /// All of it in one pass, where backend, optimizer and model can; ranks with slices have to meet in between.
  /// \returns whether it was done
  bool step_into_model(optimizer_state& optimizer, view_on<B, T const, 1> gradient, double learning_rate,
                       double gradient_scale) {
    if constexpr (requires(Model & model) { model.trainable_storage(); }) {
      if (this->is_sliced()) return false;
      std::vector<stored_range<T>> const ranges = this->model().trainable_storage();
      if (ranges.empty() || !optim::try_step_and_store(optimizer, this->master().view(), gradient, learning_rate,
                                                       T(gradient_scale), std::span<stored_range<T> const>(ranges)))
        return false;
      this->model().stored();
      return true;
    }
    return false;
  }

  static optimizer_state state_of(Model& model, OptimizerT const& optimizer, comm::range slice) {
    memory_use_scope const named(model.backend(), memory_use::optimizer);
    auto const& layout = model.trainable_layout();
    auto const shapes = optim::shapes_of(layout);
    if (slice.count == std::size_t(layout.size()))
      return optimizer_state(optimizer, model.backend(), {layout.size(), shapes});
    return optimizer_state(optimizer, model.backend(), {index_t(slice.count), {}});
  }

  optimizer_state optimizer_;
  std::optional<optimizer_state> second_optimizer_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
