// Mask objectives: values and derivatives, those of the library and those that a user wrote.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/saliency/estimators/learned_mask.hpp>
#include <atmanrl/saliency/objectives/any.hpp>

#include "catch.hpp"
#include "saliency/items.hpp"
#include "strangers.hpp"

using namespace atmanrl_test;

namespace objectives_test {
namespace {

using model_type = llama<reference_backend, double>;

struct objectives_test {
  reference_backend backend;
  model_type model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  std::vector<owned_item> items = ragged_items(11);
  std::vector<saliency_item> views = views_of(items);
};

template <class Objective>
mask_options_of<masks::additive, Objective> columns() {
  mask_options_of<masks::additive, Objective> o;
  o.shape = mask_shape::column;
  o.rows = mask_rows::answer_rows;
  return o;
}

std::vector<double> suppressed(index_t count) {
  auto h = random_values(count, 60, 0.1);
  for (double& x : h) x = -0.2 - std::abs(x);
  return h;
}

/// What `call(input, derivative)` writes against difference quotients.
template <class Call>
void check_derivative(std::vector<double> x, Call const& call) {
  std::vector<double> written(x.size()), unused(x.size()), quotient;
  call(x, written);
  double const h = 1e-6;
  for (double& v : x) {
    double const at = v;
    v = at + h;
    double const above = call(x, unused);
    v = at - h;
    quotient.push_back((above - call(x, unused)) / (2 * h));
    v = at;
  }
  CHECK(relative_difference(written, quotient) < 1e-7);
}

}  // namespace

TEST_CASE("mask objectives: values by hand") {
  std::vector<double> const masked{-1.0, -3.0}, unmasked{-0.5, -1.0};
  answer_log_probs const a{masked, unmasked};
  std::vector<double> d(2);
  CHECK(objectives::cross_entropy{}(a, d) == 2.0);
  CHECK(d == std::vector<double>{-0.5, -0.5});
  CHECK(objectives::excess_cross_entropy{}(a, d) == 1.25);
  CHECK(strangers::squared_gap{}(a, d) == (0.25 + 4) / 2);

  std::vector<int> const answer{1};
  std::vector<double> const z{std::log(1.0), std::log(3.0)}, z0{std::log(5.0), std::log(5.0)};
  std::vector<double> dz(2);
  // KL of (1/2, 1/2) to (1/4, 3/4), and p_H - p_0
  CHECK(objectives::kl_to_unmasked{}({answer, 2, z, z0}, dz) == Approx(0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3)));
  CHECK(relative_difference(dz, std::vector<double>{-0.25, 0.25}) < 1e-12);
}

TEST_CASE("mask objectives: the derivative that each writes is that of its value") {
  auto const masked = random_values(3, 1), unmasked = random_values(3, 2);
  auto const of_log_probs = [&](auto const& objective) {
    check_derivative(masked, [&](std::vector<double> const& x, std::vector<double>& d) {
      return objective(answer_log_probs{x, unmasked}, std::span<double>(d));
    });
  };
  of_log_probs(objectives::cross_entropy{});
  of_log_probs(objectives::excess_cross_entropy{});
  of_log_probs(objectives::any(objectives::excess_cross_entropy{}));
  of_log_probs(strangers::squared_gap{});
  auto const z = random_values(3 * 5, 3), z0 = random_values(3 * 5, 4);
  std::vector<int> const answer{4, 0, 2};
  auto const of_logits = [&](auto const& objective) {
    check_derivative(z, [&](std::vector<double> const& x, std::vector<double>& d) {
      return objective(answer_logits{answer, 5, x, z0}, std::span<double>(d));
    });
  };
  of_logits(objectives::kl_to_unmasked{});
  of_logits(objectives::any(objectives::kl_to_unmasked{}));
  of_logits(strangers::below_mean{});
}

TEST_CASE("mask objectives: one is found by its name, and any says what the held one reads") {
  for (auto const name : objectives::names) CHECK(objectives::by_name(name).name == name);
  CHECK_THROWS_WITH(objectives::by_name("ce"),
                    ATMANRL_CONTAINS("\"ce\"; there are cross_entropy, kl_to_unmasked, excess_cross_entropy"));
  CHECK(objectives::any{}.name == "cross_entropy");
  CHECK_FALSE(objectives::any{}.needs_unmasked);
  CHECK_FALSE(objectives::any{}.needs_logits);
  objectives::any const gap = strangers::squared_gap{}, mean = strangers::below_mean{};
  CHECK(gap.needs_unmasked);
  CHECK_FALSE(gap.needs_logits);
  CHECK(mean.needs_logits);
  std::vector<double> d(1);
  CHECK_THROWS_AS(gap(answer_logits{}, d), usage_error);
  CHECK_THROWS_AS(mean(answer_log_probs{}, d), usage_error);
}

TEST_CASE("objectives::any: the name of an object that has its own outlives what it was made from") {
  struct named {
    std::string name;
    double operator()(answer_log_probs const&, std::span<double>) const { return 0; }
  };
  objectives::any held;
  {
    named const mine{"a name that is too long for the object that holds it"};
    held = mine;
  }
  objectives::any const copy = held;
  held = {};
  CHECK(copy.name == "a name that is too long for the object that holds it");
}

TEST_CASE_METHOD(objectives_test, "mask objectives: the mask's gradient is that of the loss, for each of them") {
  auto const check = [&](auto const& o) {
    INFO(o.objective.name);
    mask_batch batch(model, std::span<saliency_item const>(views), o);
    auto h = suppressed(batch.parameter_count());
    batch.values().assign(h);
    batch.cross_entropies_and_gradient();
    auto const g = batch.gradient().to_host();
    auto const loss = [&](double& moved, double to) {
      double const at = std::exchange(moved, to);
      batch.values().assign(h);
      batch.cross_entropies();
      moved = at;
      double sum = 0;
      for (double const l : batch.losses()) sum += l;
      return sum;
    };
    std::vector<double> quotient;
    for (double& x : h) quotient.push_back((loss(x, x + 1e-5) - loss(x, x - 1e-5)) / 2e-5);
    CHECK(relative_difference(g, quotient) < 1e-7);
  };
  check(columns<objectives::cross_entropy>());
  check(columns<objectives::kl_to_unmasked>());
  check(columns<strangers::squared_gap>());
  check(columns<strangers::below_mean>());
}

TEST_CASE_METHOD(objectives_test, "mask objectives: as a type and held by any, training has the same bits") {
  auto const check = [&](auto objective) {
    INFO(objective.name);
    auto o = columns<decltype(objective)>();
    auto held = columns<objectives::any>();
    o.steps = held.steps = 4;
    o.learning_rate = held.learning_rate = 0.03;
    held.objective = objective;
    auto const a = train_masks(model, std::span<saliency_item const>(views), o),
               b = train_masks(model, std::span<saliency_item const>(views), held);
    for (std::size_t i = 0; i < items.size(); ++i) {
      CHECK(a[i].mask == b[i].mask);
      CHECK(a[i].loss_end == b[i].loss_end);
      CHECK(a[i].loss_end < a[i].loss_start);
    }
  };
  check(objectives::excess_cross_entropy{});
  check(objectives::kl_to_unmasked{});
  check(strangers::squared_gap{});
  check(strangers::below_mean{});
}

TEST_CASE_METHOD(objectives_test, "mask objectives: one of a user's serves the estimator, and its loss is reported") {
  auto o = mask_options_of<masks::additive, strangers::squared_gap>::recommended();
  o.scale = 10;
  estimators::learned_mask estimator(o);
  auto const e = estimate_saliency(estimator, model, std::span<saliency_item const>(views));
  for (std::size_t i = 0; i < items.size(); ++i) {
    saliency_result const& r = e.items[i];
    CHECK(r.loss_end >= 0);
    if (items[i].answer.size() > 1) continue;
    double const gap = r.ce_end - r.ce_unmasked;  // of a single token
    CHECK(r.loss_end == Approx(gap * gap).margin(1e-12));
  }
}

}  // namespace objectives_test
