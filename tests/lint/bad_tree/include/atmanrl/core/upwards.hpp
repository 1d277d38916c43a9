#pragma once
/// \file
/// Includes a higher rank, an umbrella, two packages that are not its own, and a neighbour by relative path.
#include <atmanrl/grpo.hpp>
#include <atmanrl/nn/leans_on_others.hpp>
#include <atmanrl/nowhere/else.hpp>

#include <Eigen/Core>
#include <nlohmann/json_fwd.hpp>

#include "neighbour.hpp"
