// expect: not an experiment's traits: derive from atmanrl::gsm8k_traits<>
#include <atmanrl/experiment/traits.hpp>

struct mine {};
static_assert(atmanrl::detail::explain_traits<mine>());
