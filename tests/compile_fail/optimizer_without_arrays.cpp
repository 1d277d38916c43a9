// expect: an Optimizer's state lacks `arrays\(\)`, `steps\(\) const` or `set_steps\(std::uint64_t\)`, which checkpoints need
#include <atmanrl/optim/optimizer.hpp>

struct mine {
  template <atmanrl::Backend B, class T>
  struct state {
    state(mine const&, B&, atmanrl::optim::parameter_list const&) {}
    void step(atmanrl::view_on<B, T, 1>, atmanrl::view_on<B, T const, 1>, double) {}
  };
};
static_assert(atmanrl::detail::explain_optimizer<mine, atmanrl::reference_backend, float>());
