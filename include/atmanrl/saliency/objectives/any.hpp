#pragma once

/// \file
/// A mask objective that is chosen while the program runs, and the built-in ones by their names.

#include <atmanrl/core/config.hpp>
#include <atmanrl/saliency/objectives/cross_entropy.hpp>
#include <atmanrl/saliency/objectives/excess_cross_entropy.hpp>
#include <atmanrl/saliency/objectives/kl_to_unmasked.hpp>

#include <array>
#include <memory>
#include <string_view>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::objectives {

/// Holds any mask objective; without one it is the cross-entropy. Copies share what is held.
class any {
 public:
  std::string_view name;              ///< of the held objective
  bool needs_logits, needs_unmasked;  ///< what the held objective reads
  bool is_linear;                     ///< whether its derivative is always the same
  bool is_mean_divergence;            ///< whether it is what a backend may compute by itself

  any() : any(cross_entropy{}) {}
  // What it is not comes first: to ask whether it is copyable, as the concept does, would ask for this constructor.
  template <class O>
  requires(!std::same_as<O, any> && MaskObjective<O>) any(O objective)
      : any(std::make_shared<holder<O> const>(std::move(objective))) {}

  double operator()(answer_log_probs const& a, std::span<double> derivative) const {
    return held_->of_log_probs(a, derivative);
  }
  double operator()(answer_logits const& a, std::span<double> derivative) const {
    return held_->of_logits(a, derivative);
  }

 private:
  struct base {
    virtual ~base() = default;
    virtual double of_log_probs(answer_log_probs const&, std::span<double>) const = 0;
    virtual double of_logits(answer_logits const&, std::span<double>) const = 0;
  };
  template <class O>
  struct holder final : base {
    O objective;
    explicit holder(O o) : objective(std::move(o)) {}
    double of_log_probs([[maybe_unused]] answer_log_probs const& a,
                        [[maybe_unused]] std::span<double> d) const override {
      if constexpr (LogProbObjective<O>)
        return objective(a, d);
      else
        fail<usage_error>("the mask objective {} reads logits, not log-probabilities", objective.name);
    }
    double of_logits([[maybe_unused]] answer_logits const& a, [[maybe_unused]] std::span<double> d) const override {
      if constexpr (LogitObjective<O>)
        return objective(a, d);
      else
        fail<usage_error>("the mask objective {} reads log-probabilities, not logits", objective.name);
    }
  };
  // The name of an object lives where the object does.
  template <class O>
  explicit any(std::shared_ptr<holder<O> const> held)
      : name(held->objective.name),
        needs_logits(detail::needs_logits(held->objective)),
        needs_unmasked(detail::needs_unmasked(held->objective)),
        is_linear(detail::is_linear(held->objective)),
        is_mean_divergence(detail::is_mean_divergence(held->objective)),
        held_(std::move(held)) {}

  std::shared_ptr<base const> held_;
};
static_assert(MaskObjective<any> && LogProbObjective<any> && LogitObjective<any>);

inline constexpr std::array<std::string_view, 3> names{cross_entropy::name, kl_to_unmasked::name,
                                                       excess_cross_entropy::name};

/// \throws usage_error that lists the names
any by_name(std::string_view name);

#if ATMANRL_BODIES

ATMANRL_INLINE any by_name(std::string_view name) {
  if (name == cross_entropy::name) return cross_entropy{};
  if (name == kl_to_unmasked::name) return kl_to_unmasked{};
  if (name == excess_cross_entropy::name) return excess_cross_entropy{};
  fail<usage_error>("there is no mask objective \"{}\"; there are {}", name, fmt::join(names, ", "));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::objectives
