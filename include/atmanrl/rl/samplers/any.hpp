#pragma once

/// \file
/// A sampler that is chosen while the program runs, and the built-in ones by their names.

#include <atmanrl/core/config.hpp>
#include <atmanrl/rl/samplers/greedy.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>

#include <array>
#include <functional>
#include <string_view>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::samplers {

/// Holds any sampler; without one it is multinomial without a cut.
class any {
 public:
  any() : any(multinomial{}) {}
  template <Sampler S>
  requires(!std::same_as<S, any>) any(S sampler) : call_(std::move(sampler)) {}
  int operator()(std::span<float const> logits, double temperature, double u) const {
    return call_(logits, temperature, u);
  }

  /// The sampler if it is an S, else null.
  template <Sampler S>
  S const* holds() const {
    return call_.template target<S>();
  }

 private:
  std::function<int(std::span<float const>, double, double)> call_;
};
static_assert(Sampler<any>);

inline constexpr std::array<std::string_view, 2> names{"multinomial", "greedy"};

/// \param cuts  top-k, top-p and min-p of multinomial
/// \throws usage_error that lists the names, or names a cut that leaves nothing
any by_name(std::string_view name, multinomial const& cuts = {});

#if ATMANRL_BODIES

ATMANRL_INLINE any by_name(std::string_view name, multinomial const& cuts) {
  expects<usage_error>(cuts.top_k >= 0, "top-k is {}, but it must be above 0, or 0 for all", cuts.top_k);
  expects<usage_error>(cuts.top_p > 0 && cuts.top_p <= 1, "top-p is {}, but it must be above 0 and at most 1",
                       cuts.top_p);
  expects<usage_error>(cuts.min_p >= 0 && cuts.min_p <= 1, "min-p is {}, but it must be from 0 to 1", cuts.min_p);
  if (name == "multinomial") return cuts;
  if (name == "greedy") return greedy{};
  fail<usage_error>("there is no sampler \"{}\"; there are {}", name, fmt::join(names, ", "));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::samplers
