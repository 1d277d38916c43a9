#include <atmanrl/grpo.hpp>

using namespace atmanrl;
using namespace atmanrl::cpu;

namespace another_test {}
