#pragma once

/// \file
/// Attention masks, what they say about a chain of thought, and whether it is true.

#include <atmanrl/attention/knockout.hpp>
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/attention/suppress.hpp>
#include <atmanrl/saliency/estimators/any.hpp>
#include <atmanrl/saliency/estimators/attention_rollout.hpp>
#include <atmanrl/saliency/estimators/estimator.hpp>
#include <atmanrl/saliency/estimators/gradient.hpp>
#include <atmanrl/saliency/estimators/gradient_x_input.hpp>
#include <atmanrl/saliency/estimators/learned_mask.hpp>
#include <atmanrl/saliency/estimators/single_edit.hpp>
#include <atmanrl/saliency/mask_training.hpp>
#include <atmanrl/saliency/reduce.hpp>
#include <atmanrl/saliency/validation/baselines.hpp>
#include <atmanrl/saliency/validation/deletion.hpp>
#include <atmanrl/saliency/validation/perturbation.hpp>
#include <atmanrl/saliency/validation/rank_statistics.hpp>
#include <atmanrl/saliency/validation/stability.hpp>
#include <atmanrl/saliency/validation/validate.hpp>
#include <atmanrl/saliency/variants.hpp>
