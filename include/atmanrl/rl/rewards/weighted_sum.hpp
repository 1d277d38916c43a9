#pragma once

/// \file
/// Sum of rewards, each with its weight; the parts stay visible as named components (docs/method.md, (M16)).

#include <atmanrl/rl/rewards/reward_gradient.hpp>

#include <array>
#include <tuple>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// A reward and its weight.
template <class R>
struct term {
  float weight = 1;
  R reward;
};
template <class R>
term(float, R) -> term<R>;

/// R = sum_k weight_k reward_k. `weighted_sum<a, b>{}` weighs all by 1; `weighted_sum{term{1.0f, a{}}, term{0.2f,
/// b{}}}` says the weights.
template <class... Rs>
class weighted_sum {
 public:
  static constexpr std::string_view name = "weighted_sum";

  weighted_sum() = default;
  explicit weighted_sum(term<Rs>... terms) : terms_{std::move(terms)...} {}

  template <class Model, class Wanted = every_rollout>
  void operator()(step_rollouts& step, Model& model, std::span<float> out, Wanted const& wanted = {}) {
    auto const all = table(step, model, wanted);
    std::copy(all.total.begin(), all.total.end(), out.begin());
  }

  template <class Model, class Wanted = every_rollout>
  reward_table table(step_rollouts& step, Model& model, Wanted const& wanted = {}) {
    static_assert((atmanrl::detail::explain_reward<Rs, Model>() && ...));
    reward_table t{std::vector<float>(step.size(), 0.0f), {}};
    std::apply([&](auto&... each) { (add(each, step, model, wanted, t), ...); }, terms_);
    return t;
  }

  template <class Model, class Gradient>
  requires atmanrl::detail::AnyWithGradient<Model, Rs...>
  void add_gradient(step_rollouts& step, Model& model, std::span<double const> scale, Gradient gradient) {
    std::apply(
        [&](auto&... each) {
          (atmanrl::detail::add_scaled_gradient(each.reward, each.weight, step, model, scale, gradient), ...);
        },
        terms_);
  }

  /// The k-th reward, for its options and its state.
  template <std::size_t K>
  auto& reward() {
    return std::get<K>(terms_).reward;
  }
  template <std::size_t K>
  float& weight() {
    return std::get<K>(terms_).weight;
  }
  template <class F>
  void for_each_part(F&& f) {
    std::apply([&](auto&... each) { (f(each.reward), ...); }, terms_);
  }

 private:
  template <class R, class Model, class Wanted>
  static void add(term<R>& each, step_rollouts& step, Model& model, Wanted const& wanted, reward_table& t) {
    reward_component c{atmanrl::detail::reward_name(each.reward), each.weight,
                       reward_values(each.reward, step, model, wanted)};
    for (std::size_t i = 0; i < t.total.size(); ++i) t.total[i] += each.weight * c.values[i];
    t.components.push_back(std::move(c));
  }

  std::tuple<term<Rs>...> terms_{};
};
template <class... Rs>
weighted_sum(term<Rs>...) -> weighted_sum<Rs...>;

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
