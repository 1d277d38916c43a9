#pragma once

/// \file
/// Gradient descent as an optimizer, with momentum and Nesterov's step where they are asked for (ops/sgd.hpp).

#include <atmanrl/ops/sgd.hpp>
#include <atmanrl/optim/optimizer.hpp>

#include <cmath>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::optim {

/// One moment, 4 bytes per float parameter; without momentum none.
struct sgd {
  static constexpr std::string_view name = "sgd";

  double momentum = 0.9;  ///< in [0, 1); 0: none
  bool nesterov = false;
  double weight_decay = 0;  ///< times the parameter is added to its gradient

  template <Backend B, class T>
  class state : public moments<sgd, B, T> {
   public:
    /// \throws usage_error for numbers that cannot be used
    state(sgd const& numbers, B& backend, parameter_list const& all)
        : moments<sgd, B, T>(numbers.checked(), backend, {{"momentum", numbers.state_size(all)}}) {}

    void restart(sgd const& numbers, parameter_list const& all) {
      moments<sgd, B, T>::restart(numbers.checked(), {{"momentum", numbers.state_size(all)}});
    }

    /// None without momentum: of several ranks each array has a slice's elements.
    std::vector<named_array<B, T>> arrays() {
      return this->numbers().momentum == 0 ? std::vector<named_array<B, T>>() : moments<sgd, B, T>::arrays();
    }

    void step(view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient, double learning_rate) {
      sgd_options const o{.learning_rate = learning_rate,
                          .momentum = this->numbers().momentum,
                          .weight_decay = this->numbers().weight_decay,
                          .nesterov = this->numbers().nesterov};
      this->next_step();
      if (this->numbers().momentum == 0)
        sgd_step(this->backend(), parameters, gradient, o);
      else
        sgd_step(this->backend(), parameters, gradient, this->moment(0), o);
    }
  };

  static constexpr bool is_elementwise() { return true; }
  /// Elements that a state holds.
  index_t state_size(parameter_list const& all) const { return momentum == 0 ? 0 : all.size; }

  /// \throws usage_error for numbers that cannot be used
  sgd const& checked() const {
    expects<usage_error>(momentum >= 0 && momentum < 1, "sgd: momentum is {}, but it must be in [0, 1)", momentum);
    expects<usage_error>(!nesterov || momentum > 0, "sgd: Nesterov's step needs a momentum above 0");
    expects<usage_error>(weight_decay >= 0 && std::isfinite(weight_decay),
                         "sgd: weight decay is {}, but it must not be negative", weight_decay);
    return *this;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::optim
