// The templates of atmanrl::compiled: what every program uses with the same arguments.
#define ATMANRL_DEFINE_TEMPLATES
#include <atmanrl/experiment.hpp>
