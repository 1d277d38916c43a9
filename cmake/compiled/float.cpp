// The templates of atmanrl::compiled for models whose matrices are stored as float.
#define ATMANRL_DEFINE_FLOAT
#include <atmanrl/experiment.hpp>
