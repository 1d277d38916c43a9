#pragma once

/// \file
/// For tests of a part of one's own: what proves the library's parts proves it, too
/// (docs/extending.md#proving-a-part-of-your-own). Each check returns quietly or throws `testing::broken_promise`, in
/// any test framework. One check alone is one header of testing/, which compiles sooner.

#include <atmanrl/testing/advantage.hpp>
#include <atmanrl/testing/attention_policy.hpp>
#include <atmanrl/testing/backend.hpp>
#include <atmanrl/testing/block.hpp>
#include <atmanrl/testing/loss.hpp>
#include <atmanrl/testing/optimizer.hpp>
#include <atmanrl/testing/reward.hpp>
#include <atmanrl/testing/task.hpp>
