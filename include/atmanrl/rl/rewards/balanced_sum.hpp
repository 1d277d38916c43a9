#pragma once

/// \file
/// A main reward plus λ times an auxiliary one, where λ is a number or is chosen from the spreads of the two: a weight
/// is not portable between models and tasks, the share of the spread within groups is.

#include <atmanrl/rl/rewards/reward_gradient.hpp>

#include <cmath>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
/// Mean over groups of the population standard deviation within the group.
inline double spread_within_groups(std::span<float const> values, std::size_t group_size) {
  double sum = 0;
  std::size_t groups = 0;
  for (std::size_t i = 0; i + group_size <= values.size(); i += group_size, ++groups) {
    double mean = 0, square = 0;
    for (float const x : values.subspan(i, group_size)) mean += double(x) / double(group_size);
    for (float const x : values.subspan(i, group_size))
      square += (double(x) - mean) * (double(x) - mean) / double(group_size);
    sum += std::sqrt(square);
  }
  return groups ? sum / double(groups) : 0;
}
}  // namespace detail

namespace rewards {

/// R = main + λ auxiliary (arXiv:2604.16158, section 3.3, with main = outcome and auxiliary = saliency).
/// With `share` > 0, λ is settled at the first step in which both rewards vary within groups, so that λ times the
/// auxiliary's spread is `share` times the main one's; until then the given weight holds. Groups that dynamic sampling
/// draws settle nothing: they are few, and λ stays the same within a step.
template <class Main, class Auxiliary>
class balanced_sum {
 public:
  static constexpr std::string_view name = "balanced_sum";

  explicit balanced_sum(Main main = Main{}, Auxiliary auxiliary = Auxiliary{}, double weight = 1, double share = 0)
      : main_(std::move(main)),
        auxiliary_(std::move(auxiliary)),
        weight_(weight),
        share_(share),
        settled_(share <= 0) {}

  template <class Model>
  void operator()(step_rollouts& step, Model& model, std::span<float> out) {
    auto const all = table(step, model);
    std::copy(all.total.begin(), all.total.end(), out.begin());
  }

  template <class Model>
  reward_table table(step_rollouts& step, Model& model) {
    auto a = reward_values(main_, step, model), b = reward_values(auxiliary_, step, model);
    if (!settled_ && step.round == 0 && !step.groups.empty()) {
      std::size_t const size = step.groups.front().rollouts.size();
      double const main_spread = atmanrl::detail::spread_within_groups(a, size),
                   own_spread = atmanrl::detail::spread_within_groups(b, size);
      if (main_spread > 0 && own_spread > 0) {
        weight_ = share_ * main_spread / own_spread;
        settled_ = true;
      }
    }
    reward_table t;
    for (std::size_t i = 0; i < a.size(); ++i) t.total.push_back(a[i] + float(weight_) * b[i]);
    t.components.push_back({atmanrl::detail::reward_name(main_), 1.0f, std::move(a)});
    t.components.push_back({atmanrl::detail::reward_name(auxiliary_), float(weight_), std::move(b)});
    return t;
  }

  /// The weight is taken as a number: it is settled once.
  template <class Model, class Gradient>
  requires atmanrl::detail::AnyWithGradient<Model, Main, Auxiliary>
  void add_gradient(step_rollouts& step, Model& model, std::span<double const> scale, Gradient gradient) {
    atmanrl::detail::add_scaled_gradient(main_, 1.0, step, model, scale, gradient);
    atmanrl::detail::add_scaled_gradient(auxiliary_, weight_, step, model, scale, gradient);
  }

  Main& main() { return main_; }
  Auxiliary& auxiliary() { return auxiliary_; }
  template <class F>
  void for_each_part(F&& f) {
    f(main_);
    f(auxiliary_);
  }
  double weight() const { return weight_; }
  bool settled() const { return settled_; }
  /// Puts back what a checkpoint remembered.
  void settle(double weight) {
    weight_ = weight;
    settled_ = true;
  }

 private:
  Main main_;
  Auxiliary auxiliary_;
  double weight_, share_;
  bool settled_;
};

}  // namespace rewards
}  // namespace atmanrl::inline ATMANRL_ABI
