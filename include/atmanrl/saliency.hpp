#pragma once

/// \file
/// Attention masks, what they say about a chain of thought, and whether it is true, on the CPU.

#include <atmanrl/attention/knockout.hpp>
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/attention/multiplicative_gate.hpp>
#include <atmanrl/attention/placed_mask.hpp>
#include <atmanrl/attention/sigmoid_gate.hpp>
#include <atmanrl/attention/suppress.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/saliency/answer_gradient.hpp>
#include <atmanrl/saliency/estimators/any.hpp>
#include <atmanrl/saliency/estimators/attention_rollout.hpp>
#include <atmanrl/saliency/estimators/estimator.hpp>
#include <atmanrl/saliency/estimators/gradient.hpp>
#include <atmanrl/saliency/estimators/gradient_x_input.hpp>
#include <atmanrl/saliency/estimators/learned_mask.hpp>
#include <atmanrl/saliency/estimators/single_edit.hpp>
#include <atmanrl/saliency/mask_training.hpp>
#include <atmanrl/saliency/masks/additive.hpp>
#include <atmanrl/saliency/masks/mask_family.hpp>
#include <atmanrl/saliency/masks/multiplicative.hpp>
#include <atmanrl/saliency/masks/placed.hpp>
#include <atmanrl/saliency/masks/sigmoid_gate.hpp>
#include <atmanrl/saliency/most_probable.hpp>
#include <atmanrl/saliency/objectives/any.hpp>
#include <atmanrl/saliency/objectives/cross_entropy.hpp>
#include <atmanrl/saliency/objectives/excess_cross_entropy.hpp>
#include <atmanrl/saliency/objectives/kl_to_unmasked.hpp>
#include <atmanrl/saliency/objectives/objective.hpp>
#include <atmanrl/saliency/reduce.hpp>
#include <atmanrl/saliency/validation/baselines.hpp>
#include <atmanrl/saliency/validation/deletion.hpp>
#include <atmanrl/saliency/validation/forced_answers.hpp>
#include <atmanrl/saliency/validation/greedy_decoding.hpp>
#include <atmanrl/saliency/validation/interventions.hpp>
#include <atmanrl/saliency/validation/perturbation.hpp>
#include <atmanrl/saliency/validation/rank_statistics.hpp>
#include <atmanrl/saliency/validation/stability.hpp>
#include <atmanrl/saliency/validation/truncation.hpp>
#include <atmanrl/saliency/validation/validate.hpp>
#include <atmanrl/saliency/variants.hpp>

// What atmanrl::compiled holds of the above.
#if defined(ATMANRL_COMPILED)
namespace atmanrl::inline ATMANRL_ABI {
ATMANRL_TEMPLATE std::vector<saliency_result> train_masks(llama<cpu_backend>&, std::span<saliency_item const>,
                                                          mask_options const&, gradient_quantiles*);
ATMANRL_TEMPLATE double choose_scale(llama<cpu_backend>&, std::span<saliency_item const>, mask_options, double,
                                     comm::any);
ATMANRL_TEMPLATE saliency_estimate estimate_saliency(estimators::any&, llama<cpu_backend>&,
                                                     std::span<saliency_item const>, comm::any);
ATMANRL_TEMPLATE saliency_estimate estimate_saliency(estimators::learned_mask<>&, llama<cpu_backend>&,
                                                     std::span<saliency_item const>, comm::any);
ATMANRL_TEMPLATE saliency_estimate estimate_saliency(estimators::leave_one_out&, llama<cpu_backend>&,
                                                     std::span<saliency_item const>, comm::any);
ATMANRL_TEMPLATE saliency_estimate estimate_saliency(estimators::gradient&, llama<cpu_backend>&,
                                                     std::span<saliency_item const>, comm::any);
ATMANRL_TEMPLATE saliency_estimate estimate_saliency(estimators::atman_suppression&, llama<cpu_backend>&,
                                                     std::span<saliency_item const>, comm::any);
ATMANRL_TEMPLATE saliency_estimate estimate_saliency(estimators::gradient_x_input&, llama<cpu_backend>&,
                                                     std::span<saliency_item const>, comm::any);
ATMANRL_TEMPLATE saliency_estimate estimate_saliency(estimators::attention_rollout&, llama<cpu_backend>&,
                                                     std::span<saliency_item const>, comm::any);
ATMANRL_TEMPLATE validation_report validate_saliency(llama<cpu_backend>&, std::span<saliency_item const>,
                                                     std::span<saliency_method const>, std::span<token_labels const>,
                                                     validation_options const&);
}  // namespace atmanrl::inline ATMANRL_ABI
#endif
