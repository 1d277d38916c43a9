// expect: atmanrl: not an Optimizer: write a copyable struct of its numbers with `template <atmanrl::Backend B, class T> struct state`
#include <atmanrl/optim/optimizer.hpp>

struct only_a_rate {
  double rate = 0.1;
  void step(double* parameters, double const* gradient, int count) const {
    for (int i = 0; i < count; ++i) parameters[i] -= rate * gradient[i];
  }
};
static_assert(atmanrl::detail::explain_optimizer<only_a_rate, atmanrl::reference_backend, float>());
