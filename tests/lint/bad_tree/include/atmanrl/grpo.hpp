#pragma once
/// \file
/// An umbrella.
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/trainer.hpp>
