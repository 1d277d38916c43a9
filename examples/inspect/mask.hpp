#pragma once

/// \file
/// Trains one attention mask for one rollout, and shows the gradient that its first step sees.

#include "compute.hpp"

#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/saliency/mask_training.hpp>

namespace inspect {

template <class Model>
mask_outcome compute(Model& model, mask_request const& r) {
  atmanrl::saliency_item const item{r.prompt, r.cot, r.delimiter, r.answer};
  atmanrl::mask_options const& o = r.options;
  mask_outcome out{};
  if (r.gradient) {
    atmanrl::mask_batch<Model> batch(model, std::span(&item, 1), o);
    batch.start();
    out.ce_start = batch.cross_entropies_and_gradient().front();
    out.gradient = batch.gradient().to_host();
  }
  if (o.init == 0) {
    // Nothing is suppressed at H = 0: there is a gradient to look at, but Ĥ = H / 0 and what follows from it is
    // undefined.
    atmanrl::expects<atmanrl::usage_error>(o.steps == 0 && r.gradient, "a mask that starts at 0 cannot be trained");
    out.ce_unmasked = out.ce_end = out.ce_start;
    out.mask.resize(out.gradient.size());
    return out;
  }
  auto trained = train_masks(model, std::span(&item, 1), o);
  atmanrl::saliency_result& t = trained.front();
  return {t.ce_unmasked,
          t.ce_start,
          t.ce_end,
          std::move(t.mask),
          saliency_of_mask{std::move(t.token_saliency), t.re_enabled, t.as_printed},
          std::move(out.gradient)};
}

}  // namespace inspect
