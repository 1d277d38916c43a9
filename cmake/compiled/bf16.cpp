// The templates of atmanrl::compiled for models whose matrices are stored as bfloat16.
#define ATMANRL_DEFINE_BF16
#include <atmanrl/experiment.hpp>
