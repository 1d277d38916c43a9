#pragma once

/// \file
/// Lion as an optimizer (arXiv:2302.06675; ops/lion.hpp). Its learning rate is 3 to 10 times smaller than AdamW's, its
/// weight decay as much larger (section 5 there).

#include <atmanrl/ops/lion.hpp>
#include <atmanrl/optim/optimizer.hpp>

#include <cmath>

namespace atmanrl::inline ATMANRL_ABI::optim {

/// One moment, 4 bytes per float parameter.
struct lion {
  static constexpr std::string_view name = "lion";

  double beta1 = 0.9, beta2 = 0.99;  ///< in [0, 1)
  double weight_decay = 0;           ///< times the learning rate, of every parameter

  template <Backend B, class T>
  class state : public moments<lion, B, T> {
   public:
    /// \throws usage_error for numbers that cannot be used
    state(lion const& numbers, B& backend, parameter_list const& all)
        : moments<lion, B, T>(numbers.checked(), backend, {{"momentum", all.size}}) {}

    void restart(lion const& numbers, parameter_list const& all) {
      moments<lion, B, T>::restart(numbers.checked(), {{"momentum", all.size}});
    }

    void step(view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient, double learning_rate) {
      this->next_step();
      lion_step(this->backend(), parameters, gradient, this->moment(0),
                {.learning_rate = learning_rate,
                 .beta1 = this->numbers().beta1,
                 .beta2 = this->numbers().beta2,
                 .weight_decay = this->numbers().weight_decay});
    }
  };

  static constexpr bool is_elementwise() { return true; }
  /// Elements that a state holds.
  static index_t state_size(parameter_list const& all) { return all.size; }

  /// \throws usage_error for numbers that cannot be used
  lion const& checked() const {
    expects<usage_error>(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1,
                         "lion: beta1 is {} and beta2 is {}, but both must be in [0, 1)", beta1, beta2);
    expects<usage_error>(weight_decay >= 0 && std::isfinite(weight_decay),
                         "lion: weight decay is {}, but it must not be negative", weight_decay);
    return *this;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::optim
