#pragma once

/// \file
/// Saliency reward: how much of the chain of thought had to be re-enabled to restore the right answer
/// (arXiv:2604.16158, section 3.2, eq. 3), from masks that are trained through the present policy.

#include <atmanrl/rl/rewards/reward.hpp>
#include <atmanrl/saliency/mask_training.hpp>

#include <algorithm>

namespace atmanrl {

/// Which way round the mean of Ĥ is read; the printed sign pays for filler (docs/method.md).
enum class saliency_direction { re_enabled, as_printed };

namespace rewards {

/// R_saliency of rollouts that have a mask; the others get the smallest R_saliency of the step, because a zero would pay
/// for invalid output whenever the reward is negative. All rollouts of the step are trained together.
class saliency {
 public:
  static constexpr std::string_view name = "saliency";

  explicit saliency(mask_options options = mask_options::recommended(), saliency_direction direction = saliency_direction::re_enabled)
      : options_(options), direction_(direction) {}

  template <class Model>
  void operator()(step_rollouts& step, Model& model, std::span<float> out) {
    std::vector<mask_item> items;
    std::vector<rollout*> owners;
    step.for_each([&](rollout_group& g, rollout& r, std::size_t) {
      r.mask.reset();
      if (r.cot().empty() || r.label_delimiter.empty() || r.label_answer.empty()) return;
      // Behind a chain of thought that fills the model's positions there is no room for the label.
      std::size_t const positions = g.prompt_ids.size() + r.cot().size() + r.label_delimiter.size() + r.label_answer.size() - 1;
      if (index_t(positions) > model.config().max_positions) return;
      items.push_back({g.prompt_ids, r.cot(), r.label_delimiter, r.label_answer});
      owners.push_back(&r);
    });
    quantiles_ = {};
    if (!items.empty()) {
      if (options_.scale == 0) options_.scale = choose_scale(model, std::span<mask_item const>(items), options_);
      auto results = train_masks(model, std::span<mask_item const>(items), options_, &quantiles_);
      for (std::size_t i = 0; i < owners.size(); ++i) owners[i]->mask = std::move(results[i]);
    }
    float smallest = 0;
    bool any = false;
    step.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
      if (!r.mask) return;
      out[i] = float(direction_ == saliency_direction::re_enabled ? r.mask->re_enabled : r.mask->as_printed);
      smallest = any ? std::min(smallest, out[i]) : out[i];
      any = true;
    });
    step.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
      if (!r.mask) out[i] = smallest;
    });
  }

  /// Options in use; a scale of 0 has been replaced by the chosen one after the first step that had a mask.
  mask_options const& options() const { return options_; }
  void set_scale(double scale) { options_.scale = scale; }
  gradient_quantiles const& quantiles() const { return quantiles_; }

 private:
  mask_options options_;
  saliency_direction direction_;
  gradient_quantiles quantiles_;
};

}  // namespace rewards
}  // namespace atmanrl
