#pragma once

/// \file
/// AdamW as an optimizer: the moments and the step count that ops/adamw.hpp works on.

#include <atmanrl/ops/adamw.hpp>
#include <atmanrl/optim/optimizer.hpp>

#include <cmath>

namespace atmanrl::inline ATMANRL_ABI::optim {

/// Two moments, 8 bytes per float parameter.
struct adamw {
  static constexpr std::string_view name = "adamw";

  double beta1 = 0.9, beta2 = 0.999;  ///< in [0, 1)
  double eps = 1e-8;                  ///< above 0
  double weight_decay = 0;            ///< times the learning rate, of every parameter

  template <Backend B, class T>
  class state : public moments<adamw, B, T> {
   public:
    /// \throws usage_error for numbers that cannot be used
    state(adamw const& numbers, B& backend, parameter_list const& all)
        : moments<adamw, B, T>(numbers.checked(), backend, {{"first_moment", all.size}, {"second_moment", all.size}}) {}

    void restart(adamw const& numbers, parameter_list const& all) {
      moments<adamw, B, T>::restart(numbers.checked(), {{"first_moment", all.size}, {"second_moment", all.size}});
    }

    void step(view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient, double learning_rate) {
      adamw_step(this->backend(), parameters, gradient, this->moment(0), this->moment(1),
                 this->numbers().with_rate(learning_rate), this->next_step());
    }
    /// One step whose results go to where the model stores them, too (adamw_step_and_store).
    void step_and_store(view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient, double learning_rate,
                        T gradient_scale, std::span<stored_range<T> const> ranges) requires StoresSteps<B, T> {
      adamw_step_and_store(this->backend(), parameters, gradient, this->moment(0), this->moment(1), gradient_scale,
                           ranges, this->numbers().with_rate(learning_rate), this->next_step());
    }
    /// One step of some ranges, in ascending order; all else stays as it is.
    void step(view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient, double learning_rate,
              std::span<element_range const> ranges) {
      adamw_step(this->backend(), parameters, gradient, this->moment(0), this->moment(1), ranges,
                 this->numbers().with_rate(learning_rate), this->next_step());
    }
  };

  static constexpr bool is_elementwise() { return true; }
  /// Elements that a state holds.
  static index_t state_size(parameter_list const& all) { return 2 * all.size; }

  adamw_options with_rate(double learning_rate) const {
    return {.learning_rate = learning_rate, .beta1 = beta1, .beta2 = beta2, .eps = eps, .weight_decay = weight_decay};
  }

  /// \throws usage_error for numbers that cannot be used
  adamw const& checked() const {
    expects<usage_error>(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1,
                         "adamw: beta1 is {} and beta2 is {}, but both must be in [0, 1)", beta1, beta2);
    expects<usage_error>(eps > 0 && std::isfinite(eps), "adamw: eps is {}, but it must be above 0", eps);
    expects<usage_error>(weight_decay >= 0 && std::isfinite(weight_decay),
                         "adamw: weight decay is {}, but it must not be negative", weight_decay);
    return *this;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::optim
