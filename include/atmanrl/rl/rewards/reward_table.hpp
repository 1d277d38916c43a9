#pragma once

/// \file
/// The rewards of a step and the named parts that they are made of.

#include <string>
#include <vector>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// One named part of a reward, a value per rollout of the step.
struct reward_component {
  std::string name;
  float weight = 1;
  std::vector<float> values;
};

/// The reward of every rollout and the parts that it is made of.
struct reward_table {
  std::vector<float> total;
  std::vector<reward_component> components;
};

}  // namespace atmanrl::inline ATMANRL_ABI
