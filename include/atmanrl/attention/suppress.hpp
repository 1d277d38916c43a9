#pragma once

/// \file
/// AtMan's suppression of tokens (Deiseroth et al. 2023, arXiv:2301.08110): the scores of a row are shifted so that the
/// smallest is 0, then those of the chosen keys are multiplied by a factor f,
///     S'(w,v) = (S(w,v) - m(w)) f    on chosen keys,    S(w,v) - m(w)    elsewhere,    m(w) = min over visible v of
///     S(w,v).
/// A softmax does not see a shift of the whole row, so m is added back and only the chosen keys change: S f + m (1 -
/// f).

#include <atmanrl/attention/key_selection.hpp>

#include <cmath>

namespace atmanrl::inline ATMANRL_ABI::attention {

/// The multiplicative form. It looks at the row's smallest score, therefore forward only.
template <Backend B>
class suppress {
 public:
  struct params_type : key_selections<B>::params_type {
    static constexpr bool needs_row_min = true;
    float factor;

    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, score_site at, T row_min) const {
      using real = decltype(real_part(T{}));
      return this->chosen(at) ? score * real(factor) + row_min * real(1 - factor) : score;
    }
  };

  /// \param factor  1 leaves a score as it is, 0 makes it the smallest of its row
  suppress(B& backend, std::span<key_selection const> selections, float factor = 0.1f)
      : selections_(backend, selections), factor_(factor) {
    expects<usage_error>(std::isfinite(factor) && factor >= 0,
                         "the factor of a suppression is {}, but it must be 0 or above", factor);
  }

  params_type params() const { return {selections_.params(), factor_}; }

 private:
  key_selections<B> selections_;
  float factor_;
};

/// The additive form S + log f, which multiplies a key's weight before normalisation by f, whatever its score.
template <Backend B>
class suppress_log {
 public:
  struct params_type : key_selections<B>::params_type {
    float log_factor;

    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, score_site at) const {
      using real = decltype(real_part(T{}));
      return this->chosen(at) ? score + real(log_factor) : score;
    }
  };

  /// \param factor  1 leaves a score as it is; above 0, since f = 0 is a knockout
  suppress_log(B& backend, std::span<key_selection const> selections, float factor = 0.1f)
      : selections_(backend, selections), log_factor_(std::log(factor)) {
    expects<usage_error>(std::isfinite(factor) && factor > 0,
                         "the factor of a suppression is {}, but S + log f needs one above 0", factor);
  }

  params_type params() const { return {selections_.params(), log_factor_}; }

 private:
  key_selections<B> selections_;
  float log_factor_;
};

template <Backend B>
suppress(B&, std::span<key_selection const>, float = 0.1f) -> suppress<B>;
template <Backend B>
suppress_log(B&, std::span<key_selection const>, float = 0.1f) -> suppress_log<B>;

}  // namespace atmanrl::inline ATMANRL_ABI::attention
