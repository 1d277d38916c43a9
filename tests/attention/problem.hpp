#pragma once
// The names of small attention problems as the tests use them.
#include <atmanrl/testing/attention_tree.hpp>

#include "gradient_check.hpp"

namespace atmanrl_test {

using namespace atmanrl;
using testing::node;
using testing::ragged_trees;
using testing::tree_problem;

}  // namespace atmanrl_test
