// Masks and estimators over a model that is no decoder.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/saliency/estimators/any.hpp>
#include <atmanrl/saliency/validation/stability.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "tiny_model.hpp"

using namespace atmanrl_test;

namespace second_model_test {
namespace {

constexpr index_t vocab = 11;

struct setting {
  reference_backend backend;
  tiny_model<reference_backend, double> model = random_tiny_model<reference_backend, double>(backend, vocab, 3);
  std::vector<int> prompt{3, 1}, cot{4, 1, 5, 9}, delimiter{2, 6}, answer{5, 3};
  std::vector<int> other_cot{8, 9, 7}, other_answer{1};
  std::vector<saliency_item> items{{prompt, cot, delimiter, answer}, {prompt, other_cot, delimiter, other_answer}};
};

mask_options additive() {
  mask_options o;
  o.shape = mask_shape::pair;
  o.rows = mask_rows::all_later;
  o.scale = 15;
  o.steps = 25;
  o.learning_rate = 0.02;
  return o;
}

}  // namespace

TEST_CASE("second model: the gradient of a mask is that of its cross-entropy") {
  setting s;
  mask_batch batch(s.model, std::span<saliency_item const>(s.items), additive());
  std::vector<double> at = random_values(batch.parameter_count(), 7, 0.05);
  for (double& x : at) x -= 0.2;
  batch.values().assign(at);
  batch.cross_entropies_and_gradient();
  std::vector<double> const gradient = batch.gradient().to_host();
  auto const sum_at = [&](std::size_t i, double value) {
    std::vector<double> moved = at;
    moved[i] = value;
    batch.values().assign(moved);
    auto const& ce = batch.cross_entropies();
    return ce[0] + ce[1];
  };
  double const h = 1e-5;
  std::vector<double> slopes;
  for (std::size_t i = 0; i < at.size(); ++i) slopes.push_back((sum_at(i, at[i] + h) - sum_at(i, at[i] - h)) / (2 * h));
  CHECK(relative_difference(gradient, slopes) < 1e-6);
}

TEST_CASE("second model: trained masks bring the answer back") {
  setting s;
  mask_options o = additive();
  o.objective = objectives::excess_cross_entropy{};
  for (saliency_result const& r : train_masks(s.model, std::span<saliency_item const>(s.items), o)) {
    CHECK(r.steps == 25);
    CHECK(r.loss_start > 1e-3);
    CHECK(r.loss_end < 0.5 * r.loss_start);
    CHECK(r.token_saliency.size() >= 3);
  }
}

TEST_CASE("second model: a knockout is the effect of the token in a pass of its own") {
  setting s;
  estimators::leave_one_out estimator;
  auto const e = estimate_saliency(estimator, s.model, std::span<saliency_item const>(s.items));
  std::vector<int> ids = s.prompt;
  for (auto const* part : {&s.cot, &s.delimiter, &s.answer}) ids.insert(ids.end(), part->begin(), part->end());
  std::vector<scored_token> const scored{{7, 5}, {8, 3}};
  for (int token = 0; token < 4; ++token) {
    std::vector<std::uint8_t> chosen(4, 0);
    chosen[std::size_t(token)] = 1;
    std::vector<key_selection> const edit{{.key_begin = 2, .key_end = 6, .first_row = 6, .chosen = chosen}};
    auto const space = s.model.borrow_pass(16);
    ragged_batch batch;
    batch.add(space->cache.add_sequence(16), ids);
    s.model.forward(space->cache, batch, space->pass, {},
                    edited{attention::knockout<reference_backend>(s.backend, edit)});
    s.model.log_probs(space->pass, scored);
    auto const log_p = space->pass.log_p();
    CHECK(double(e.items[0].token_saliency[std::size_t(token)]) ==
          Approx(-(log_p[0] + log_p[1]) / 2 - e.items[0].ce_unmasked).margin(1e-6));
  }
}

TEST_CASE("second model: estimators and objectives that ask for more than it has are refused by name") {
  setting s;
  auto const refusal = [&](std::string_view name) {
    auto chosen = estimators::by_name(name);
    estimate_saliency(chosen, s.model, std::span<saliency_item const>(s.items));
  };
  CHECK_THROWS_WITH(refusal("attention_rollout"), ATMANRL_CONTAINS("estimator attention_rollout asks for a member"));
  CHECK_THROWS_WITH(refusal("gradient_x_input"), ATMANRL_CONTAINS("estimator gradient_x_input asks for a member"));
  CHECK_NOTHROW(refusal("gradient"));
  mask_options o = additive();
  o.objective = objectives::kl_to_unmasked{};
  CHECK_THROWS_WITH(train_masks(s.model, std::span<saliency_item const>(s.items), o),
                    ATMANRL_CONTAINS("kl_to_unmasked reads full logits, but the model has no backward_from_logits"));
}

TEST_CASE("second model: one of the same shape with random weights is made from its layout") {
  setting s;
  auto const random = with_random_weights(s.model, 5, 0.1), again = with_random_weights(s.model, 5, 0.1);
  CHECK(read_trainable(random) == read_trainable(again));
  CHECK(read_trainable(random) != read_trainable(s.model));
  double sum = 0;
  for (double const x : read_trainable(random)) sum += x * x;
  CHECK(std::sqrt(sum / double(random.trainable_layout().size())) == Approx(0.1).epsilon(0.1));
}

}  // namespace second_model_test
