#pragma once

/// \file
/// Which samplers a backend may draw for, as numbers that its kernel understands: the built-in ones and no others.

#include <atmanrl/ops/sample.hpp>
#include <atmanrl/rl/samplers/any.hpp>

#include <concepts>
#include <optional>

namespace atmanrl::inline ATMANRL_ABI::samplers {

/// The sampler as numbers; empty for one that only its own code can describe. The type must be exactly a built-in one:
/// a sampler that derives from it may draw otherwise.
template <Sampler S>
std::optional<sample_form> form_of(S const& sampler) {
  if constexpr (std::same_as<S, greedy>) {
    return sample_form{.greedy = true};
  } else if constexpr (std::same_as<S, multinomial>) {
    return sample_form{.top_k = sampler.top_k, .top_p = sampler.top_p, .min_p = sampler.min_p};
  } else if constexpr (std::same_as<S, any>) {
    if (auto const* const g = sampler.template holds<greedy>()) return form_of(*g);
    if (auto const* const m = sampler.template holds<multinomial>()) return form_of(*m);
    return {};
  } else {
    return {};
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::samplers
