#pragma once

/// \file
/// Everything that training with AtManRL takes: models, tasks, saliency, rewards, GRPO, on the CPU.

#include <atmanrl/llama.hpp>
#include <atmanrl/saliency.hpp>

#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/observers/causality.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>
#include <atmanrl/rl/samplers/greedy.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
