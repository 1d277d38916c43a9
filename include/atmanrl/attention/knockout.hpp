#pragma once

/// \file
/// Attention knockout (Geva et al. 2023, arXiv:2304.14767): S(w,v) = -inf on chosen keys, as if those tokens were not
/// among the row's keys; positions of the other tokens stay as they are.

#include <atmanrl/attention/key_selection.hpp>

namespace atmanrl::inline ATMANRL_ABI::attention {

/// Removes the chosen keys from the rows that see the edit, a row's own key included where it is chosen.
template <Backend B>
class knockout {
 public:
  struct params_type : key_selections<B>::params_type {
    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, score_site at) const {
      using real = decltype(real_part(T{}));
      return this->chosen(at) ? T{-std::numeric_limits<real>::infinity()} : score;
    }
  };

  /// \throws usage_error when a row would lose all its keys: then it has no softmax
  knockout(B& backend, std::span<key_selection const> selections) : selections_(backend, selections) {
    for (std::size_t i = 0; i < selections.size(); ++i) {
      key_selection const& s = selections[i];
      auto const kept = std::find(s.chosen.begin(), s.chosen.end(), std::uint8_t{0}) - s.chosen.begin();
      bool const keyless =
          s.key_begin == 0 && std::max(s.first_row, 0) < int(kept) && s.first_row <= s.last_row && s.last_row >= 0;
      expects<usage_error>(!keyless, "selection {} knocks out all keys [0, {}] of row {}: keep at least one", i,
                           std::max(s.first_row, 0), std::max(s.first_row, 0));
    }
  }

  params_type params() const { return {selections_.params()}; }

 private:
  key_selections<B> selections_;
};

template <Backend B>
knockout(B&, std::span<key_selection const>) -> knockout<B>;

}  // namespace atmanrl::inline ATMANRL_ABI::attention
