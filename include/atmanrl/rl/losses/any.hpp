#pragma once

/// \file
/// A policy loss that is chosen while the program runs, and the built-in ones by their names.

#include <atmanrl/core/config.hpp>
#include <atmanrl/rl/losses/bnpo.hpp>
#include <atmanrl/rl/losses/cispo.hpp>
#include <atmanrl/rl/losses/dapo.hpp>
#include <atmanrl/rl/losses/dr_grpo.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/losses/gspo.hpp>
#include <atmanrl/rl/losses/kl.hpp>
#include <atmanrl/rl/losses/two_sided.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::losses {

/// Holds any policy loss; without one it is grpo.
class any {
 public:
  any() : any(grpo{}) {}
  template <PolicyLoss L>
  requires(!std::same_as<L, any>) any(L loss) : held_(std::make_shared<holder<L> const>(std::move(loss))) {}

  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    return held_->evaluate(r, scope, dlog_p, token_loss);
  }
  bool clipped(loss_rollout const& r, std::size_t t) const { return held_->clipped(r, t); }
  /// \throws usage_error for a loss that has none
  double token_weight(loss_rollout const& r, loss_scope const& scope) const { return held_->token_weight(r, scope); }
  bool needs_reference() const { return held_->needs_reference(); }
  double kl(loss_rollout const& r, std::size_t t) const { return held_->kl(r, t); }
  bool clips_completions() const { return held_->clips_completions(); }
  std::string_view clip_metric() const { return held_->clip_metric(); }

 private:
  struct base {
    virtual ~base() = default;
    virtual double evaluate(loss_rollout const&, loss_scope const&, std::span<float>, std::span<float>) const = 0;
    virtual bool clipped(loss_rollout const&, std::size_t) const = 0;
    virtual double token_weight(loss_rollout const&, loss_scope const&) const = 0;
    virtual bool needs_reference() const = 0;
    virtual double kl(loss_rollout const&, std::size_t) const = 0;
    virtual bool clips_completions() const = 0;
    virtual std::string_view clip_metric() const = 0;
  };
  template <class L>
  struct holder final : base {
    L loss;
    explicit holder(L l) : loss(std::move(l)) {}
    double evaluate(loss_rollout const& r, loss_scope const& s, std::span<float> d, std::span<float> t) const override {
      return loss(r, s, d, t);
    }
    bool clipped(loss_rollout const& r, std::size_t t) const override { return loss.clipped(r, t); }
    double token_weight(loss_rollout const& r, loss_scope const& s) const override {
      if constexpr (TokenWeightedLoss<L>)
        return loss.token_weight(r, s);
      else
        fail<usage_error>("this policy loss has no token_weight, so it takes no KL term");
    }
    bool needs_reference() const override { return atmanrl::needs_reference(loss); }
    double kl(loss_rollout const& r, std::size_t t) const override {
      if constexpr (ReferenceLoss<L>)
        return loss.kl(r, t);
      else
        return 0;
    }
    bool clips_completions() const override { return atmanrl::clips_completions(loss); }
    std::string_view clip_metric() const override { return atmanrl::clip_metric_of(loss); }
  };
  std::shared_ptr<base const> held_;
};
static_assert(PolicyLoss<any> && ReferenceLoss<any>);

inline constexpr std::array<std::string_view, 7> names{"grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "two_sided"};
inline constexpr std::array<std::string_view, 3> kl_names{"k1", "k2", "k3"};

/// Numbers of a loss that is made by name; what is empty keeps the loss's own default.
struct settings {
  std::optional<double> clip_low, clip_high;  ///< of cispo, clip_high is the cap of the ratio
  std::optional<double> delta;                ///< two_sided only
  std::optional<ratio_level> level;           ///< not for gspo and cispo, which have a level of their own

  bool operator==(settings const&) const = default;
};

/// \throws usage_error that lists the names, or names a setting that the loss does not have or cannot use
any by_name(std::string_view name, settings const& s = {});

/// The loss with a KL term; with a coefficient of 0 the loss as it is.
/// \throws usage_error that lists the estimators
any add_kl(any loss, std::string_view estimator, double coefficient);

#if ATMANRL_BODIES

ATMANRL_INLINE any by_name(std::string_view name, settings const& s) {
  auto const number = [](char const* what, double x) {
    expects<usage_error>(x >= 0, "{} is {}, but it must not be negative", what, x);
  };
  number("clip_low", s.clip_low.value_or(0));
  number("clip_high", s.clip_high.value_or(0));
  auto const without = [&](bool given, char const* what) {
    expects<usage_error>(!given, "the loss {} has no {}", name, what);
  };
  without(s.delta.has_value() && name != "two_sided", "delta");
  bool const own_level = name == "gspo" || name == "cispo";
  without(own_level && s.level.has_value(), "choice of the ratio's level");
  auto const clipped = [&](auto loss) {
    loss.clip_low = s.clip_low.value_or(loss.clip_low);
    loss.clip_high = s.clip_high.value_or(loss.clip_high);
    if constexpr (!std::same_as<decltype(loss), gspo>) loss.level = s.level.value_or(loss.level);
    return loss;
  };
  if (name == "grpo") return clipped(grpo{});
  if (name == "bnpo") return clipped(bnpo{});
  if (name == "dr_grpo") return clipped(dr_grpo{});
  if (name == "dapo") return clipped(dapo{});
  if (name == "gspo") return clipped(gspo{});
  if (name == "cispo") {
    without(s.clip_low.has_value(), "lower clip");
    return cispo{.max_ratio = s.clip_high.value_or(cispo{}.max_ratio)};
  }
  if (name == "two_sided") {
    two_sided loss = clipped(two_sided{});
    loss.delta = s.delta.value_or(loss.delta);
    expects<usage_error>(loss.delta > 1 + loss.clip_high, "delta is {}, but it must be above 1 + clip_high = {}",
                         loss.delta, 1 + loss.clip_high);
    return loss;
  }
  fail<usage_error>("there is no loss \"{}\"; there are {}", name, fmt::join(names, ", "));
}

ATMANRL_INLINE any add_kl(any loss, std::string_view estimator, double coefficient) {
  expects<usage_error>(std::find(kl_names.begin(), kl_names.end(), estimator) != kl_names.end(),
                       "there is no KL estimator \"{}\"; there are {}", estimator, fmt::join(kl_names, ", "));
  if (coefficient == 0) return loss;
  if (estimator == "k1") return with_kl{std::move(loss), kl::k1{}, coefficient};
  if (estimator == "k2") return with_kl{std::move(loss), kl::k2{}, coefficient};
  return with_kl{std::move(loss), kl::k3{}, coefficient};
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::losses
