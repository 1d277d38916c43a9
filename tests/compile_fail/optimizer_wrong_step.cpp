// expect: an Optimizer's state lacks `void step\(atmanrl::view_on<B, T, 1> parameters, atmanrl::view_on<B, T const, 1> gradient, double learning_rate\)`
#include <atmanrl/optim/optimizer.hpp>

struct mine {
  template <atmanrl::Backend B, class T>
  struct state : atmanrl::optim::moments<mine, B, T> {
    state(mine const& o, B& backend, atmanrl::optim::parameter_list const&)
        : atmanrl::optim::moments<mine, B, T>(o, backend, {}) {}
    void step(atmanrl::view_on<B, T, 1>, atmanrl::view_on<B, T const, 1>) {}  // without a rate
  };
};
static_assert(atmanrl::detail::explain_optimizer<mine, atmanrl::reference_backend, float>());
