// What holds for every optimizer: a state that is put back goes on as if it had not stopped.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/optim/any.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "strangers.hpp"

#include <map>
#include <string>

using namespace atmanrl;
using namespace atmanrl_test;

namespace optimizer_test {

static_assert(Optimizer<optim::adamw> && Optimizer<optim::sgd> && Optimizer<optim::lion> && Optimizer<optim::muon>);
static_assert(Optimizer<optim::any> && Optimizer<optim::any, cpu_backend>);
static_assert(Optimizer<optim::one_of<optim::adamw, strangers::sign_momentum>>);
static_assert(!Optimizer<int> && !Optimizer<schedules::constant>);

namespace {

// An embedding, a matrix, a vector, and three elements that no shape covers.
std::vector<optim::parameter_shape> const shapes{{"model.embed_tokens.weight", 0, 6, 4},
                                                 {"model.layers.0.self_attn.q_proj.weight", 24, 5, 4},
                                                 {"model.layers.0.input_layernorm.weight", 44, 1, 4}};
optim::parameter_list const all{51, shapes};

std::vector<float> gradient_at(std::vector<float> const& p, unsigned step) {
  auto g = converted<float>(random_values(all.size, 100 + step));
  for (std::size_t i = 0; i < g.size(); ++i) g[i] += p[i];
  return g;
}

/// Ten steps on the CPU; after `stop` of them the state is written down and put into another one.
template <class O>
std::vector<float> trained(O const& optimizer, unsigned stop) {
  using state = typename O::template state<cpu_backend, float>;
  cpu_backend backend({.threads = 2});
  auto p = converted<float>(random_values(all.size, 1));
  auto running = std::make_unique<state>(optimizer, backend, all);
  for (unsigned step = 0; step < 10; ++step) {
    if (step == stop) {
      std::map<std::string, std::vector<float>> kept;
      for (auto const& a : running->arrays()) kept[std::string(a.name)] = a.values->to_host();
      std::uint64_t const steps = running->steps();
      CHECK(steps == stop);
      running = std::make_unique<state>(optimizer, backend, all);
      for (auto const& a : running->arrays()) a.values->assign(kept.at(std::string(a.name)));
      running->set_steps(steps);
    }
    auto const g = gradient_at(p, step);
    running->step(std::span(p), std::span<float const>(g), 0.01 * (1 + step));
  }
  CHECK(running->steps() == 10);
  return p;
}

template <class O>
void check_resume(O const& optimizer) {
  auto const whole = trained(optimizer, 99);
  CHECK(whole != converted<float>(random_values(all.size, 1)));
  CHECK(trained(optimizer, 1) == whole);
  CHECK(trained(optimizer, 6) == whole);
}

}  // namespace

TEST_CASE("optimizers: every built-in one goes on from its arrays and step count with the same bits") {
  check_resume(optim::adamw{.weight_decay = 0.1});
  check_resume(optim::sgd{});
  check_resume(optim::sgd{.momentum = 0});
  check_resume(optim::sgd{.nesterov = true});
  check_resume(optim::lion{.weight_decay = 0.1});
  check_resume(optim::muon{.weight_decay = 0.1});
}

TEST_CASE("optimizers: so does one of somebody else's, alone and among others") {
  check_resume(strangers::sign_momentum{});
  check_resume(optim::one_of<optim::adamw, strangers::sign_momentum>(strangers::sign_momentum{.momentum = 0.5}));
}

TEST_CASE("optim::any: it does what the optimizer does that it holds") {
  CHECK(trained(optim::any(), 99) == trained(optim::adamw{}, 99));
  CHECK(trained(optim::any(optim::lion{.beta1 = 0.5}), 4) == trained(optim::lion{.beta1 = 0.5}, 99));
  CHECK(trained(optim::by_name("muon"), 4) == trained(optim::muon{}, 99));
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
