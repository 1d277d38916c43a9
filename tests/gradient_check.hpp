#pragma once
// The names of derivatives and of views of vectors as the tests use them.
#include <atmanrl/testing/derivatives.hpp>

namespace atmanrl_test {

using atmanrl::testing::as;
using atmanrl::testing::complex;
using atmanrl::testing::complex_step_gradient;
using atmanrl::testing::converted;
using atmanrl::testing::random_values;
using atmanrl::testing::relative_difference;
using atmanrl::testing::weighted_sum;

}  // namespace atmanrl_test
