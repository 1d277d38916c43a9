// expect: atmanrl: not a Schedule: write `double operator\(\)\(std::uint64_t step, std::uint64_t steps\) const`
#include <atmanrl/optim/schedule.hpp>

struct of_name {
  double operator()(char const* name) const { return name[0] == 'a' ? 1 : 0; }
};
static_assert(atmanrl::detail::explain_schedule<of_name>());
