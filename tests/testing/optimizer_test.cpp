// Optimizers that break what an optimizer promises, and the sentence about each.
#include <atmanrl/testing/optimizer.hpp>

#include "catch.hpp"
#include "strangers.hpp"

using namespace atmanrl;

namespace optimizer_test {
namespace {

/// Plain steps, and one thing wrong with them.
enum class fault { none, hidden_memory, moves_at_rate_0, divides_by_gradient, not_elementwise };

template <fault Wrong>
struct faulty {
  bool is_elementwise() const { return Wrong == fault::not_elementwise; }

  template <Backend B, class T>
  struct state : optim::moments<faulty, B, T> {
    T hidden = 0;
    state(faulty const& numbers, B& backend, optim::parameter_list const& all)
        : optim::moments<faulty, B, T>(numbers, backend, {{"average", all.size}}) {}
    void step(view_on<B, T, 1> p, view_on<B, T const, 1> g, double learning_rate) {
      T const rate = T(learning_rate);
      T sum = 0;
      for (index_t i = 0; i < p.size(); ++i) sum += g(i);
      for (index_t i = 0; i < p.size(); ++i) {
        T by = rate * g(i);
        if (Wrong == fault::hidden_memory) by += rate * hidden;
        if (Wrong == fault::moves_at_rate_0) by += T(1e-3);
        if (Wrong == fault::divides_by_gradient) by /= std::abs(g(i));
        if (Wrong == fault::not_elementwise) by *= 1 + sum;
        p(i) -= by;
      }
      hidden += 1;
      this->next_step();
    }
  };
};

template <fault Wrong>
void check() {
  testing::check_optimizer(faulty<Wrong>{});
}

}  // namespace

TEST_CASE("check_optimizer: what keeps its promises passes") {
  check<fault::none>();
  testing::check_optimizer(strangers::sign_momentum{});
}

TEST_CASE("check_optimizer: each broken promise is found and named") {
  CHECK_THROWS_WITH(check<fault::hidden_memory>(),
                    ATMANRL_CONTAINS("where its arrays and steps are written down and put back after 1 steps, but"));
  CHECK_THROWS_WITH(check<fault::moves_at_rate_0>(),
                    ATMANRL_CONTAINS("element 0 is") && ATMANRL_CONTAINS("after two steps at a rate of 0"));
  CHECK_THROWS_WITH(check<fault::divides_by_gradient>(),
                    ATMANRL_CONTAINS("nan after 3 steps along gradients of size 0"));
  CHECK_THROWS_WITH(check<fault::not_elementwise>(), ATMANRL_CONTAINS("in a slice of the elements 0 to 16"));
}

}  // namespace optimizer_test
