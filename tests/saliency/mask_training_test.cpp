#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/saliency/mask_training.hpp>

#include "catch.hpp"
#include "saliency/items.hpp"

#include <limits>

using namespace atmanrl_test;

namespace mask_training_test {
namespace {

using exact_model = llama<reference_backend, double>;

struct exact_test {
  reference_backend backend;
  exact_model model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  std::vector<owned_item> items = ragged_items(11);
  std::vector<saliency_item> views = views_of(items);
  std::vector<saliency_item> no_items;
};

/// A model with more than one panel, on the CPU.
model_config wider() {
  model_config c = rich_config();
  c.hidden = 48;
  c.head_dim = 10;
  c.ffn = 40;
  c.vocab = 50;
  return c;
}

mask_options short_training(mask_shape shape, mask_rows rows) {
  mask_options o;
  o.shape = shape;
  o.rows = rows;
  o.steps = 4;
  o.learning_rate = 0.02;
  o.sparsity = 0.05;
  return o;
}

bool same_bits(saliency_result const& a, saliency_result const& b) {
  return a.mask == b.mask && a.token_saliency == b.token_saliency && a.ce_unmasked == b.ce_unmasked &&
         a.ce_start == b.ce_start && a.ce_end == b.ce_end && a.re_enabled == b.re_enabled &&
         a.as_printed == b.as_printed;
}

}  // namespace

TEMPLATE_TEST_CASE(
    "train_masks: on cpu_backend a mask has the same bits alone, in a batch, under any row budget and thread count", "",
    float, bf16) {
  std::vector<owned_item> const items = ragged_items(50);
  std::vector<saliency_item> const views = views_of(items);
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    INFO(combination(shape, rows));
    mask_options o = short_training(shape, rows);
    cpu_backend one_thread({.threads = 1}), two_threads({.threads = 2});
    auto model = random_model<cpu_backend, TestType>(one_thread, wider(), 3);
    auto same_model = random_model<cpu_backend, TestType>(two_threads, wider(), 3);
    auto const together = train_masks(model, std::span(views), o);
    auto const in_parallel = train_masks(same_model, std::span(views), o);
    o.row_budget = 9;  // two items together, or one
    auto const in_parts = train_masks(model, std::span(views), o);
    for (std::size_t i = 0; i < items.size(); ++i) {
      auto const alone = train_masks(model, std::span(views).subspan(i, 1), o);
      CHECK(same_bits(alone[0], together[i]));
      CHECK(same_bits(in_parts[i], together[i]));
      CHECK(same_bits(in_parallel[i], together[i]));
    }
    CHECK_FALSE(together[0].mask == std::vector<float>(together[0].mask.size(), float(o.init)));
  });
}

TEST_CASE_METHOD(exact_test,
                 "train_masks: every step is AdamW on the summed mean cross-entropies and the sparsity term") {
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    INFO(combination(shape, rows));
    mask_options const o = short_training(shape, rows);
    auto const ours = train_masks(model, std::span(views), o);
    for (std::size_t i = 0; i < items.size(); ++i) {
      mask_extent const e = full_path<double>::extent_of(items[i], shape, rows);
      std::vector<double> h(std::size_t(e.count), o.init), m(h.size()), v(h.size());
      for (int t = 1; t <= o.steps; ++t) {
        full_path<double> const whole(model, items[i], shape, rows, o.scale, h);
        if (t == 1) CHECK(ours[i].ce_start == Approx(whole.ce).epsilon(1e-12));
        for (std::size_t k = 0; k < h.size(); ++k) {
          double const seen = shape == mask_shape::column ? double(rows_that_see(e, int(k))) : 1;
          double const g = whole.gradient[k] - o.sparsity * seen / (o.init * double(e.entries()));
          auto const& a = o.optimizer;
          m[k] = a.beta1 * m[k] + (1 - a.beta1) * g;
          v[k] = a.beta2 * v[k] + (1 - a.beta2) * g * g;
          h[k] *= 1 - o.learning_rate * a.weight_decay;
          h[k] -= o.learning_rate * m[k] / (1 - std::pow(a.beta1, t)) /
                  (std::sqrt(v[k] / (1 - std::pow(a.beta2, t))) + a.eps);
        }
      }
      CHECK(relative_difference(ours[i].mask, h) < 1e-6);
      CHECK(ours[i].ce_end == Approx(full_path<double>(model, items[i], shape, rows, o.scale, h).ce).epsilon(1e-7));
      CHECK(ours[i].ce_unmasked ==
            Approx(full_path<double>(model, items[i], shape, rows, o.scale, std::vector<double>(h.size())).ce)
                .epsilon(1e-12));
      auto const reduced = reduce_mask(shape, e, o.init, ours[i].mask);
      CHECK(ours[i].token_saliency == reduced.token_saliency);
      CHECK(ours[i].re_enabled == reduced.re_enabled);
      CHECK(ours[i].as_printed == reduced.as_printed);
    }
  });
}

TEST_CASE("sparsity: its gradient is the derivative of the mean of 1 - H/c over all allowed entries") {
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    mask_extent const e = make_mask_extent(shape, rows, 2, 6, 11, 3);
    double const init = -0.4, sparsity = 0.3;
    std::vector<double> g(std::size_t(e.offset + e.count), 1.0);  // added to
    masks::additive mask;
    mask.shape = shape;
    mask.init = init;
    mask.sparsity_gradient(e, sparsity, std::span(g).subspan(std::size_t(e.offset), std::size_t(e.count)));
    CHECK(std::vector<double>(g.begin(), g.begin() + 3) == std::vector<double>(3, 1.0));
    std::vector<float> const h(std::size_t(e.count), -0.25f);
    for (index_t k = 0; k < e.count; ++k) {
      auto moved = h;
      moved[std::size_t(k)] += 1;  // the term is linear
      double const slope =
          sparsity * (reduce_mask(shape, e, init, moved).re_enabled - reduce_mask(shape, e, init, h).re_enabled);
      CHECK(g[std::size_t(e.offset + k)] - 1 == Approx(slope).epsilon(1e-9));
    }
  });
}

TEST_CASE("train_masks: cpu_backend agrees with the plain loops on the first gradient of both shapes and rows") {
  cpu_backend fast({.threads = 2});
  reference_backend plain;
  auto model = random_model<cpu_backend, float>(fast, wider(), 3);
  auto exact = random_model<reference_backend, double>(plain, wider(), 3);
  auto const items = ragged_items(50);
  auto const views = views_of(items);
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    INFO(combination(shape, rows));
    mask_batch<llama<cpu_backend, float>> a(model, views, shape, rows, 10);
    mask_batch<exact_model> b(exact, views, shape, rows, 10);
    a.values().assign(std::vector<float>(std::size_t(a.parameter_count()), -0.4f));
    b.values().assign(std::vector<double>(std::size_t(b.parameter_count()), -0.4));
    CHECK(relative_difference(a.cross_entropies_and_gradient(), b.cross_entropies_and_gradient()) < 1e-5);
    CHECK(relative_difference(a.gradient().to_host(), b.gradient().to_host()) < 1e-4);
  });
}

TEST_CASE_METHOD(exact_test,
                 "train_masks: without steps the mask is the start value and its two cross-entropies are one") {
  mask_options o;
  o.steps = 0;
  gradient_quantiles q{1, 2, 3};
  auto const r = train_masks(model, std::span(views).first(1), o, &q);
  CHECK(r[0].mask == std::vector<float>(r[0].mask.size(), -0.4f));
  CHECK(r[0].ce_start == r[0].ce_end);
  CHECK(r[0].ce_start != r[0].ce_unmasked);
  CHECK(r[0].as_printed == Approx(1).epsilon(1e-6));
  CHECK(q.median == 2);  // no gradient was seen
}

TEST_CASE_METHOD(exact_test, "train_masks: quantiles are those of the first gradient's absolute values") {
  mask_options o = short_training(mask_shape::pair, mask_rows::all_later);
  gradient_quantiles q;
  train_masks(model, std::span(views), o, &q);
  mask_batch<exact_model> b(model, views, o.shape, o.rows, o.scale);
  b.values().assign(std::vector<double>(std::size_t(b.parameter_count()), o.init));
  b.cross_entropies_and_gradient();
  auto g = b.gradient().to_host();
  for (double& x : g) x = std::abs(x);
  auto const below = [&](double limit) {
    return double(std::count_if(g.begin(), g.end(), [&](double x) { return x <= limit; })) / double(g.size());
  };
  CHECK(below(q.low) == Approx(0.1).margin(0.05));
  CHECK(below(q.median) == Approx(0.5).margin(0.05));
  CHECK(below(q.high) == Approx(0.9).margin(0.05));
}

TEST_CASE_METHOD(exact_test,
                 "choose_scale: the smallest rung at which the median answer loses what is wanted against no mask") {
  mask_options o;
  auto const median_at = [&](double scale) {
    std::vector<double> rises;
    for (owned_item const& i : items) {
      auto const count = full_path<double>::extent_of(i, o.shape, o.rows).count;
      auto const ce = [&](double h) {
        return full_path<double>(model, i, o.shape, o.rows, scale, std::vector<double>(std::size_t(count), h)).ce;
      };
      REQUIRE(ce(0) > std::log(2.0));  // a random model gives no answer: all items count
      rises.push_back(ce(o.init) - ce(0));
    }
    std::sort(rises.begin(), rises.end());
    return rises[rises.size() / 2];
  };
  // The highest median of the ladder, and a little more than the first, are bars that say which rung must come out.
  std::vector<double> const ladder{10, 15, 25, 40, 60, 100};
  std::vector<double> medians;
  for (double const s : ladder) medians.push_back(median_at(s));
  for (double const wanted :
       {medians[0], medians[0] + 1e-9, *std::max_element(medians.begin(), medians.end()) - 1e-9, 1e6}) {
    std::size_t rung = 0;
    while (rung < ladder.size() && medians[rung] < wanted) ++rung;
    if (rung == ladder.size()) rung = 0;
    for (index_t const budget : {index_t{1}, index_t{1000}}) {
      o.row_budget = budget;
      CHECK(choose_scale(model, std::span<saliency_item const>(views), o, wanted) == ladder[rung]);
    }
  }
  CHECK_THROWS_AS(choose_scale(model, std::span<saliency_item const>(no_items), o), usage_error);
}

TEST_CASE_METHOD(exact_test, "train_masks: options that cannot work are named with their value") {
  auto const complaint = [&](auto&& change) {
    mask_options o;
    change(o);
    try {
      train_masks(model, std::span<saliency_item const>(views), o);
    } catch (usage_error const& e) {
      return std::string(e.what());
    }
    return std::string("nothing");
  };
  CHECK_THAT(complaint([](mask_options& o) { o.init = 0; }), ATMANRL_CONTAINS("init is 0"));
  CHECK_THAT(complaint([](mask_options& o) { o.init = std::numeric_limits<double>::quiet_NaN(); }),
             ATMANRL_CONTAINS("init is nan"));
  CHECK_THAT(complaint([](mask_options& o) { o.scale = -1; }), ATMANRL_CONTAINS("scale is -1"));
  CHECK_THAT(complaint([](mask_options& o) { o.scale = 0; }), ATMANRL_CONTAINS("choose_scale"));
  CHECK_THAT(complaint([](mask_options& o) { o.steps = -1; }), ATMANRL_CONTAINS("steps is -1"));
  CHECK_THAT(complaint([](mask_options& o) { o.learning_rate = 0; }), ATMANRL_CONTAINS("learning rate is 0"));
  CHECK_THAT(complaint([](mask_options& o) { o.sparsity = -0.1; }), ATMANRL_CONTAINS("sparsity is -0.1"));
  CHECK(complaint([](mask_options& o) { o.steps = 1; }) == "nothing");
}

TEST_CASE_METHOD(exact_test, "train_masks: weights that are not finite stop it and name the mask") {
  auto flat = random_parameters(model.config(), 2);
  flat[std::size_t(model.layout().find("model.layers.1.mlp.down_proj.weight")->offset)] =
      std::numeric_limits<double>::quiet_NaN();
  set_parameters(model, flat);
  CHECK_THROWS_WITH(train_masks(model, std::span<saliency_item const>(views), {}),
                    ATMANRL_CONTAINS("cross-entropy of mask 0 is"));
  CHECK_THROWS_AS(train_masks(model, std::span<saliency_item const>(views), {}), numeric_error);
  CHECK_THROWS_AS(choose_scale(model, std::span<saliency_item const>(views), {}), numeric_error);
  CHECK(train_masks(model, std::span<saliency_item const>(no_items), {}).empty());
}

TEST_CASE("mask_options: the defaults are the paper's, the recommended ones those that rank tokens") {
  mask_options const paper, ours = mask_options::recommended();
  CHECK(paper.init == -0.4);
  CHECK(paper.scale == 10);
  CHECK(paper.clamp == 0);
  CHECK(paper.steps == 200);
  CHECK(paper.sparsity == 0);
  CHECK((paper.shape == mask_shape::pair && paper.rows == mask_rows::all_later));
  CHECK((paper.learning_rate == 1e-3 && paper.optimizer.beta1 == 0.6 && paper.optimizer.beta2 == 0.9999 &&
         paper.optimizer.eps == 1e-8 && paper.optimizer.weight_decay == 0.05));
  CHECK((ours.shape == mask_shape::column && ours.rows == mask_rows::answer_rows));
  CHECK(ours.steps * ours.learning_rate == Approx(paper.steps * paper.learning_rate));
}

}  // namespace mask_training_test
