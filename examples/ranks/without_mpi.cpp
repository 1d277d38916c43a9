#include "../ranks.hpp"

#include <atmanrl/comm/launched.hpp>
#include <atmanrl/core/error.hpp>

int run_on_ranks(int, char**, std::function<int(atmanrl::comm::any)> const& work) {
  auto const launched = atmanrl::comm::launched();
  atmanrl::expects<atmanrl::usage_error>(launched.size == 1,
                                         "{} processes were started together, but this program was built without MPI "
                                         "(configure with -DATMANRL_MPI=ON)",
                                         launched.size);
  return work({});
}
