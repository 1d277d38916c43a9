// Masks and saliency with strangers in every slot: model, backend, mask family, objective, optimizer, estimator.
#include <atmanrl/saliency/mask_training.hpp>

#include "catch.hpp"
#include "saliency/items.hpp"
#include "strangers.hpp"

using namespace atmanrl_test;

namespace strangers_test {
namespace {

constexpr index_t vocab = 13;

template <class B>
strangers::one_attention<B, double> model_on(B& backend) {
  return random_tiny_model<B, double>(backend, vocab, 3);
}

template <class Objective>
mask_options_of<strangers::couples, Objective> couples_of(int steps) {
  mask_options_of<strangers::couples, Objective> o;
  o.depth = 3;
  o.steps = steps;
  o.learning_rate = 0.1;
  return o;
}

}  // namespace

TEST_CASE("strangers: masks of a model, a backend, a family, an objective and an optimizer from outside are trained") {
  strangers::dirty_backend dirty;
  reference_backend plain;
  auto model = model_on(dirty);
  auto oracle = model_on(plain);
  auto const owned = ragged_items(vocab);
  std::vector<saliency_item> const items = views_of(owned);
  auto const options = couples_of<strangers::squared_gap>(20);
  auto const found = train_masks(model, std::span<saliency_item const>(items), options, strangers::sign_momentum{}),
             expected = train_masks(oracle, std::span<saliency_item const>(items), options, strangers::sign_momentum{});
  REQUIRE(found.size() == items.size());
  double start = 0, end = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    CHECK(found[i].token_saliency == expected[i].token_saliency);
    CHECK(found[i].loss_end == expected[i].loss_end);
    CHECK(found[i].token_saliency.size() == items[i].cot.size());
    start += found[i].loss_start;
    end += found[i].loss_end;
  }
  CHECK(end < 0.5 * start);
}

TEST_CASE("strangers: an estimator's effect of a token is that of one pass with the token's edit") {
  strangers::dirty_backend dirty;
  auto model = model_on(dirty);
  auto const owned = ragged_items(vocab);
  std::vector<saliency_item> const items = views_of(owned);
  strangers::half_weight estimator;
  auto const e = estimate_saliency(estimator, model, std::span<saliency_item const>(items));
  auto const& item = owned[0];
  auto const ids = item.all();
  int const begin = int(item.prompt.size()), end = begin + int(item.cot.size()), total = int(ids.size());
  std::vector<scored_token> scored;
  for (int t = total - int(item.answer.size()); t < total; ++t) scored.push_back({t - 1, ids[std::size_t(t)]});
  for (int token = 0; token < end - begin; ++token) {
    std::vector<std::uint8_t> chosen(item.cot.size(), 0);
    chosen[std::size_t(token)] = 1;
    std::vector<key_selection> const edit{{.key_begin = begin,
                                           .key_end = end,
                                           .first_row = variant_options{}.rows == mask_rows::answer_rows ? end : begin,
                                           .chosen = chosen}};
    auto const space = model.borrow_pass(total);
    ragged_batch batch;
    batch.add(space->cache.add_sequence(total), ids);
    attention::suppress_log<strangers::dirty_backend> const suppressed(dirty, edit, 0.5f);
    model.forward(space->cache, batch, space->pass, {}, edited{suppressed});
    model.log_probs(space->pass, scored);
    double ce = 0;
    for (double const x : space->pass.log_p()) ce -= x / double(scored.size());
    CHECK(e.items[0].token_saliency[std::size_t(token)] == Approx(ce - e.items[0].ce_unmasked).margin(1e-6));
  }
  CHECK(e.items[0].token_saliency[0] != e.items[0].token_saliency[1]);
}

TEST_CASE("strangers: a decoder on a stranger's backend has the masks of plain loops") {
  strangers::dirty_backend dirty;
  reference_backend plain;
  auto model = random_model<strangers::dirty_backend, double>(dirty, rich_config(), 3);
  auto oracle = random_model<reference_backend, double>(plain, rich_config(), 3);
  auto const owned = ragged_items(rich_config().vocab);
  std::vector<saliency_item> const items = views_of(owned);
  // An objective of full logits asks the model for their gradient.
  auto const options = couples_of<strangers::below_mean>(5);
  auto const found = train_masks(model, std::span<saliency_item const>(items), options),
             expected = train_masks(oracle, std::span<saliency_item const>(items), options);
  for (std::size_t i = 0; i < items.size(); ++i) {
    CHECK(found[i].token_saliency == expected[i].token_saliency);
    CHECK(found[i].loss_end < found[i].loss_start);
  }
}

}  // namespace strangers_test
