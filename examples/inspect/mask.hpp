#pragma once

/// \file
/// `mask`: trains one attention mask for one rollout, or shows the gradient that its first step would see.

#include "checks.hpp"
#include "requests.hpp"

#include <atmanrl/io/json.hpp>
#include <atmanrl/nn/llama.hpp>
#include <atmanrl/saliency/mask_training.hpp>

namespace inspect {

inline void check(mask_request const& r, atmanrl::model_config const& config) {
  check_ids("--prompt-ids", r.prompt, config);
  check_ids("--cot-ids", r.cot, config);
  check_ids("--delimiter-ids", r.delimiter, config);
  check_ids("--answer-ids", r.answer, config);
  check_length("prompt, chain of thought, delimiter and answer", {r.prompt.size(), r.cot.size(), r.delimiter.size(), r.answer.size()}, config);
}

namespace detail {

/// The gradient at the start value, and the cross-entropy there.
template <class Model>
std::pair<double, std::vector<typename Model::scalar>> start_gradient(Model& model, atmanrl::mask_item const& item, atmanrl::mask_options const& o) {
  using T = typename Model::scalar;
  atmanrl::mask_batch<Model> batch(model, std::span(&item, 1), o.shape, o.rows, o.scale, o.clamp);
  std::vector<T> const start(std::size_t(batch.parameter_count()), T(o.init));
  batch.values().assign(start);
  double const ce = batch.cross_entropies_and_gradient().front();
  return {ce, batch.gradient().to_host()};
}

}  // namespace detail

template <class Model>
std::string run(Model& model, mask_request const& r) {
  atmanrl::mask_item const item{r.prompt, r.cot, r.delimiter, r.answer};
  atmanrl::mask_options const& o = r.options;
  atmanrl::ordered_json out;
  if (o.init == 0) {
    // Nothing is suppressed at H = 0: there is a gradient to look at, but Ĥ = H / 0 and what follows from it is undefined.
    atmanrl::expects<atmanrl::usage_error>(o.steps == 0 && r.gradient, "--init 0 suppresses nothing; it is only for --steps 0 --gradient");
    auto const [ce, gradient] = detail::start_gradient(model, item, o);
    out = {{"ce_unmasked", ce}, {"ce_start", ce}, {"ce_end", ce}, {"mask", std::vector<float>(gradient.size())}, {"token_saliency", nullptr},
           {"reward_re_enabled", nullptr}, {"reward_as_printed", nullptr}, {"gradient", gradient}};
    return atmanrl::dump_json(out);
  }
  auto const trained = train_masks(model, std::span(&item, 1), o).front();
  out = {{"ce_unmasked", trained.ce_unmasked}, {"ce_start", trained.ce_start}, {"ce_end", trained.ce_end}, {"mask", trained.mask},
         {"token_saliency", trained.token_saliency}, {"reward_re_enabled", trained.re_enabled}, {"reward_as_printed", trained.as_printed}};
  if (r.gradient) out["gradient"] = detail::start_gradient(model, item, o).second;
  return atmanrl::dump_json(out);
}

}  // namespace inspect
