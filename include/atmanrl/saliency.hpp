#pragma once

/// \file
/// Attention masks and what they say about a chain of thought.

#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/saliency/mask_training.hpp>
#include <atmanrl/saliency/reduce.hpp>
