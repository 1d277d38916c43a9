#pragma once

/// \file
/// The whole experiment: everything of grpo.hpp, tasks, options, evaluation, files.

#include <atmanrl/grpo.hpp>

#include <atmanrl/experiment/experiment.hpp>
