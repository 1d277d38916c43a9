#pragma once

/// \file
/// What every optimizer promises (docs/extending.md#optimizers): a state that is put back goes on with the same bits, a
/// rate of 0 moves no weight, a zero gradient makes nothing that is not finite, an elementwise one is the same over
/// slices, and its steps over ranges are those of its whole step there.

#include <atmanrl/ops/adamw.hpp>
#include <atmanrl/optim/optimizer.hpp>
#include <atmanrl/testing/broken_promise.hpp>
#include <atmanrl/testing/derivatives.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// The array that an optimizer is checked on: an embedding, a matrix, a vector, and three elements that no shape
/// covers.
inline optim::parameter_list parameters_to_optimize() {
  static std::vector<optim::parameter_shape> const shapes{{"model.embed_tokens.weight", 0, 6, 4},
                                                          {"model.layers.0.self_attn.q_proj.weight", 24, 5, 4},
                                                          {"model.layers.0.input_layernorm.weight", 44, 1, 4}};
  return {51, shapes};
}

/// A few steps of an optimizer on an array of random numbers.
template <Backend B, class T, class O>
class optimizer_run {
 public:
  using state_type = typename O::template state<B, T>;

  /// \param first, count  the elements that this run has of `whole`, of which it knows no shapes where they are not all
  optimizer_run(O const& optimizer, B& backend, optim::parameter_list const& whole, index_t first = 0,
                index_t count = -1)
      : optimizer_(optimizer),
        backend_(&backend),
        whole_(whole),
        first_(std::size_t(first)),
        own_(count < 0 ? whole : optim::parameter_list{count, {}}),
        parameters_(backend, {own_.size}),
        gradient_(backend, {own_.size}),
        state_(std::make_unique<state_type>(optimizer, backend, own_)) {
    parameters_.assign(part(converted<T>(random_values(whole.size, 1))));
  }

  state_type& state() { return *state_; }
  std::vector<T> parameters() const { return parameters_.to_host(); }
  std::vector<T> const& start() {
    if (start_.empty()) start_ = parameters();
    return start_;
  }

  /// Step `number`, 0 for the first, along the parameters and random numbers of its own, both times `size`.
  void step(unsigned number, double rate, double size = 1) {
    set_gradient(number, size);
    state_->step(parameters_.view(), gradient_.cview(), rate);
  }
  void step_over(unsigned number, double rate, std::span<element_range const> ranges) {
    set_gradient(number, 1);
    state_->step(parameters_.view(), gradient_.cview(), rate, ranges);
  }
  /// Writes the state down as a checkpoint does, and goes on with a fresh one that it is put into.
  void write_down_and_put_back() {
    std::map<std::string, std::vector<T>> kept;
    for (auto const& a : state_->arrays()) kept[std::string(a.name)] = a.values->to_host();
    auto const steps = state_->steps();
    state_ = std::make_unique<state_type>(optimizer_, *backend_, own_);
    for (auto const& a : state_->arrays()) a.values->assign(kept.at(std::string(a.name)));
    state_->set_steps(steps);
  }

 private:
  std::vector<T> part(std::vector<T> const& all) const {
    auto const begin = all.begin() + std::ptrdiff_t(first_);
    return {begin, begin + own_.size};
  }
  void set_gradient(unsigned number, double size) {
    auto g = part(converted<T>(random_values(whole_.size, 100 + number)));
    auto const p = parameters_.to_host();
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = T(size) * (g[i] + p[i]);
    gradient_.assign(g);
  }

  O optimizer_;
  B* backend_;
  optim::parameter_list whole_;
  std::size_t first_;
  optim::parameter_list own_;
  tensor<B, T, 1> parameters_, gradient_;
  std::unique_ptr<state_type> state_;
  std::vector<T> start_;
};

/// \tparam T  of the array: float where models are trained
/// \throws broken_promise
template <class T = float, class O, Backend B>
requires Optimizer<O, B, T>
void check_optimizer(O const& optimizer, B& backend, std::string const& name = name_of<O>()) {
  using run = optimizer_run<B, T, O>;
  auto const all = parameters_to_optimize();
  constexpr unsigned steps = 10;
  auto const rate = [](unsigned step) { return 0.01 * (1 + step); };
  auto const after = [&](auto&& before_step) {
    run r(optimizer, backend, all);
    for (unsigned s = 0; s < steps; ++s) {
      before_step(r, s);
      r.step(s, rate(s));
    }
    expects<broken_promise>(r.state().steps() == steps, "{}: steps() is {} after {} steps", name, r.state().steps(),
                            steps);
    return r.parameters();
  };
  auto const equal = [&](std::vector<T> const& got, std::vector<T> const& expected, std::string_view when,
                         index_t first = 0) {
    for (std::size_t i = 0; i < got.size(); ++i)
      expects<broken_promise>(got[i] == expected[std::size_t(first) + i], "{}: element {} is {} {}, but {} without",
                              name, first + index_t(i), double(got[i]), when, double(expected[std::size_t(first) + i]));
  };

  {
    run fresh(optimizer, backend, all);
    std::map<std::string, index_t> sizes;
    for (auto const& a : fresh.state().arrays()) {
      expects<broken_promise>(!a.name.empty() && sizes.try_emplace(std::string(a.name), a.values->size()).second,
                              "{}: two arrays of its state have the name \"{}\", or it is empty: checkpoints find them "
                              "by it",
                              name, a.name);
      if (optim::is_elementwise(optimizer))
        expects<broken_promise>(a.values->size() == 0 || a.values->size() == all.size,
                                "{}: is elementwise, but its array \"{}\" has {} values for {} elements", name, a.name,
                                a.values->size(), all.size);
    }
    expects<broken_promise>(fresh.state().steps() == 0, "{}: steps() is {} before the first step", name,
                            fresh.state().steps());
    auto const before = fresh.start();
    fresh.step(0, 0);
    fresh.step(1, 0);
    equal(fresh.parameters(), before, "after two steps at a rate of 0");
    for (auto const& a : fresh.state().arrays())
      expects<broken_promise>(sizes.contains(std::string(a.name)) && sizes[std::string(a.name)] == a.values->size(),
                              "{}: its array \"{}\" has {} values after a step and {} before", name, a.name,
                              a.values->size(), sizes[std::string(a.name)]);
    if constexpr (requires { fresh.state().restart(optimizer, all); }) {
      fresh.state().restart(optimizer, all);
      for (unsigned s = 0; s < steps; ++s) fresh.step(s, rate(s));
      equal(fresh.parameters(), after([](run&, unsigned) {}), "in a state that was restarted");
    }
  }

  auto const whole = after([](run&, unsigned) {});
  for (std::size_t i = 0; i < whole.size(); ++i)
    expects<broken_promise>(std::isfinite(double(whole[i])), "{}: element {} is {} after {} steps", name, i,
                            double(whole[i]), steps);
  expects<broken_promise>(whole != run(optimizer, backend, all).start(), "{}: no weight moves in {} steps", name,
                          steps);
  for (unsigned const stop : {1u, 6u})
    equal(after([&](run& r, unsigned s) {
            if (s == stop) r.write_down_and_put_back();
          }),
          whole, fmt::format("where its arrays and steps are written down and put back after {} steps", stop));

  for (double const size : {0.0, 1e-30}) {
    run still(optimizer, backend, all);
    for (unsigned s = 0; s < 3; ++s) still.step(s, rate(s), size);
    auto const p = still.parameters();
    for (std::size_t i = 0; i < p.size(); ++i)
      expects<broken_promise>(std::isfinite(double(p[i])),
                              "{}: element {} is {} after 3 steps along gradients of size {}", name, i, double(p[i]),
                              size);
  }

  if (optim::is_elementwise(optimizer))
    for (auto const [first, count] : {element_range{0, 17}, element_range{17, 30}, element_range{47, 4}}) {
      run slice(optimizer, backend, all, first, count);
      for (unsigned s = 0; s < steps; ++s) slice.step(s, rate(s));
      equal(slice.parameters(), whole,
            fmt::format("in a slice of the elements {} to {}, though is_elementwise() says that slices do not matter,",
                        first, first + count - 1),
            first);
    }

  if constexpr (requires(run & r) {
                  r.state().step(view_on<B, T, 1>{}, view_on<B, T const, 1>{}, 0.0, std::span<element_range const>{});
                }) {
    std::vector<element_range> const ranges{{3, 9}, {30, 14}};
    run some(optimizer, backend, all);
    auto const before = some.start();
    for (unsigned s = 0; s < steps; ++s) some.step_over(s, rate(s), ranges);
    auto const p = some.parameters();
    for (std::size_t i = 0; i < p.size(); ++i) {
      bool const inside = std::ranges::any_of(
          ranges, [&](element_range r) { return index_t(i) >= r.first && index_t(i) < r.first + r.count; });
      expects<broken_promise>(p[i] == (inside ? whole : before)[i],
                              "{}: a step over ranges leaves element {}, which is {} of them, at {} and not at {}",
                              name, i, inside ? "in one" : "in none", double(p[i]),
                              double((inside ? whole : before)[i]));
    }
  }
}

/// On plain loops.
template <class O>
void check_optimizer(O const& optimizer) {
  reference_backend backend;
  check_optimizer(optimizer, backend);
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
