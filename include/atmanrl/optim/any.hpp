#pragma once

/// \file
/// An optimizer that is chosen while the program runs, and the built-in ones by their names.

#include <atmanrl/core/config.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/optim/lion.hpp>
#include <atmanrl/optim/muon.hpp>
#include <atmanrl/optim/sgd.hpp>

#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>

namespace atmanrl::inline ATMANRL_ABI::optim {

/// Holds one of these optimizers; without one it is the first. `one_of<adamw, mine>` is a choice with one's own in it.
template <class... Os>
class one_of {
 public:
  one_of() = default;
  template <class O>
  requires(std::same_as<O, Os> || ...) one_of(O optimizer) : held_(std::move(optimizer)) {}

  /// The optimizer of that type, or null.
  template <class O>
  O const* get_if() const {
    return std::get_if<O>(&held_);
  }

  template <Backend B, class T>
  class state {
   public:
    state(one_of const& numbers, B& backend, parameter_list const& all)
        : held_(std::visit(
              [&](auto const& o) -> held_state {
                using O = std::remove_cvref_t<decltype(o)>;
                return held_state(std::in_place_type<typename O::template state<B, T>>, o, backend, all);
              },
              numbers.held_)) {}

    void step(view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient, double learning_rate) {
      std::visit([&](auto& s) { s.step(parameters, gradient, learning_rate); }, held_);
    }
    /// See optim::try_step_and_store.
    template <class... Arguments>
    bool try_step_and_store(Arguments const&... arguments) {
      return std::visit([&](auto& s) { return optim::try_step_and_store(s, arguments...); }, held_);
    }
    std::vector<named_array<B, T>> arrays() {
      return std::visit(
          [](auto& s) {
            std::vector<named_array<B, T>> all;
            for (named_array<B, T> const& a : s.arrays()) all.push_back(a);
            return all;
          },
          held_);
    }
    std::uint64_t steps() const {
      return std::visit([](auto const& s) { return std::uint64_t(s.steps()); }, held_);
    }
    void set_steps(std::uint64_t steps) {
      std::visit([&](auto& s) { s.set_steps(steps); }, held_);
    }

   private:
    using held_state = std::variant<typename Os::template state<B, T>...>;
    held_state held_;
  };

  bool is_elementwise() const {
    return std::visit([](auto const& o) { return optim::is_elementwise(o); }, held_);
  }

  /// Elements that a state holds; twice the parameters for an optimizer that does not say.
  index_t state_size(parameter_list const& all) const {
    return std::visit(
        [&](auto const& o) -> index_t {
          if constexpr (requires { o.state_size(all); })
            return o.state_size(all);
          else
            return 2 * all.size;
        },
        held_);
  }

 private:
  std::variant<Os...> held_;
};

/// Holds any of the built-in optimizers; without one it is AdamW.
using any = one_of<adamw, sgd, lion, muon>;

inline constexpr std::array<std::string_view, 4> names{adamw::name, sgd::name, lion::name, muon::name};

/// Numbers of an optimizer that is made by name; what is empty keeps the optimizer's own default.
struct settings {
  std::optional<double> beta1 = {}, beta2 = {};  ///< adamw, lion; of muon those of its AdamW
  std::optional<double> eps = {};                ///< adamw; of muon that of its AdamW
  std::optional<double> momentum = {};           ///< sgd, muon
  std::optional<bool> nesterov = {};             ///< sgd, muon
  std::optional<double> weight_decay = {};       ///< all; of muon for both halves
};

/// \throws usage_error that lists the names, or names a setting that the optimizer does not have or cannot use
any by_name(std::string_view name, settings const& s = {});

#if ATMANRL_BODIES

ATMANRL_INLINE any by_name(std::string_view name, settings const& s) {
  auto const without = [&](bool given, char const* what) {
    expects<usage_error>(!given, "the optimizer {} has no {}", name, what);
  };
  auto const take = [](auto& number, auto const& given) { number = given.value_or(number); };
  auto const take_moments = [&](auto& o) {
    take(o.beta1, s.beta1);
    take(o.beta2, s.beta2);
    take(o.weight_decay, s.weight_decay);
  };
  auto const take_momentum = [&](auto& o) {
    take(o.momentum, s.momentum);
    take(o.nesterov, s.nesterov);
    take(o.weight_decay, s.weight_decay);
  };
  if (name == adamw::name || name == lion::name) {
    without(s.momentum.has_value(), "momentum but beta1 and beta2");
    without(s.nesterov.has_value(), "choice of Nesterov's step");
  }
  if (name == adamw::name) {
    adamw o;
    take_moments(o);
    take(o.eps, s.eps);
    return o.checked();
  }
  if (name == lion::name) {
    without(s.eps.has_value(), "eps");
    lion o;
    take_moments(o);
    return o.checked();
  }
  if (name == sgd::name) {
    without(s.beta1 || s.beta2, "beta1 and beta2 but a momentum");
    without(s.eps.has_value(), "eps");
    sgd o;
    take_momentum(o);
    return o.checked();
  }
  if (name == muon::name) {
    muon o;
    take_momentum(o);
    take_moments(o.rest);
    take(o.rest.eps, s.eps);
    return o.checked();
  }
  fail<usage_error>("there is no optimizer \"{}\"; there are {}", name, fmt::join(names, ", "));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::optim
