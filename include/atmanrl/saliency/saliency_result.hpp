#pragma once

/// \file
/// What the training of one mask (arXiv:2604.16158, section 3.2) leaves behind. A header of its own, because rollouts
/// carry it and most rewards train no mask.

#include <tuple>
#include <vector>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// One trained mask and what it did to the probability of the answer.
struct saliency_result {
  double ce_unmasked = 0;             ///< CE(0), nats per answer token
  double ce_start = 0;                ///< CE(c)
  double ce_end = 0;                  ///< CE(H*), after the last update
  std::vector<float> mask;            ///< H*, row-major over the allowed entries, or per CoT token
  std::vector<float> token_saliency;  ///< s_v per CoT token
  double re_enabled = 0, as_printed = 0;
  double loss_start = 0, loss_end = 0;  ///< the objective at c and at H*, without the sparsity term
  int steps = 0;                        ///< updates that the mask got

  static constexpr auto fields() {
    using r = saliency_result;
    return std::tuple(&r::ce_unmasked, &r::ce_start, &r::ce_end, &r::mask, &r::token_saliency, &r::re_enabled,
                      &r::as_printed, &r::loss_start, &r::loss_end, &r::steps);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
