// Mask families through whole models: gradients, training and reading of those that the library has, and of one that a
// user wrote.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/saliency/estimators/learned_mask.hpp>
#include <atmanrl/saliency/masks/multiplicative.hpp>
#include <atmanrl/saliency/masks/sigmoid_gate.hpp>

#include "catch.hpp"
#include "saliency/copying_model.hpp"
#include "saliency/items.hpp"
#include "strangers.hpp"

using namespace atmanrl_test;

namespace mask_families_test {
namespace {

using model_type = llama<reference_backend, double>;

struct families_test {
  reference_backend backend;
  model_type model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  llama<reference_backend, complex> step_model{backend, model.config()};
  std::vector<owned_item> items = ragged_items(11);
  std::vector<saliency_item> views = views_of(items);

  families_test() { set_parameters(step_model, random_parameters(model.config(), 2, 1.5)); }
};

std::vector<double> part(std::vector<double> const& all, mask_extent const& e) {
  return {all.begin() + e.offset, all.begin() + e.offset + e.count};
}

/// Values around where the family starts, on both sides of what it may clamp.
std::vector<double> around(double middle, index_t count) {
  auto v = random_values(count, 60, 0.4);
  for (double& x : v) x += middle;
  return v;
}

/// Families that lay their masks out where they must not: in rows that nobody asked for, and on top of each other.
struct everywhere : masks::additive {
  mask_extent lay_out(saliency_item const& item, mask_rows, model_config const& model, index_t offset) const {
    return additive::lay_out(item, mask_rows::all_later, model, offset);
  }
};
struct side_by_side : masks::additive {
  mask_extent lay_out(saliency_item const& item, mask_rows rows, model_config const& model, index_t) const {
    return additive::lay_out(item, rows, model, 0);
  }
};

template <class Mask>
std::vector<mask_options_of<Mask>> placed_everywhere() {
  std::vector<mask_options_of<Mask>> all;
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    mask_options_of<Mask> o;
    o.shape = shape;
    o.rows = rows;
    all.push_back(o);
    o.sharing = mask_sharing::per_head;
    o.layers = {1};
    all.push_back(o);
  });
  return all;
}

}  // namespace

TEST_CASE_METHOD(
    families_test,
    "mask families: a packed batch gives what a full pass gives, and the gradient of every value is exact") {
  auto const check = [&](auto const& o, double middle) {
    using options = std::remove_cvref_t<decltype(o)>;
    INFO(options::name << ", rows " << int(o.rows));
    mask_batch batch(model, std::span<saliency_item const>(views), o);
    auto const v = around(middle, batch.parameter_count());
    batch.values().assign(v);
    auto const ce = batch.cross_entropies_and_gradient();
    auto const g = batch.gradient().to_host();
    for (std::size_t i = 0; i < items.size(); ++i) {
      mask_extent const& e = batch.extents()[i];
      auto const mine = part(v, e);
      full_path<double> const whole(model, items[i], o, mine);
      CHECK(ce[i] == Approx(whole.ce).epsilon(1e-12));
      CHECK(relative_difference(part(g, e), whole.gradient) < 1e-10);
      if (i != 2) continue;
      auto const exact = complex_step_gradient(
          mine, [&](std::vector<complex> const& x) { return full_path<complex>(step_model, items[i], o, x).ce; });
      CHECK(relative_difference(whole.gradient, exact) < 1e-9);
      CHECK(relative_difference(exact, std::vector<double>(exact.size())) > 0);  // there is something to compare
    }
  };
  for (auto const& o : placed_everywhere<masks::multiplicative>()) check(o, 0.5);
  for (auto const& o : placed_everywhere<masks::sigmoid_gate>()) check(o, 0.0);
  mask_options_of<strangers::couples> couples;
  for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
    couples.rows = rows;
    check(couples, -1.0);
  }
}

TEST_CASE_METHOD(families_test, "mask families: without masks the answer has the model's own cross-entropy in each") {
  mask_batch<model_type> plain(model, views, mask_options{});
  plain.values().assign(std::vector<double>(std::size_t(plain.parameter_count())));
  auto const own = plain.cross_entropies();  // H = 0 adds nothing
  auto const check = [&](auto const& o) {
    CHECK((mask_batch(model, std::span<saliency_item const>(views), o).unmasked()) == own);
  };
  check(mask_options{});
  check(mask_options_of<masks::multiplicative>{});
  check(mask_options_of<masks::sigmoid_gate>{});
  check(mask_options_of<strangers::couples>{});
}

TEST_CASE_METHOD(families_test, "mask families: values start where the family says, entry by entry where it wants to") {
  mask_options_of<masks::multiplicative> gates;
  gates.start = 0.25;
  mask_batch one(model, std::span<saliency_item const>(views), gates);
  one.start();
  CHECK(one.values().to_host() == std::vector<double>(std::size_t(one.parameter_count()), 0.25));
  mask_batch own(model, std::span<saliency_item const>(views), mask_options_of<strangers::couples>{});
  own.start();
  auto const v = own.values().to_host();
  for (mask_extent const& e : own.extents())
    for (index_t k = 0; k < e.count; ++k) CHECK(v[std::size_t(e.offset + k)] == (k == 0 ? -2.0 : -4.0));
}

TEST_CASE_METHOD(families_test,
                 "mask families: training lowers the cross-entropy of each and leaves the model as it was") {
  auto const before = teacher_forced(model, items[2].all());
  auto const check = [&](auto o, double learning_rate) {
    o.rows = mask_rows::answer_rows;
    o.steps = 15;
    o.learning_rate = learning_rate;
    auto const trained = train_masks(model, std::span<saliency_item const>(views), o);
    for (std::size_t i = 0; i < items.size(); ++i) {
      CHECK(trained[i].ce_end < trained[i].ce_start);
      CHECK(trained[i].steps == 15);
      CHECK(trained[i].token_saliency.size() == items[i].cot.size());
    }
  };
  check(mask_options{}, 0.02);
  check(mask_options_of<masks::multiplicative>{}, 0.05);
  check(mask_options_of<masks::sigmoid_gate>{}, 0.02);
  check(mask_options_of<strangers::couples>{}, 0.2);
  CHECK(teacher_forced(model, items[2].all()) == before);
}

TEST_CASE("mask families: each ranks the token that the answer is copied from first, and its mask hurts at the start") {
  copying_model m;
  std::vector<int> const cot{6, 7, 7, 3, 7, 6, 6, 7, 6};
  owned_item const item = m.item(cot, 3);
  std::vector<saliency_item> const one{item};
  auto const first_of = [&](auto estimator) {
    INFO(estimator.options().name);
    auto const e = estimate_saliency(estimator, m.model, std::span<saliency_item const>(one));
    CHECK(e.items[0].ce_start > e.items[0].ce_unmasked);
    CHECK(e.items[0].ce_end < e.items[0].ce_start);
    CHECK(e.rows.forward > e.rows.backward);
    CHECK(e.gradients.high > 0);
    auto const& s = e.items[0].token_saliency;
    return std::max_element(s.begin(), s.end()) - s.begin();
  };
  auto gates = mask_options_of<masks::multiplicative>::recommended();
  gates.learning_rate = 0.04;
  CHECK(first_of(estimators::learned_mask(gates)) == 3);
  auto sigmoids = mask_options_of<masks::sigmoid_gate>::recommended();
  CHECK(sigmoids.scale == 0);  // chosen at the first call
  CHECK(first_of(estimators::learned_mask(sigmoids)) == 3);
  auto couples = mask_options_of<strangers::couples>::recommended();
  CHECK(couples.sparsity == 0);
  couples.learning_rate = 0.2;
  CHECK(first_of(estimators::learned_mask(couples)) / 2 == 1);  // tokens 2 and 3 share a value
}

TEST_CASE("multiplicative masks: a gate is read by how far it opened of what was closed at the start") {
  masks::multiplicative m;
  m.start = 0.2;
  m.shape = mask_shape::column;
  mask_extent const e = make_mask_extent(mask_shape::column, mask_rows::answer_rows, 2, 6, 9, 0);
  // as it started, open, further than open, closed
  auto const r = m.reduce(e, std::vector<float>{0.2f, 1.0f, 1.7f, -3.0f});
  CHECK(r.token_saliency[0] == Approx(0).margin(1e-6));
  CHECK(r.token_saliency[1] == 1);
  CHECK(r.token_saliency[2] == 1);
  CHECK(r.token_saliency[3] == Approx(-0.25));
  CHECK(r.re_enabled == Approx((0 + 1 + 1 - 0.25) / 4));
  CHECK(r.as_printed == Approx(1 - r.re_enabled));
  m.reduction = saliency_reduction::clipped;
  CHECK(m.reduce(e, std::vector<float>{0.2f, 1.0f, 1.7f, -3.0f}).re_enabled == Approx(0.5));
}

TEST_CASE("sigmoid gates: a gate is read by how far it opened, however far its value went") {
  masks::sigmoid_gate m;
  m.init = -0.4;
  m.scale = 10;
  mask_extent const e = make_mask_extent(mask_shape::column, mask_rows::all_later, 2, 6, 9, 0);
  double const start = 1 / (1 + std::exp(4.0));
  auto const r = m.reduce(e, std::vector<float>{-0.4f, 0.0f, 9.0f, -90.0f});
  CHECK(r.token_saliency[0] == Approx(0).margin(1e-6));
  CHECK(r.token_saliency[1] == Approx((0.5 - start) / (1 - start)));
  CHECK(r.token_saliency[2] == Approx(1));
  CHECK(r.token_saliency[3] == Approx(-start / (1 - start)));
  // rows that see the four tokens: 6, 5, 4, 3
  double const mean =
      (5 * double(r.token_saliency[1]) + 4 * double(r.token_saliency[2]) + 3 * double(r.token_saliency[3])) / 18;
  CHECK(r.re_enabled == Approx(mean).margin(1e-6));
  CHECK(r.as_printed == Approx(1 - r.re_enabled));
}

TEST_CASE("mask families: the sparsity term's gradient is that of λ times the mean of what its comment says") {
  for (mask_shape const shape : {mask_shape::pair, mask_shape::column}) {
    mask_extent const e = make_mask_extent(shape, mask_rows::all_later, 2, 5, 8, 0);
    auto const check = [&](auto m, double slope) {
      m.shape = shape;
      std::vector<double> g(std::size_t(e.count), 1.0);
      m.sparsity_gradient(e, 0.3, g);
      double sum = 0;  // moving all values by 1 moves the mean by 1
      for (double const x : g) sum += x - 1;
      CHECK(sum == Approx(0.3 * slope));
      CHECK(g[0] - 1 == Approx(0.3 * slope * (shape == mask_shape::column ? 5.0 / 12 : 1.0 / 12)));
    };
    check(masks::additive{}, 1 / 0.4);
    check(masks::multiplicative{}, 1 / 0.9);
    check(masks::sigmoid_gate{}, 1 / 0.4);
  }
}

TEST_CASE_METHOD(families_test, "mask families: numbers that cannot work are refused, and terms that a family lacks") {
  auto const complaint = [&](auto o) {
    try {
      train_masks(model, std::span<saliency_item const>(views), o);
    } catch (usage_error const& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  mask_options_of<masks::multiplicative> gates;
  gates.start = 1;
  CHECK_THAT(complaint(gates), ATMANRL_CONTAINS("starts at 1"));
  mask_options_of<masks::sigmoid_gate> sigmoids;
  sigmoids.init = 0;
  CHECK_THAT(complaint(sigmoids), ATMANRL_CONTAINS("mask init is 0"));
  sigmoids = {};
  sigmoids.scale = 0;
  CHECK_THAT(complaint(sigmoids), ATMANRL_CONTAINS("settled by choose_scale"));
  mask_options_of<strangers::couples> couples;
  couples.sparsity = 0.1;
  CHECK_THAT(complaint(couples), ATMANRL_CONTAINS("couples masks have no such term"));
  mask_options_of<everywhere> unasked;
  CHECK(complaint(unasked).empty());
  unasked.rows = mask_rows::answer_rows;
  CHECK_THAT(complaint(unasked), ATMANRL_CONTAINS("edits row 3, but rows below 7 are computed once"));
  mask_options_of<side_by_side> overlapping;
  CHECK_THAT(complaint(overlapping), ATMANRL_CONTAINS("values out at 0, but they must begin at"));
}

TEST_CASE("mask families: a command line's settings reach what has a use for them, and are refused otherwise") {
  mask_options o;
  o.steps = 7;
  o.sharing = mask_sharing::per_layer;
  o.objective = objectives::kl_to_unmasked{};
  estimators::learned_mask<masks::multiplicative> const gates(o);
  CHECK(gates.options().steps == 7);
  CHECK(gates.options().sharing == mask_sharing::per_layer);
  CHECK(gates.options().objective.name == "kl_to_unmasked");
  CHECK(gates.options().start == 0.1);
  CHECK_NOTHROW(estimators::learned_mask<masks::multiplicative>(mask_options::recommended()));
  o.init = -0.6;
  o.scale = 12;
  CHECK_THROWS_WITH(estimators::learned_mask<masks::multiplicative>(o),
                    ATMANRL_CONTAINS("mask init is -0.6, but multiplicative masks have none"));
  estimators::learned_mask<masks::sigmoid_gate> const sigmoids(o);
  CHECK(sigmoids.options().init == -0.6);
  CHECK(sigmoids.options().scale == 12);
  o.clamp = 0.1;
  CHECK_THROWS_WITH(estimators::learned_mask<masks::sigmoid_gate>(o), ATMANRL_CONTAINS("have no clamps"));
  CHECK_THROWS_WITH(estimators::learned_mask<strangers::couples>(o), ATMANRL_CONTAINS("of the family couples"));
  CHECK_NOTHROW(estimators::learned_mask<strangers::couples>(mask_options::recommended()));
  using gap = estimators::learned_mask<masks::additive, strangers::squared_gap>;
  CHECK(gap(mask_options::recommended()).options().objective.name == "squared_gap");
  o.objective = objectives::kl_to_unmasked{};
  CHECK_THROWS_WITH(gap(o), ATMANRL_CONTAINS("the objective squared_gap in its place"));
}

}  // namespace mask_families_test
