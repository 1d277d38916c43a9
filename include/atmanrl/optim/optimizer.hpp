#pragma once

/// \file
/// What an optimizer is. A small value holds its numbers (`optim::adamw{.beta2 = 0.95}`); its `state<B, T>` holds what
/// it remembers of one flat parameter array on backend B. The learning rate belongs to neither: a schedule gives it for
/// every step. The same type serves the weights of a model and attention masks.

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <ranges>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace optim {

/// One parameter of a flat array as a row-major matrix; a vector has one row.
struct parameter_shape {
  std::string_view name;  ///< that of the Hugging Face file
  index_t offset = 0;     ///< its first element in the flat array
  index_t rows = 1, columns = 0;

  index_t size() const { return rows * columns; }
};

/// The flat array that an optimizer is made for. Elements that no shape covers belong to vectors. The shapes and their
/// names need not outlive the call that they are given to.
struct parameter_list {
  index_t size = 0;
  std::span<parameter_shape const> shapes = {};  ///< ascending, without overlap
};

/// The shapes of a layout that lists name, offset, rows and columns (`model.trainable_layout()`), which must outlive
/// them.
template <class Layout>
std::vector<parameter_shape> shapes_of(Layout const& layout) {
  std::vector<parameter_shape> shapes;
  for (auto const& p : layout.all()) shapes.push_back({p.name, p.offset, p.rows, p.columns});
  return shapes;
}

/// An array of an optimizer's state and the name that checkpoints keep it under.
template <class B, class T>
struct named_array {
  std::string_view name;
  tensor<B, T, 1>* values;
};

/// What the states of most optimizers are made of: the optimizer's numbers, arrays, zero before the first step, and the
/// number of steps.
template <class O, Backend B, class T>
class moments {
 public:
  struct wanted {
    std::string_view name;  ///< must outlive the state: a literal
    index_t size;
  };

  moments(O const& numbers, B& backend, std::initializer_list<wanted> arrays) : backend_(&backend), numbers_(numbers) {
    values_.resize(arrays.size());
    restart(numbers, arrays);
  }

  /// For checkpoints: a state whose arrays and steps are put back goes on as if it had not stopped.
  std::vector<named_array<B, T>> arrays() {
    std::vector<named_array<B, T>> all;
    for (std::size_t i = 0; i < values_.size(); ++i) all.push_back({names_[i], &values_[i]});
    return all;
  }
  std::uint64_t steps() const { return steps_; }
  void set_steps(std::uint64_t steps) { steps_ = steps; }

 protected:
  B& backend() { return *backend_; }
  O const& numbers() const { return numbers_; }
  view_on<B, T, 1> moment(std::size_t i) { return values_[i].view(); }
  /// Counts a step. \returns its number, 1 for the first
  std::uint64_t next_step() { return ++steps_; }
  /// As before the first step, with as many arrays of other sizes; memory is kept.
  void restart(O const& numbers, std::initializer_list<wanted> arrays) {
    numbers_ = numbers;
    names_.clear();
    for (wanted const& w : arrays) {
      tensor<B, T, 1>& t = values_[names_.size()];
      t.resize(*backend_, {w.size});
      t.fill_zero();
      names_.push_back(w.name);
    }
    steps_ = 0;
  }

 private:
  B* backend_;
  O numbers_;
  std::vector<tensor<B, T, 1>> values_;
  std::vector<std::string_view> names_;
  std::uint64_t steps_ = 0;
};

}  // namespace optim

namespace detail {
template <class S, class B, class T>
concept HasOptimizerStep = requires(S& s, view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient, double rate) {
  s.step(parameters, gradient, rate);
};
template <class S, class B, class T>
concept HasOptimizerCheckpoint = requires(S& s, S const& c, std::uint64_t steps) {
  { c.steps() } -> std::convertible_to<std::uint64_t>;
  s.set_steps(steps);
  requires std::convertible_to<std::ranges::range_reference_t<decltype(s.arrays())>, optim::named_array<B, T>>;
};
}  // namespace detail

/// A copyable value O with a class template `state<B, T>`:
///     state(O const& numbers, B& backend, optim::parameter_list const& all);
///     void step(view_on<B, T, 1> parameters, view_on<B, T const, 1> gradient, double learning_rate);
///     steps(), set_steps(n), arrays()      // for checkpoints; a base class `optim::moments<O, B, T>` has the three
/// `bool is_elementwise() const` says that an element's update is a function of that element's history alone: then each
/// of several ranks holds the state of its slice of the parameters (ZeRO-1), else every rank that of all of them.
/// Two more are used where they are there: `step(parameters, gradient, learning_rate, std::span<element_range const>)`,
/// which updates some ranges alone, and `void restart(O const&, optim::parameter_list const&)`, which makes the state a
/// new one in the memory that it has.
template <class O, class B = reference_backend, class T = float>
concept Optimizer = std::copyable<O> && requires {
  typename O::template state<B, T>;
} && std::constructible_from<typename O::template state<B, T>, O const&, B&, optim::parameter_list const&>&&
    detail::HasOptimizerStep<typename O::template state<B, T>, B, T>&&
        detail::HasOptimizerCheckpoint<typename O::template state<B, T>, B, T>;

namespace optim {
/// Takes a step whose results go to where a model stores them, where an optimizer's state can: it has
///     step_and_store(parameters, gradient, learning_rate, gradient scale, std::span<stored_range<T> const>)
/// or, as a choice of several, `try_step_and_store`, which says whether it did.
/// \returns whether it was taken
template <class State, class... Arguments>
bool try_step_and_store(State& state, Arguments const&... arguments) {
  if constexpr (requires { state.try_step_and_store(arguments...); }) return state.try_step_and_store(arguments...);
  if constexpr (requires { state.step_and_store(arguments...); }) {
    state.step_and_store(arguments...);
    return true;
  }
  return false;
}

template <class O>
bool is_elementwise([[maybe_unused]] O const& optimizer) {
  if constexpr (requires {
                  { optimizer.is_elementwise() } -> std::convertible_to<bool>;
                })
    return optimizer.is_elementwise();
  else
    return false;
}
}  // namespace optim

namespace detail {
/// One sentence for what is wrong with a type that was meant to be an optimizer.
template <class O, class B, class T>
consteval bool explain_optimizer() {
  if constexpr (!std::copyable<O> || !requires { typename O::template state<B, T>; })
    static_assert(always_false<O>,
                  "atmanrl: not an Optimizer: write a copyable struct of its numbers with `template <atmanrl::Backend "
                  "B, class T> struct state` (see docs/extending.md#optimizers)");
  else if constexpr (!std::constructible_from<typename O::template state<B, T>, O const&, B&,
                                              optim::parameter_list const&>)
    static_assert(always_false<O>,
                  "atmanrl: an Optimizer's state lacks its constructor `state(O const& numbers, B& backend, "
                  "atmanrl::optim::parameter_list const& all)` (see docs/extending.md#optimizers)");
  else if constexpr (!HasOptimizerStep<typename O::template state<B, T>, B, T>)
    static_assert(
        always_false<O>,
        "atmanrl: an Optimizer's state lacks `void step(atmanrl::view_on<B, T, 1> parameters, "
        "atmanrl::view_on<B, T const, 1> gradient, double learning_rate)` (see docs/extending.md#optimizers)");
  else if constexpr (!HasOptimizerCheckpoint<typename O::template state<B, T>, B, T>)
    static_assert(
        always_false<O>,
        "atmanrl: an Optimizer's state lacks `arrays()`, `steps() const` or `set_steps(std::uint64_t)`, which "
        "checkpoints need; derive it from atmanrl::optim::moments<O, B, T> (see docs/extending.md#optimizers)");
  return true;
}
}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
