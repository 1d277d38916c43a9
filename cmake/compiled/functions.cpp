// The functions of atmanrl::compiled that are no templates.
#define ATMANRL_DEFINE_FUNCTIONS
#include <atmanrl/experiment.hpp>
#include <atmanrl/report.hpp>
