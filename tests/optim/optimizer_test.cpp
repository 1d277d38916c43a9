// What holds for every optimizer: a state that is put back goes on as if it had not stopped.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/optim/any.hpp>
#include <atmanrl/testing/optimizer.hpp>

#include "catch.hpp"
#include "strangers.hpp"

#include <string>

using namespace atmanrl;

namespace optimizer_test {

static_assert(Optimizer<optim::adamw> && Optimizer<optim::sgd> && Optimizer<optim::lion> && Optimizer<optim::muon>);
static_assert(Optimizer<optim::any> && Optimizer<optim::any, cpu_backend>);
static_assert(Optimizer<optim::one_of<optim::adamw, strangers::sign_momentum>>);
static_assert(!Optimizer<int> && !Optimizer<schedules::constant>);

namespace {

optim::parameter_list const all = testing::parameters_to_optimize();

template <class O>
std::vector<float> trained(O const& optimizer) {
  cpu_backend backend({.threads = 2});
  testing::optimizer_run<cpu_backend, float, O> run(optimizer, backend, all);
  for (unsigned step = 0; step < 10; ++step) run.step(step, 0.01 * (1 + step));
  return run.parameters();
}

}  // namespace

TEST_CASE("optimizers: every built-in one keeps what an optimizer promises, going on from its arrays among it") {
  cpu_backend backend({.threads = 2});
  testing::check_optimizer(optim::adamw{.weight_decay = 0.1}, backend);
  testing::check_optimizer(optim::sgd{}, backend);
  testing::check_optimizer(optim::sgd{.momentum = 0}, backend);
  testing::check_optimizer(optim::sgd{.nesterov = true}, backend);
  testing::check_optimizer(optim::lion{.weight_decay = 0.1}, backend);
  testing::check_optimizer(optim::muon{.weight_decay = 0.1}, backend);
}

TEST_CASE("optimizers: so does one of somebody else's, alone and among others") {
  cpu_backend backend({.threads = 2});
  testing::check_optimizer(strangers::sign_momentum{}, backend);
  testing::check_optimizer(
      optim::one_of<optim::adamw, strangers::sign_momentum>(strangers::sign_momentum{.momentum = 0.5}), backend);
}

TEST_CASE("optim::any: it does what the optimizer does that it holds") {
  cpu_backend backend({.threads = 2});
  CHECK(trained(optim::any()) == trained(optim::adamw{}));
  CHECK(trained(optim::any(optim::lion{.beta1 = 0.5})) == trained(optim::lion{.beta1 = 0.5}));
  CHECK(trained(optim::by_name("muon")) == trained(optim::muon{}));
  testing::check_optimizer(optim::any(optim::lion{.beta1 = 0.5}), backend);
  testing::check_optimizer(optim::by_name("muon"), backend);
}

TEST_CASE("optim::by_name: names and numbers are taken, and refused where an optimizer has no such number") {
  auto const adamw = optim::by_name("adamw", {.beta1 = 0.5, .eps = 1e-6, .weight_decay = 0.2});
  REQUIRE(adamw.get_if<optim::adamw>());
  CHECK(adamw.get_if<optim::adamw>()->beta1 == 0.5);
  CHECK(adamw.get_if<optim::adamw>()->beta2 == 0.999);
  CHECK(adamw.get_if<optim::adamw>()->eps == 1e-6);
  CHECK(adamw.get_if<optim::adamw>()->weight_decay == 0.2);
  CHECK_FALSE(adamw.get_if<optim::lion>());
  auto const sgd = optim::by_name("sgd", {.momentum = 0.5, .nesterov = true, .weight_decay = 0.1});
  CHECK(sgd.get_if<optim::sgd>()->momentum == 0.5);
  CHECK(sgd.get_if<optim::sgd>()->nesterov);
  CHECK(sgd.get_if<optim::sgd>()->weight_decay == 0.1);
  CHECK(optim::by_name("lion", {.beta2 = 0.98}).get_if<optim::lion>()->beta2 == 0.98);
  auto const muon =
      optim::by_name("muon", {.beta1 = 0.8, .beta2 = 0.9, .eps = 1e-7, .momentum = 0.9, .weight_decay = 0.3});
  CHECK(muon.get_if<optim::muon>()->momentum == 0.9);
  CHECK(muon.get_if<optim::muon>()->weight_decay == 0.3);
  CHECK(muon.get_if<optim::muon>()->rest.weight_decay == 0.3);
  CHECK(muon.get_if<optim::muon>()->rest.beta1 == 0.8);
  CHECK(muon.get_if<optim::muon>()->rest.beta2 == 0.9);
  CHECK(muon.get_if<optim::muon>()->rest.eps == 1e-7);
  CHECK(optim::by_name("muon").get_if<optim::muon>()->rest.beta2 == 0.95);

  CHECK_THROWS_WITH(optim::by_name("adam"), ATMANRL_CONTAINS("\"adam\"; there are adamw, sgd, lion, muon"));
  CHECK_THROWS_WITH(optim::by_name("adamw", {.momentum = 0.9}), ATMANRL_CONTAINS("adamw has no momentum"));
  CHECK_THROWS_WITH(optim::by_name("lion", {.nesterov = false}), ATMANRL_CONTAINS("lion has no choice of Nesterov"));
  CHECK_THROWS_WITH(optim::by_name("lion", {.eps = 1e-8}), ATMANRL_CONTAINS("lion has no eps"));
  CHECK_THROWS_WITH(optim::by_name("sgd", {.beta2 = 0.9}), ATMANRL_CONTAINS("sgd has no beta1 and beta2"));
  CHECK_THROWS_WITH(optim::by_name("sgd", {.momentum = 1.5}), ATMANRL_CONTAINS("momentum is 1.5"));
  CHECK_THROWS_WITH(optim::by_name("sgd", {.momentum = 0, .nesterov = true}), ATMANRL_CONTAINS("momentum above 0"));
  CHECK_THROWS_WITH(optim::by_name("lion", {.beta1 = 1}), ATMANRL_CONTAINS("beta1 is 1"));
  CHECK_THROWS_WITH(optim::by_name("muon", {.eps = 0}), ATMANRL_CONTAINS("eps is 0"));
}

TEST_CASE("optimizers: what a state takes is known before it is made") {
  CHECK(optim::by_name("adamw").state_size(all) == 2 * 51);
  CHECK(optim::by_name("lion").state_size(all) == 51);
  CHECK(optim::by_name("sgd").state_size(all) == 51);
  CHECK(optim::by_name("sgd", {.momentum = 0}).state_size(all) == 0);
  // One moment of all, a second of all but 20; the step, its copy, and three squares of the shorter side.
  CHECK(optim::by_name("muon").state_size(all) == 51 + 31 + 20 + 20 + 3 * 16);
  CHECK(optim::one_of<strangers::sign_momentum>().state_size(all) == 2 * 51);
}

}  // namespace optimizer_test
