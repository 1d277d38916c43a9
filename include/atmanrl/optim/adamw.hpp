#pragma once

/// \file
/// AdamW as an optimizer: the moments and the step count that ops/adamw.hpp works on.

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/ops/adamw.hpp>

#include <cstdint>

namespace atmanrl {

/// Updates a flat parameter array of fixed size. 8 bytes per float parameter beside parameters and gradient.
template <Backend B, class T>
class adamw {
 public:
  adamw(B& backend, index_t size, adamw_options options = {})
      : backend_(&backend),
        options_(options),
        m_(tensor<B, T, 1>::zeros(backend, {size})),
        v_(tensor<B, T, 1>::zeros(backend, {size})) {}

  adamw_options const& options() const { return options_; }

  /// One update with the options' learning rate.
  void step(view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient) {
    step(parameters, gradient, options_.learning_rate);
  }
  /// One update with another learning rate, for schedules.
  void step(view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient, double learning_rate) {
    adamw_options o = options_;
    o.learning_rate = learning_rate;
    adamw_step(*backend_, parameters, gradient, m_.view(), v_.view(), o, ++steps_);
  }

  /// State for checkpoints.
  tensor<B, T, 1>& first_moment() { return m_; }
  tensor<B, T, 1>& second_moment() { return v_; }
  std::uint64_t steps() const { return steps_; }
  void set_steps(std::uint64_t steps) { steps_ = steps; }

 private:
  B* backend_;
  adamw_options options_;
  tensor<B, T, 1> m_, v_;
  std::uint64_t steps_ = 0;
};

}  // namespace atmanrl
