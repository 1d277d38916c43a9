// Masks per layer and head, objectives and early stopping, against plain passes, exact derivatives and shorter
// trainings.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/saliency/mask_training.hpp>

#include "catch.hpp"
#include "saliency/items.hpp"

using namespace atmanrl_test;

namespace mask_policies_test {
namespace {

using model_type = llama<reference_backend, double>;

struct policies_test {
  reference_backend backend;
  model_type model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  llama<reference_backend, complex> step_model{backend, model.config()};
  std::vector<owned_item> items = ragged_items(11);
  std::vector<saliency_item> views = views_of(items);

  policies_test() { set_parameters(step_model, random_parameters(model.config(), 2, 1.5)); }

  mask_batch<model_type> batch(mask_options const& o) { return {model, views, o}; }
  static std::vector<double> random_mask(index_t count) {
    auto h = random_values(count, 60, 0.2);
    for (double& x : h) x -= 0.15;
    return h;
  }
  static std::vector<double> part(std::vector<double> const& all, mask_extent const& e) {
    return {all.begin() + e.offset, all.begin() + e.offset + e.count};
  }
};

mask_options options(mask_sharing sharing, std::vector<int> layers, mask_shape shape, mask_rows rows) {
  mask_options o;
  o.shape = shape;
  o.rows = rows;
  o.sharing = sharing;
  o.layers = std::move(layers);
  o.lower_clamp = -0.45;
  return o;
}

mask_options short_training() {
  mask_options o = mask_options::recommended();
  o.scale = 10;
  o.steps = 8;
  o.learning_rate = 0.03;
  return o;
}

bool same_bits(saliency_result const& a, saliency_result const& b) {
  return a.mask == b.mask && a.token_saliency == b.token_saliency && a.ce_unmasked == b.ce_unmasked &&
         a.ce_start == b.ce_start && a.ce_end == b.ce_end && a.re_enabled == b.re_enabled &&
         a.as_printed == b.as_printed && a.steps == b.steps && a.loss_end == b.loss_end;
}

// KL(p_0 || p) of rows of logits, written for complex numbers too.
template <class T>
T mean_kl(std::vector<double> const& z0, std::vector<T> const& z, std::size_t vocabulary) {
  using std::exp, std::log;
  T all{};
  for (std::size_t r = 0; r < z.size(); r += vocabulary) {
    T sum{};
    double sum0 = 0;
    for (std::size_t j = r; j < r + vocabulary; ++j) sum += exp(z[j]), sum0 += std::exp(z0[j]);
    for (std::size_t j = r; j < r + vocabulary; ++j) {
      double const log_p0 = z0[j] - std::log(sum0);
      all += std::exp(log_p0) * (log_p0 - (z[j] - log(sum)));
    }
  }
  return all / double(z.size() / vocabulary);
}

}  // namespace

TEST_CASE_METHOD(
    policies_test,
    "mask_batch: masks per layer, per head and in some layers give what a full pass gives, and its exact gradient") {
  for (mask_sharing const sharing : {mask_sharing::all, mask_sharing::per_layer, mask_sharing::per_head})
    for (std::vector<int> const& layers : {std::vector<int>{}, std::vector<int>{1}})
      for_each_kind([&](mask_shape shape, mask_rows rows) {
        mask_options const o = options(sharing, layers, shape, rows);
        INFO(combination(shape, rows) << ", sharing " << int(sharing) << ", " << layers.size() << " layers");
        auto b = batch(o);
        auto const h = random_mask(b.parameter_count());
        b.values().assign(h);
        auto const ce = b.cross_entropies_and_gradient();
        auto const g = b.gradient().to_host();
        for (std::size_t i = 0; i < items.size(); ++i) {
          mask_extent const& e = b.extents()[i];
          auto const mine = part(h, e);
          full_path<double> const whole(model, items[i], o, mine);
          CHECK(ce[i] == Approx(whole.ce).epsilon(1e-12));
          CHECK(relative_difference(part(g, e), whole.gradient) < 1e-10);
          if (i != 0) continue;
          auto const exact = complex_step_gradient(
              mine, [&](std::vector<complex> const& x) { return full_path<complex>(step_model, items[i], o, x).ce; });
          CHECK(relative_difference(whole.gradient, exact) < 1e-9);
        }
      });
}

TEST_CASE_METHOD(policies_test,
                 "mask gradient: those of the heads sum to the layer's, and those of the layers to the shared one") {
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    INFO(combination(shape, rows));
    auto shared = batch(options(mask_sharing::all, {}, shape, rows)),
         by_layer = batch(options(mask_sharing::per_layer, {}, shape, rows)),
         by_head = batch(options(mask_sharing::per_head, {}, shape, rows));
    auto const h = random_mask(shared.parameter_count());
    std::size_t const layers = 2, heads = 4;
    REQUIRE(by_layer.parameter_count() == index_t(layers) * shared.parameter_count());
    REQUIRE(by_head.parameter_count() == index_t(layers * heads) * shared.parameter_count());
    // Every separate H equal to the shared one.
    auto const spread = [&](mask_batch<model_type>& b) {
      std::vector<double> all(std::size_t(b.parameter_count()));
      for (std::size_t i = 0; i < items.size(); ++i) {
        mask_extent const &e = b.extents()[i], &s = shared.extents()[i];
        for (index_t k = 0; k < e.count; ++k) all[std::size_t(e.offset + k)] = h[std::size_t(s.offset + k % s.count)];
      }
      b.values().assign(all);
      return b.cross_entropies_and_gradient();
    };
    shared.values().assign(h);
    auto const ce = shared.cross_entropies_and_gradient();
    CHECK(spread(by_layer) == ce);
    CHECK(spread(by_head) == ce);
    auto const all = shared.gradient().to_host(), layer = by_layer.gradient().to_host(),
               head = by_head.gradient().to_host();
    std::vector<double> layer_sum(all.size()), head_sum(layer.size());
    for (std::size_t i = 0; i < items.size(); ++i) {
      mask_extent const &s = shared.extents()[i], &l = by_layer.extents()[i], &k = by_head.extents()[i];
      for (index_t j = 0; j < l.count; ++j)
        layer_sum[std::size_t(s.offset + j % s.count)] += layer[std::size_t(l.offset + j)];
      for (index_t j = 0; j < k.count; ++j)
        head_sum[std::size_t(l.offset + j / (index_t(heads) * s.count) * s.count + j % s.count)] +=
            head[std::size_t(k.offset + j)];
    }
    CHECK(relative_difference(layer_sum, all) < 1e-12);
    CHECK(relative_difference(head_sum, layer) < 1e-12);
  });
}

TEST_CASE_METHOD(policies_test, "kl_to_unmasked: zero with a gradient of exactly zero where nothing is suppressed") {
  mask_options o = options(mask_sharing::all, {}, mask_shape::pair, mask_rows::all_later);
  o.objective = objectives::kl_to_unmasked{};
  auto b = batch(o);
  auto const ce = b.cross_entropies_and_gradient();
  CHECK(b.losses() == std::vector<double>(items.size(), 0.0));
  CHECK(b.gradient().to_host() == std::vector<double>(std::size_t(b.parameter_count()), 0.0));
  CHECK(relative_difference(
            ce, batch(options(mask_sharing::all, {}, mask_shape::pair, mask_rows::all_later)).unmasked()) < 1e-12);
}

TEST_CASE_METHOD(policies_test, "kl_to_unmasked: value and gradient are exact, whatever an item is packed with") {
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    INFO(combination(shape, rows));
    mask_options o = options(mask_sharing::all, {}, shape, rows);
    o.objective = objectives::kl_to_unmasked{};
    auto b = batch(o);
    auto const h = random_mask(b.parameter_count());
    b.values().assign(h);
    b.cross_entropies_and_gradient();
    auto const kl = b.losses();
    auto const g = b.gradient().to_host();
    for (std::size_t const i : {0u, 2u, 3u}) {
      mask_extent const& e = b.extents()[i];
      auto const unmasked = full_path<double>(model, items[i], o, std::vector<double>(std::size_t(e.count))).logits;
      auto const of = [&](auto& m, auto const& values) {
        using T = typename std::remove_cvref_t<decltype(m)>::scalar;
        return mean_kl(unmasked, full_path<T>(m, items[i], o, values).logits, 11);
      };
      CHECK(kl[i] == Approx(of(model, part(h, e))).epsilon(1e-10));
      CHECK(kl[i] > 0);
      auto const exact =
          complex_step_gradient(part(h, e), [&](std::vector<complex> const& x) { return of(step_model, x); });
      CHECK(relative_difference(part(g, e), exact) < 1e-9);
    }
    // An item that leaves takes its own rows of the unmasked model along.
    b.drop(1);
    b.cross_entropies_and_gradient();
    CHECK(relative_difference(b.losses(), kl) < 1e-12);
    auto const fewer = b.gradient().to_host();
    for (std::size_t const i : {0u, 2u, 3u})
      CHECK(relative_difference(part(fewer, b.extents()[i]), part(g, b.extents()[i])) < 1e-12);
  });
}

TEST_CASE_METHOD(policies_test,
                 "excess_cross_entropy: CE(H) - CE(0), with the gradient and the trained mask of the cross-entropy") {
  mask_options o = short_training();
  auto const plain = train_masks(model, std::span<saliency_item const>(views), o);
  o.objective = objectives::excess_cross_entropy{};
  auto const excess = train_masks(model, std::span<saliency_item const>(views), o);
  for (std::size_t i = 0; i < items.size(); ++i) {
    CHECK(excess[i].mask == plain[i].mask);
    CHECK(excess[i].loss_start == excess[i].ce_start - excess[i].ce_unmasked);
    CHECK(excess[i].loss_end == excess[i].ce_end - excess[i].ce_unmasked);
    CHECK(plain[i].loss_end == plain[i].ce_end);
  }
}

TEST_CASE_METHOD(policies_test, "kl_to_unmasked: training lowers the divergence") {
  mask_options o = short_training();
  o.sparsity = 0;
  o.objective = objectives::kl_to_unmasked{};
  for (saliency_result const& r : train_masks(model, std::span<saliency_item const>(views), o)) {
    CHECK(r.loss_start > 0);
    CHECK(r.loss_end < r.loss_start);
    CHECK(r.ce_end != r.ce_start);
  }
}

TEMPLATE_TEST_CASE(
    "early stop: a mask is final once its answer is restored, the same bits alone, in a batch and in a shorter "
    "training",
    "", float, bf16) {
  cpu_backend fast({.threads = 2});
  model_config c = rich_config();
  c.hidden = 48;
  c.head_dim = 10;
  c.ffn = 40;
  c.vocab = 50;
  auto model = random_model<cpu_backend, TestType>(fast, c, 3);
  std::vector<owned_item> const items = ragged_items(50);
  std::vector<saliency_item> const views = views_of(items);
  for (char const* const objective : {"cross_entropy", "kl_to_unmasked"})
    for_each_kind([&](mask_shape shape, mask_rows rows) {
      INFO(combination(shape, rows) << ", objective " << objective);
      mask_options o = short_training();
      o.shape = shape;
      o.rows = rows;
      o.objective = objectives::by_name(objective);
      // A tolerance between what the items end with, so that some stop and others do not.
      std::vector<double> excess;
      for (saliency_result const& r : train_masks(model, std::span(views), o)) {
        CHECK(r.steps == o.steps);
        excess.push_back(r.ce_end - r.ce_unmasked);
      }
      std::sort(excess.begin(), excess.end());
      o.stop_tolerance = (excess[2] + excess[3]) / 2;
      auto const together = train_masks(model, std::span(views), o);
      int early = 0;
      for (std::size_t i = 0; i < items.size(); ++i) {
        CHECK(same_bits(train_masks(model, std::span(views).subspan(i, 1), o)[0], together[i]));
        if (together[i].steps == o.steps) continue;
        ++early;
        CHECK(together[i].ce_end <= together[i].ce_unmasked + *o.stop_tolerance);
        mask_options shorter = o;
        shorter.stop_tolerance.reset();
        shorter.steps = together[i].steps;
        CHECK(same_bits(train_masks(model, std::span(views).subspan(i, 1), shorter)[0], together[i]));
        if (shorter.steps == 0) continue;
        shorter.steps -= 1;  // one step earlier it was not restored
        saliency_result const before = train_masks(model, std::span(views).subspan(i, 1), shorter)[0];
        CHECK(before.ce_end > before.ce_unmasked + *o.stop_tolerance);
      }
      CHECK(early >= 1);
      CHECK(early < int(items.size()));
    });
}

TEST_CASE_METHOD(policies_test,
                 "early stop: with a tolerance that every start meets no mask moves, and no gradient is computed") {
  mask_options o = short_training();
  o.stop_tolerance = 1e9;
  gradient_quantiles q{1, 2, 3};
  for (saliency_result const& r : train_masks(model, std::span<saliency_item const>(views), o, &q)) {
    CHECK(r.steps == 0);
    CHECK(r.ce_end == r.ce_start);
    CHECK(r.re_enabled == Approx(0).margin(1e-6));
  }
  CHECK(q.median == 2);
}

TEST_CASE_METHOD(policies_test,
                 "mask_batch: an item that is dropped keeps its loss, and the others theirs and their gradient") {
  auto b = batch(options(mask_sharing::all, {}, mask_shape::pair, mask_rows::all_later));
  b.values().assign(random_mask(b.parameter_count()));
  auto const ce = b.cross_entropies_and_gradient();
  auto const g = b.gradient().to_host();
  index_t const rows = b.rows_per_step();
  b.drop(2);
  CHECK(b.rows_per_step() ==
        rows - index_t(items[2].cot.size() + items[2].delimiter.size() + items[2].answer.size() - 1));
  CHECK(b.cross_entropies_and_gradient() == ce);
  auto const left = b.gradient().to_host();
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto const mine = part(left, b.extents()[i]);
    CHECK(mine == (i == 2 ? std::vector<double>(mine.size(), 0.0) : part(g, b.extents()[i])));
  }
}

TEST_CASE_METHOD(policies_test,
                 "lower clamp: with the floor at the start an entry that is pushed down is not suppressed further") {
  mask_options o = options(mask_sharing::all, {}, mask_shape::column, mask_rows::answer_rows);
  o.lower_clamp = o.init;
  auto at_start = batch(o), below = batch(o);
  at_start.values().assign(std::vector<double>(std::size_t(at_start.parameter_count()), o.init));
  below.values().assign(std::vector<double>(std::size_t(below.parameter_count()), -3.0));
  CHECK(relative_difference(below.cross_entropies_and_gradient(), at_start.cross_entropies()) <
        1e-7);  // clamps are floats
  CHECK(below.gradient().to_host() == std::vector<double>(std::size_t(below.parameter_count()), 0.0));
}

TEST_CASE_METHOD(policies_test,
                 "backward_from_logits: with the gradient that cross-entropy has by the logits it is backward of the "
                 "log-probabilities") {
  std::vector<int> const ids = items[2].all();
  auto const gradient = [&](bool from_logits) {
    kv_cache<reference_backend, double> cache(backend, model.config(), index_t(ids.size()));
    forward_pass<reference_backend, double> pass(backend);
    ragged_batch b;
    b.add(cache.add_sequence(index_t(ids.size())), ids);
    model.forward(cache, b, pass, {.mode = gradient_mode::parameters});
    std::vector<double> flat(std::size_t(model.layout().size()));
    std::vector<int> const rows{3, 7}, targets{4, 9};
    if (from_logits) {
      tensor<reference_backend, double, 2> z(backend, {0, 0});
      model.logits(pass, rows, z);
      auto d = z.to_host();
      for (std::size_t r = 0; r < 2; ++r) {
        auto const row = std::span(d).subspan(r * 11, 11);
        double const norm = log_sum_exp(std::span<double const>(row));
        for (double& x : row) x = std::exp(x - norm);
        row[std::size_t(targets[r])] -= 1;
      }
      model.backward_from_logits(cache, pass, as(std::as_const(d), {2, 11}),
                                 {.parameters = as(flat, {model.layout().size()})});
      CHECK_THROWS_AS(model.backward_from_logits(cache, pass, as(std::as_const(d), {1, 22}),
                                                 {.parameters = as(flat, {model.layout().size()})}),
                      shape_error);
    } else {
      model.log_probs(pass, std::vector<scored_token>{{rows[0], targets[0]}, {rows[1], targets[1]}});
      std::vector<double> const d{-1, -1};
      model.backward(cache, pass, {.log_p = d}, {.parameters = as(flat, {model.layout().size()})});
    }
    return flat;
  };
  CHECK(relative_difference(gradient(true), gradient(false)) < 1e-12);
}

TEST_CASE_METHOD(
    policies_test,
    "mask_options: in_steps keeps the distance that AdamW can travel, and options that cannot work are named") {
  mask_options const o = mask_options{}.in_steps(50);
  CHECK(o.steps == 50);
  CHECK(o.learning_rate == Approx(4e-3));
  CHECK(o.optimizer.beta1 == 0.6);
  mask_options bad = short_training();
  bad.lower_clamp = -0.3;
  CHECK_THROWS_WITH(train_masks(model, std::span<saliency_item const>(views), bad),
                    ATMANRL_CONTAINS("lower clamp is -0.3, but above mask init -0.4"));
  bad = short_training();
  bad.stop_tolerance = NAN;
  CHECK_THROWS_WITH(train_masks(model, std::span<saliency_item const>(views), bad),
                    ATMANRL_CONTAINS("stop tolerance is nan"));
  bad = short_training();
  bad.layers = {2};
  CHECK_THROWS_WITH(train_masks(model, std::span<saliency_item const>(views), bad), ATMANRL_CONTAINS("mask layer 2"));
}

TEST_CASE_METHOD(policies_test, "train_masks: sharing, layers and reduction reach the result") {
  mask_options o = short_training();
  o.sharing = mask_sharing::per_layer;
  o.reduction = saliency_reduction::token_mean;
  for (saliency_result const& r : train_masks(model, std::span<saliency_item const>(views), o)) {
    CHECK(r.mask.size() == 2 * r.token_saliency.size());
    double mean = 0;
    for (float const s : r.token_saliency) mean += double(s) / double(r.token_saliency.size());
    CHECK(r.re_enabled == Approx(mean).margin(1e-6));
  }
  o.layers = {1};
  for (saliency_result const& r : train_masks(model, std::span<saliency_item const>(views), o))
    CHECK(r.mask.size() == r.token_saliency.size());
}

}  // namespace mask_policies_test
