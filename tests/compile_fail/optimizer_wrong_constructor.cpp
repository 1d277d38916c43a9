// expect: an Optimizer's state lacks its constructor `state\(O const& numbers, B& backend, atmanrl::optim::parameter_list const& all\)`
#include <atmanrl/optim/optimizer.hpp>

struct mine {
  template <atmanrl::Backend B, class T>
  struct state {
    state(B&, atmanrl::index_t) {}
  };
};
static_assert(atmanrl::detail::explain_optimizer<mine, atmanrl::reference_backend, float>());
