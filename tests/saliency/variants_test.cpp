// Variants of a chain over its cached prefix against one plain pass over the whole changed sequence, in double.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/saliency/variants.hpp>

#include "catch.hpp"
#include "saliency/items.hpp"

using namespace atmanrl_test;

namespace variants_test {
namespace {

using model_type = llama<reference_backend, double>;

struct variants_test {
  reference_backend backend;
  model_type model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  std::vector<owned_item> items = ragged_items(11);
  std::vector<saliency_item> views = views_of(items);

  /// The variant as one sequence, every row computed under the edit.
  variant_score plain(cot_variant const& v, mask_rows rows) {
    saliency_item const item = views[v.item];
    std::vector<int> ids(item.prompt.begin(), item.prompt.end());
    ids.insert(ids.end(), item.cot.begin(), item.cot.begin() + v.keep);
    ids.insert(ids.end(), v.inserted.begin(), v.inserted.end());
    int const begin = int(item.prompt.size()), end = int(ids.size());
    ids.insert(ids.end(), item.delimiter.begin(), item.delimiter.end());
    ids.insert(ids.end(), item.answer.begin(), item.answer.end());
    key_selection s{.key_begin = begin,
                    .key_end = end,
                    .first_row = rows == mask_rows::answer_rows ? end : begin,
                    .chosen = v.chosen};
    if (s.chosen.empty()) s.chosen.assign(std::size_t(end - begin), 0);
    attention::knockout<reference_backend> const policy(backend, std::span<key_selection const>(&s, 1));
    kv_cache<reference_backend, double> cache(backend, model.config(), index_t(ids.size()));
    forward_pass<reference_backend, double> pass(backend);
    ragged_batch batch;
    batch.add(cache.add_sequence(index_t(ids.size())), ids, 0);
    model.forward(cache, batch, pass, {}, edited{policy});
    std::vector<scored_token> scored;
    variant_score out{.cross_entropy = 0, .greedy = true};
    tensor<reference_backend, double, 2> logits;
    for (std::size_t t = ids.size() - item.answer.size(); t < ids.size(); ++t) {
      scored.push_back({int(t) - 1, ids[t]});
      model.logits(pass, std::array{int(t) - 1}, logits);
      auto const row = logits.to_host();
      out.greedy = out.greedy && std::max_element(row.begin(), row.end()) - row.begin() == ids[t];
    }
    model.log_probs(pass, scored);
    for (double const x : pass.log_p()) out.cross_entropy -= x / double(scored.size());
    return out;
  }

  /// Knockouts of every pattern that fits, cut chains and changed ends.
  std::vector<cot_variant> all_kinds() {
    std::vector<cot_variant> out;
    for (std::size_t i = 0; i < items.size(); ++i) {
      index_t const tokens = index_t(items[i].cot.size());
      out.push_back({.item = i, .keep = tokens, .inserted = {}, .chosen = {}});
      for (index_t t = 0; t < tokens; ++t) {
        cot_variant v{
            .item = i, .keep = tokens, .inserted = {}, .chosen = std::vector<std::uint8_t>(std::size_t(tokens))};
        v.chosen[std::size_t(t)] = 1;
        v.chosen[std::size_t(tokens - 1)] = 1;
        out.push_back(v);
        out.push_back({.item = i, .keep = t, .inserted = {}, .chosen = {}});
        out.push_back({.item = i, .keep = t, .inserted = {4, 7}, .chosen = {}});
        v = {.item = i, .keep = t, .inserted = {3}, .chosen = std::vector<std::uint8_t>(std::size_t(t + 1))};
        v.chosen.back() = 1;
        out.push_back(v);
      }
      out.push_back(
          {.item = i, .keep = tokens, .inserted = {}, .chosen = std::vector<std::uint8_t>(std::size_t(tokens), 1)});
    }
    return out;
  }
};

}  // namespace

TEST_CASE_METHOD(
    variants_test,
    "score_variants: a variant over the cached chain scores as a plain pass over the whole sequence does") {
  // Random weights seldom prefer a given answer, so one item has the answer that they prefer.
  for (int token = 0; token < 11; ++token) {
    items[1].answer = {token};
    views = views_of(items);
    if (plain({.item = 1, .keep = index_t(items[1].cot.size()), .inserted = {}, .chosen = {}}, mask_rows::answer_rows)
            .greedy)
      break;
  }
  auto const variants = all_kinds();
  for (mask_rows const rows : {mask_rows::answer_rows, mask_rows::all_later}) {
    auto const scores = score_variants(model, std::span<saliency_item const>(views),
                                       std::span<cot_variant const>(variants), {.rows = rows, .greedy = true});
    int greedy = 0;
    for (std::size_t i = 0; i < variants.size(); ++i) {
      auto const expected = plain(variants[i], rows);
      CHECK(scores[i].cross_entropy == Approx(expected.cross_entropy).epsilon(1e-12));
      CHECK(scores[i].greedy == expected.greedy);
      greedy += expected.greedy;
    }
    CHECK((greedy > 0 && greedy < int(scores.size())));
  }
}

TEST_CASE_METHOD(variants_test, "score_variants: rows named by the option see the edit, and the two options differ") {
  auto const variants = all_kinds();
  auto const a = score_variants(model, std::span<saliency_item const>(views), std::span<cot_variant const>(variants),
                                {.rows = mask_rows::answer_rows});
  auto const b = score_variants(model, std::span<saliency_item const>(views), std::span<cot_variant const>(variants),
                                {.rows = mask_rows::all_later});
  int different = 0;
  for (std::size_t i = 0; i < a.size(); ++i) different += std::abs(a[i].cross_entropy - b[i].cross_entropy) > 1e-9;
  CHECK(different > 5);
}

TEST_CASE_METHOD(variants_test,
                 "score_variants: how variants are packed changes nothing but the number of prefixes computed") {
  auto const variants = all_kinds();
  row_count together, apart;
  auto const a = score_variants(model, std::span<saliency_item const>(views), std::span<cot_variant const>(variants),
                                {}, knock_out{}, &together);
  auto const b = score_variants(model, std::span<saliency_item const>(views), std::span<cot_variant const>(variants),
                                {.row_budget = 9}, knock_out{}, &apart);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i].cross_entropy == b[i].cross_entropy);
  index_t expected = 0;
  for (auto const& v : variants)
    expected += index_t(v.inserted.size() + items[v.item].delimiter.size() + items[v.item].answer.size()) - 1;
  expected += 3 + 2 + 1;  // three different prompts
  for (auto const& i : items) expected += index_t(i.cot.size());
  CHECK(together.forward == expected);
  CHECK(apart.forward > together.forward);
}

TEST_CASE_METHOD(variants_test, "score_variants: items that differ in their answers alone share one chain") {
  owned_item other = items[0];
  other.answer = {5};
  std::vector<saliency_item> const two{items[0], other};
  std::vector<cot_variant> variants;
  for (std::size_t i = 0; i < 2; ++i)
    variants.push_back({.item = i, .keep = index_t(items[0].cot.size()), .inserted = {}, .chosen = {}});
  row_count rows;
  auto const scores = score_variants(model, std::span<saliency_item const>(two), std::span<cot_variant const>(variants),
                                     {}, knock_out{}, &rows);
  CHECK(rows.forward == index_t(items[0].prompt.size() + items[0].cot.size() + 2 * items[0].delimiter.size() +
                                items[0].answer.size() + 1 - 2));
  views[1] = other;
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(scores[i].cross_entropy ==
          Approx(plain({.item = i, .keep = 4, .inserted = {}, .chosen = {}}, mask_rows::answer_rows).cross_entropy)
              .epsilon(1e-12));
}

TEST_CASE_METHOD(variants_test, "score_variants: what does not fit is refused") {
  std::vector<cot_variant> bad{{.item = 9, .keep = 0, .inserted = {}, .chosen = {}}};
  auto const score = [&] {
    score_variants(model, std::span<saliency_item const>(views), std::span<cot_variant const>(bad));
  };
  CHECK_THROWS_WITH(score(), ATMANRL_CONTAINS("item 9 of 5"));
  bad[0] = {.item = 0, .keep = 5, .inserted = {}, .chosen = {}};
  CHECK_THROWS_WITH(score(), ATMANRL_CONTAINS("keeps 5 of 4 tokens"));
  bad[0] = {.item = 0, .keep = 4, .inserted = {1}, .chosen = {1, 0, 0, 0}};
  CHECK_THROWS_WITH(score(), ATMANRL_CONTAINS("marks 4"));
  views[0].delimiter = {};
  bad[0] = {.item = 0, .keep = 4, .inserted = {}, .chosen = {}};
  CHECK_THROWS_WITH(score(), ATMANRL_CONTAINS("3, 4, 0, 2"));
}

}  // namespace variants_test
