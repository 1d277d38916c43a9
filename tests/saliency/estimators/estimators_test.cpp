// Saliency estimators on a model whose causal token is known, on random models, and on policies that a user writes.
#include <atmanrl/saliency/estimators/any.hpp>
#include <atmanrl/saliency/estimators/gradient.hpp>
#include <atmanrl/saliency/estimators/learned_mask.hpp>
#include <atmanrl/saliency/estimators/single_edit.hpp>

#include "catch.hpp"
#include "saliency/copying_model.hpp"

using namespace atmanrl_test;

namespace estimators_test {
namespace {

mask_options fixed_scale() {
  mask_options o = mask_options::recommended();
  o.scale = 25;
  return o;
}

/// A user's estimator: later tokens are more salient.
struct position {
  static constexpr std::string_view name = "position";
  template <class Model>
  saliency_estimate operator()(Model&, std::span<saliency_item const> items) const {
    saliency_estimate out;
    for (saliency_item const& i : items) {
      saliency_result r;
      for (std::size_t t = 0; t < i.cot.size(); ++t) r.token_saliency.push_back(float(t));
      out.items.push_back(r);
    }
    return out;
  }
};

struct forgetful {
  static constexpr std::string_view name = "forgetful";
  int missing_items = 0;
  template <class Model>
  saliency_estimate operator()(Model&, std::span<saliency_item const> items) const {
    saliency_estimate out;
    out.items.resize(items.size() - std::size_t(missing_items));
    return out;
  }
};

}  // namespace

TEST_CASE("estimators: each ranks the token that the answer is copied from first") {
  copying_model m;
  for (std::size_t const place : {0u, 4u, 8u}) {
    std::vector<int> cot{6, 7, 7, 6, 7, 6, 6, 7, 6};
    cot[place] = 3;
    owned_item const item = m.item(cot, 3);
    std::vector<saliency_item> const one{item};
    auto const check = [&](auto estimator) {
      INFO(estimator.name << " at " << place);
      auto const e = estimate_saliency(estimator, m.model, std::span<saliency_item const>(one));
      auto const& s = e.items[0].token_saliency;
      CHECK(std::size_t(std::max_element(s.begin(), s.end()) - s.begin()) == place);
      CHECK(e.items[0].ce_start >= e.items[0].ce_unmasked);
      CHECK(e.items[0].as_printed == Approx(1 - e.items[0].re_enabled).margin(1e-12));
      CHECK(e.rows.forward > 0);
    };
    check(estimators::learned_mask(fixed_scale()));
    check(estimators::leave_one_out{});
    check(estimators::atman_suppression{});
    check(estimators::gradient{.scale = 25});
    check(estimators::gradient{.at = 0, .scale = 25});
  }
}

TEST_CASE("estimators: filler lowers the reward number of each") {
  copying_model m;
  std::vector<owned_item> owned;
  for (int const filler : {2, 8, 32, 128}) {
    std::vector<int> cot{2};
    cot.insert(cot.end(), std::size_t(filler), 6);
    owned.push_back(m.item(cot, 2));
  }
  std::vector<saliency_item> const items(owned.begin(), owned.end());
  auto const check = [&](auto estimator) {
    INFO(estimator.name);
    auto const e = estimate_saliency(estimator, m.model, std::span<saliency_item const>(items));
    for (std::size_t i = 1; i < items.size(); ++i) CHECK(e.items[i].re_enabled < e.items[i - 1].re_enabled);
    CHECK(e.items[0].re_enabled < 1);
  };
  check(estimators::learned_mask(fixed_scale()));
  check(estimators::leave_one_out{});
  check(estimators::atman_suppression{});
  check(estimators::gradient{.scale = 10});
}

TEST_CASE("leave_one_out: a token's saliency is the rise of the cross-entropy when it alone is knocked out") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  auto const owned = ragged_items(11);
  auto const items = views_of(owned);
  for (mask_rows const rows : {mask_rows::answer_rows, mask_rows::all_later}) {
    estimators::leave_one_out estimator{.options = {.rows = rows}};
    auto const e = estimate_saliency(estimator, model, std::span<saliency_item const>(items));
    for (std::size_t i = 0; i < items.size(); ++i) {
      // The same through a column mask whose entry is so low that nothing of the token is left.
      mask_batch<decltype(model)> one(model, std::span(items).subspan(i, 1), mask_shape::column, rows, 1);
      double const unedited = one.cross_entropies()[0];
      CHECK(e.items[i].ce_unmasked == Approx(unedited));
      double mean = 0;
      for (std::size_t t = 0; t < items[i].cot.size(); ++t) {
        std::vector<double> h(items[i].cot.size(), 0.0);
        h[t] = -1e6;
        one.values().assign(h);
        double const ce = one.cross_entropies()[0];
        CHECK(e.items[i].token_saliency[t] == Approx(ce - unedited).margin(1e-6));
        mean += ce / double(items[i].cot.size());
      }
      CHECK(e.items[i].ce_end == Approx(mean));
      one.values().assign(std::vector<double>(items[i].cot.size(), -1e6));
      CHECK(e.items[i].ce_start == Approx(one.cross_entropies()[0]));
    }
  }
}

TEST_CASE("gradient: it is the first-order effect of moving one token's entry by c") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  auto const owned = ragged_items(11);
  auto const items = views_of(owned);
  double const step = 1e-5;
  for (double const at : {-0.4, -0.2}) {
    estimators::gradient estimator{.at = at, .scale = 5};
    auto const e = estimate_saliency(estimator, model, std::span<saliency_item const>(items));
    mask_batch<decltype(model)> batch(model, items, mask_shape::column, mask_rows::answer_rows, 5);
    for (std::size_t i = 0; i < items.size(); ++i)
      for (std::size_t t = 0; t < items[i].cot.size(); ++t) {
        std::vector<double> h(std::size_t(batch.parameter_count()), at);
        std::size_t const k = std::size_t(batch.extents()[i].offset) + t;
        h[k] = at + step;
        batch.values().assign(h);
        double const above = batch.cross_entropies()[i];
        h[k] = at - step;
        batch.values().assign(h);
        double const below = batch.cross_entropies()[i];
        CHECK(e.items[i].token_saliency[t] == Approx(-0.4 * (above - below) / (2 * step)).epsilon(1e-4).margin(1e-6));
      }
  }
}

TEST_CASE("atman_suppression: a factor of 1 changes nothing, a smaller one more") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  auto const owned = ragged_items(11);
  auto const items = views_of(owned);
  auto const size = [&](float factor) {
    estimators::atman_suppression estimator{.factor = factor};
    double sum = 0;
    for (auto const& r : estimate_saliency(estimator, model, std::span<saliency_item const>(items)).items)
      for (float const s : r.token_saliency) sum += std::abs(double(s));
    return sum;
  };
  CHECK(size(1) < 1e-6);
  CHECK(size(0.1f) > size(0.9f));
}

TEST_CASE("learned_mask: a scale of 0 is chosen at the first items and then kept; nothing is done without items") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  auto const owned = ragged_items(11);
  auto const items = views_of(owned);
  mask_options o = mask_options::recommended();
  o.steps = 2;
  estimators::learned_mask estimator(o);
  CHECK(estimate_saliency(estimator, model, std::span<saliency_item const>()).items.empty());
  CHECK(estimator.options().scale == 0);
  auto const e = estimate_saliency(estimator, model, std::span<saliency_item const>(items));
  double const chosen = estimator.options().scale;
  CHECK(chosen >= 10);
  estimate_saliency(estimator, model, std::span<saliency_item const>(items).first(1));
  CHECK(estimator.options().scale == chosen);
  mask_batch<decltype(model)> batch(model, items, o.shape, o.rows, chosen);
  CHECK(e.rows.backward == 2 * batch.rows_per_step());
}

TEST_CASE(
    "estimators::any: each name gives what that estimator gives with the same options, and a mask's scale can be put "
    "back") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  auto const owned = ragged_items(11);
  auto const items = views_of(owned);
  mask_options o = mask_options::recommended();
  o.steps = 2;
  o.rows = mask_rows::all_later;
  o.label = mask_label::only_correct;
  auto const saliency = [&](auto estimator) {
    std::vector<std::vector<float>> all;
    for (auto const& r : estimate_saliency(estimator, model, std::span<saliency_item const>(items)).items)
      all.push_back(r.token_saliency);
    return all;
  };
  variant_options const variants{.rows = o.rows};
  CHECK(saliency(estimators::by_name("learned_mask", o)) == saliency(estimators::learned_mask(o)));
  CHECK(saliency(estimators::by_name("leave_one_out", o)) == saliency(estimators::leave_one_out{variants}));
  CHECK(saliency(estimators::by_name("gradient", o)) == saliency(estimators::gradient{.rows = o.rows}));
  CHECK(saliency(estimators::by_name("atman_suppression", o)) ==
        saliency(estimators::atman_suppression{.options = variants}));
  CHECK(saliency(estimators::by_name("gradient_x_input", o)) == saliency(estimators::gradient_x_input{}));
  CHECK(saliency(estimators::by_name("attention_rollout", o)) == saliency(estimators::attention_rollout{}));
  CHECK_THROWS_WITH(
      estimators::by_name("rollout"),
      ATMANRL_CONTAINS(
          "learned_mask, leave_one_out, gradient, atman_suppression, gradient_x_input, attention_rollout"));

  auto mask = estimators::by_name("learned_mask", o);
  CHECK(mask.options().scale == 0);
  estimate_saliency(mask, model, std::span<saliency_item const>(items));
  CHECK(mask.options().scale >= 10);
  mask.set_scale(12);
  CHECK(mask.options().scale == 12);
  auto other = estimators::by_name("leave_one_out", o);
  other.set_scale(12);
  CHECK(other.mask() == nullptr);
  CHECK(other.options().scale == 0);
  CHECK(other.options().label == mask_label::only_correct);
}

TEST_CASE("estimate_saliency: a user's estimator is used as it is, and one that forgets items or tokens is refused") {
  copying_model m;
  owned_item const item = m.item({6, 3, 6}, 3);
  std::vector<saliency_item> const one{item};
  position mine;
  CHECK(estimate_saliency(mine, m.model, std::span<saliency_item const>(one)).items[0].token_saliency ==
        std::vector<float>{0, 1, 2});
  forgetful bad;
  CHECK_THROWS_WITH(estimate_saliency(bad, m.model, std::span<saliency_item const>(one)),
                    ATMANRL_CONTAINS("0 values for the 3 tokens"));
  bad.missing_items = 1;
  CHECK_THROWS_WITH(estimate_saliency(bad, m.model, std::span<saliency_item const>(one)),
                    ATMANRL_CONTAINS("0 results for 1 items"));
}

TEST_CASE("mean_lost_probability: effects below 0 count nothing, large ones 1") {
  CHECK(mean_lost_probability(std::vector<float>{-3, 0, 1000}) == Approx(1.0 / 3));
  CHECK(mean_lost_probability(std::vector<float>{std::log(2.0f)}) == Approx(0.5));
  CHECK(mean_lost_probability({}) == 0);
}

}  // namespace estimators_test
