#pragma once

/// \file
/// Rankings that look at nothing but positions and digits. A saliency that is no better than these has found nothing.

#include <atmanrl/core/random.hpp>
#include <atmanrl/saliency/mask_training.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>

#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::baselines {

/// Later tokens first.
inline std::vector<float> recency(std::size_t tokens) {
  std::vector<float> s(tokens);
  for (std::size_t i = 0; i < tokens; ++i) s[i] = float(i);
  return s;
}

/// Digits before everything else, all alike.
inline std::vector<float> is_digit(std::vector<bool> const& digit) { return {digit.begin(), digit.end()}; }

/// Digits before everything else, the later ones first.
inline std::vector<float> late_digits(std::vector<bool> const& digit) {
  std::vector<float> s(digit.size());
  for (std::size_t i = 0; i < digit.size(); ++i) s[i] = digit[i] ? float(i + 1) : 0.0f;
  return s;
}

/// Uniform numbers, a function of (seed, item, order, token).
inline std::vector<float> random(std::size_t tokens, std::uint64_t seed, std::size_t item, std::size_t order = 0) {
  std::vector<float> s(tokens);
  for (std::size_t i = 0; i < tokens; ++i)
    s[i] = float(uniform(random_key{.seed = seed,
                                    .step = 0x5A11E7u,
                                    .prompt = std::uint32_t(item),
                                    .rollout = std::uint32_t(order),
                                    .position = std::uint32_t(i)}));
  return s;
}

/// Which tokens hold a digit.
template <Tokenizer Z>
std::vector<bool> digit_tokens(Z const& tokenizer, std::span<int const> ids) {
  std::vector<bool> out;
  for (int const id : ids)
    out.push_back(std::string_view(tokenizer.token_bytes(id)).find_first_of("0123456789") != std::string_view::npos);
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI::baselines
