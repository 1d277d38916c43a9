// Values and gradients of packed, prompt-cached masks against one plain pass over the whole sequence, in double.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/saliency/mask_training.hpp>

#include "catch.hpp"
#include "saliency/items.hpp"

using namespace atmanrl_test;

namespace mask_batch_test {
namespace {

using model_type = llama<reference_backend, double>;

struct mask_test {
  reference_backend backend;
  model_type model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  std::vector<owned_item> items = ragged_items(11);
  std::vector<saliency_item> views = views_of(items);

  mask_batch<model_type> batch(mask_shape shape, mask_rows rows, double scale = 10) {
    return {model, views, shape, rows, scale};
  }

  /// Random values around 0, so that some lie above the clamp.
  static std::vector<double> random_mask(index_t count) {
    auto h = random_values(count, 60, 0.2);
    for (double& x : h) x -= 0.15;
    return h;
  }
  static std::vector<double> part(std::vector<double> const& all, mask_extent const& e) {
    return {all.begin() + e.offset, all.begin() + e.offset + e.count};
  }
};

}  // namespace

TEST_CASE_METHOD(mask_test, "mask_batch: without suppression the answer has the unmasked model's cross-entropy") {
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    INFO(combination(shape, rows));
    auto b = batch(shape, rows);
    auto const ce = b.cross_entropies();
    for (std::size_t i = 0; i < items.size(); ++i) {
      auto const log_p = teacher_forced(model, items[i].all());
      double expected = 0;
      for (std::size_t t = log_p.size() - items[i].answer.size(); t < log_p.size(); ++t)
        expected -= log_p[t] / double(items[i].answer.size());
      CHECK(ce[i] == Approx(expected).epsilon(1e-12));
    }
    // Entries above the clamp suppress nothing either, and give the same bits.
    b.values().assign(std::vector<double>(std::size_t(b.parameter_count()), 0.7));
    CHECK(b.cross_entropies() == ce);
  });
}

TEST_CASE_METHOD(
    mask_test, "mask_batch: prompts and chains that are computed once give what a full pass gives, and its gradient") {
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    INFO(combination(shape, rows));
    auto b = batch(shape, rows);
    auto const h = random_mask(b.parameter_count());
    b.values().assign(h);
    for (int again = 0; again < 2; ++again) {  // every step begins from the same cached rows
      auto const ce = b.cross_entropies_and_gradient();
      auto const g = b.gradient().to_host();
      for (std::size_t i = 0; i < items.size(); ++i) {
        mask_extent const& e = b.extents()[i];
        full_path<double> const whole(model, items[i], shape, rows, 10, part(h, e));
        CHECK(ce[i] == Approx(whole.ce).epsilon(1e-12));
        CHECK(relative_difference(part(g, e), whole.gradient) < 1e-10);
      }
    }
  });
}

TEST_CASE_METHOD(mask_test, "mask_batch: only the rows that can change are computed at every step") {
  index_t later = 0, answers = 0;
  for (auto const& i : items) {
    later += index_t(i.cot.size() + i.delimiter.size() + i.answer.size()) - 1;
    answers += index_t(i.delimiter.size() + i.answer.size()) - 1;
  }
  CHECK(batch(mask_shape::pair, mask_rows::all_later).rows_per_step() == later);
  CHECK(batch(mask_shape::pair, mask_rows::answer_rows).rows_per_step() == answers);
}

TEST_CASE_METHOD(mask_test, "mask_batch: the number of entries is the method's formula") {
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    auto const b = batch(shape, rows);
    index_t all = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      index_t const t = index_t(items[i].cot.size()), d = index_t(items[i].delimiter.size()),
                    n = index_t(items[i].answer.size());
      index_t const pairs = t * (d + n - 1) + (rows == mask_rows::all_later ? t * (t + 1) / 2 : 0);
      CHECK(b.extents()[i].entries() == pairs);
      CHECK(b.extents()[i].count == (shape == mask_shape::pair ? pairs : t));
      CHECK(b.extents()[i].offset == all);
      all += b.extents()[i].count;
    }
    CHECK(b.parameter_count() == all);
  });
}

TEST_CASE_METHOD(mask_test, "mask gradient: it is exact for both shapes and rows") {
  llama<reference_backend, complex> step_model(backend, model.config());
  set_parameters(step_model, random_parameters(model.config(), 2, 1.5));
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    for (std::size_t const i : {0u, 2u}) {
      INFO(combination(shape, rows) << ", item " << i);
      auto const h = random_mask(full_path<double>::extent_of(items[i], shape, rows).count);
      full_path<double> const ours(model, items[i], shape, rows, 10, h);
      auto const exact = complex_step_gradient(h, [&](std::vector<complex> const& x) {
        return full_path<complex>(step_model, items[i], shape, rows, 10, x).ce;
      });
      CHECK(relative_difference(ours.gradient, exact) < 1e-9);
      for (std::size_t k = 0; k < h.size(); ++k)
        if (h[k] > 0) CHECK(ours.gradient[k] == 0.0);  // above the clamp nothing changes
    }
  });
}

TEST_CASE_METHOD(mask_test, "mask gradient: it passes at the clamp, as PyTorch's clamp lets it") {
  auto b = batch(mask_shape::column, mask_rows::answer_rows);
  b.cross_entropies_and_gradient();  // all values are zero
  double least = INFINITY;
  for (double const g : b.gradient().to_host()) least = std::min(least, std::abs(g));
  CHECK(least > 0);
}

TEST_CASE_METHOD(mask_test, "mask gradient: a column's is the sum of its pairs' where they are equal") {
  for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
    auto columns = batch(mask_shape::column, rows), pairs = batch(mask_shape::pair, rows);
    auto const h = random_mask(columns.parameter_count());
    columns.values().assign(h);
    std::vector<double> spread(std::size_t(pairs.parameter_count()));
    auto const for_each_pair = [&](auto&& f) {  // f(column parameter, pair parameter)
      for (std::size_t i = 0; i < items.size(); ++i) {
        mask_extent const &c = columns.extents()[i], &p = pairs.extents()[i];
        for (int w = p.first_row; w <= p.last_row; ++w)
          for (int v = p.cot_begin; v < p.cot_end && v <= w; ++v)
            f(std::size_t(c.offset + v - c.cot_begin), std::size_t(p.offset + p.row_offset(w) + v - p.cot_begin));
      }
    };
    for_each_pair([&](std::size_t c, std::size_t p) { spread[p] = h[c]; });
    pairs.values().assign(spread);
    auto const a = columns.cross_entropies_and_gradient(), b = pairs.cross_entropies_and_gradient();
    CHECK(relative_difference(a, b) < 1e-12);
    auto const g = pairs.gradient().to_host();
    std::vector<double> sums(h.size());
    for_each_pair([&](std::size_t c, std::size_t p) { sums[c] += g[p]; });
    CHECK(relative_difference(columns.gradient().to_host(), sums) < 1e-10);
  }
}

TEST_CASE_METHOD(mask_test, "mask gradient: rows after the last scored position get exactly zero") {
  for (std::size_t const i : {0u, 2u}) {
    for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
      auto const allowed = full_path<double>::extent_of(items[i], mask_shape::pair, rows);
      auto const longer = full_path<double>::extent_of(items[i], mask_shape::pair, rows, true);
      REQUIRE(longer.count == allowed.count + index_t(items[i].cot.size()));
      auto const h = random_mask(longer.count);
      full_path<double> const whole(model, items[i], mask_shape::pair, rows, 10, h, true);
      full_path<double> const usual(model, items[i], mask_shape::pair, rows, 10,
                                    {h.begin(), h.begin() + allowed.count});
      CHECK(whole.ce == usual.ce);
      bool zero = true;
      for (index_t k = allowed.count; k < longer.count; ++k) zero = zero && whole.gradient[std::size_t(k)] == 0.0;
      CHECK(zero);
      CHECK(relative_difference(std::vector<double>(whole.gradient.begin(), whole.gradient.begin() + allowed.count),
                                usual.gradient) < 1e-12);
    }
  }
}

TEST_CASE_METHOD(mask_test, "mask_batch: one rollout's loss does not reach another's mask") {
  auto b = batch(mask_shape::pair, mask_rows::all_later);
  auto h = random_mask(b.parameter_count());
  b.values().assign(h);
  auto const before = b.cross_entropies_and_gradient();
  auto const g = b.gradient().to_host();
  mask_extent const& changed = b.extents()[1];
  for (index_t k = 0; k < changed.count; ++k) h[std::size_t(changed.offset + k)] -= 0.3;
  b.values().assign(h);
  auto const after = b.cross_entropies_and_gradient();
  auto const g_after = b.gradient().to_host();
  for (std::size_t i = 0; i < items.size(); ++i) {
    CHECK((after[i] == before[i]) == (i != 1));
    CHECK((part(g_after, b.extents()[i]) == part(g, b.extents()[i])) == (i != 1));
  }
}

TEST_CASE_METHOD(mask_test, "mask_batch: empty parts are refused by their lengths") {
  for (auto const member : {&owned_item::prompt, &owned_item::cot, &owned_item::delimiter, &owned_item::answer}) {
    owned_item bad = items[0];
    (bad.*member).clear();
    std::vector<saliency_item> const one{bad};
    CHECK_THROWS_WITH((mask_batch<model_type>(model, one, mask_shape::pair, mask_rows::all_later, 10)),
                      ATMANRL_CONTAINS(fmt::format("{}, {}, {}, {}", bad.prompt.size(), bad.cot.size(),
                                                   bad.delimiter.size(), bad.answer.size())));
  }
}

TEST_CASE_METHOD(mask_test, "mask_batch: a sequence beyond the model's positions is an error, not a crash") {
  owned_item const big = make_item(1, 30, 30, 2, 4, 9, 11);  // 65 rows and the last token, which needs none
  owned_item const fits = make_item(1, 30, 30, 2, 3, 9, 11);
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    std::vector<saliency_item> const one{big}, other{fits};
    CHECK_THROWS_AS((mask_batch<model_type>(model, one, shape, rows, 10).cross_entropies()), usage_error);
    CHECK_NOTHROW((mask_batch<model_type>(model, other, shape, rows, 10).cross_entropies()));
  });
}

}  // namespace mask_batch_test
