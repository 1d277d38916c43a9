// Validation on a model that copies its answer from one known token, and on random models against plain loops.
#include <atmanrl/saliency/estimators/learned_mask.hpp>
#include <atmanrl/saliency/validation/perturbation.hpp>
#include <atmanrl/saliency/validation/truncation.hpp>
#include <atmanrl/saliency/validation/validate.hpp>

#include "catch.hpp"
#include "saliency/copying_model.hpp"
#include "toy_task.hpp"

using namespace atmanrl_test;

namespace validation_test {
namespace {

/// One causal token (3) among filler, at different places.
struct validation_test : copying_model {
  std::vector<owned_item> owned{item({6, 7, 3, 6, 7, 6, 6, 7, 6, 6}, 3), item({6, 7, 6, 6, 7, 6, 6, 2, 6, 6, 7, 7}, 2)};
  std::vector<saliency_item> items = views_of(owned);
  std::vector<token_labels> labels;
  saliency_method perfect{"perfect", {}}, wrong{"wrong", {}};

  validation_test() {
    for (auto const& i : owned) {
      std::vector<bool> causal;
      std::vector<float> s;
      for (int const t : i.cot) causal.push_back(t >= 1 && t <= 4);
      labels.push_back({causal, causal, {}});
      for (bool const c : causal) s.push_back(c ? 1.0f : 0.0f);
      perfect.saliency.push_back(s);
      for (float& x : s) x = -x;
      wrong.saliency.push_back(s);
    }
  }
  double p(std::size_t i, std::vector<std::uint8_t> chosen) {
    cot_variant const v{.item = i, .keep = index_t(chosen.size()), .inserted = {}, .chosen = chosen};
    return score_variants(model, std::span<saliency_item const>(items), std::span(&v, 1))[0].probability();
  }
};

/// A model over bytes for sentence ends: every id is a character.
struct characters {
  std::string text;
  index_t vocab_size() const { return 256; }
  std::vector<int> encode(std::string_view s) const { return {s.begin(), s.end()}; }
  std::vector<int> encode_with_specials(std::string_view s) const { return encode(s); }
  std::string decode(std::span<int const> ids) const { return {ids.begin(), ids.end()}; }
  std::string token_bytes(int id) const { return std::string(1, char(id)); }
  bool is_special(int) const { return false; }
  int bos() const { return -1; }
  std::optional<int> token_id(std::string_view) const { return {}; }
};

}  // namespace

TEST_CASE_METHOD(validation_test, "deletion_curves: each point is p(answer) without the first tokens of the order") {
  std::vector<int> order{4, 2, 0, 1, 3, 5, 6, 7, 8, 9};
  std::vector<token_order> const orders{{0, order}};
  auto const c = deletion_curves(model, std::span<saliency_item const>(items), std::span<token_order const>(orders))[0];
  REQUIRE(c.share.size() == 11);
  std::vector<std::uint8_t> gone(10);
  for (std::size_t n = 0; n <= 10; ++n) {
    CHECK(c.share[n] == Approx(double(n) / 10));
    CHECK(c.probability[n] == Approx(p(0, gone)));
    if (n < 10) gone[std::size_t(order[n])] = 1;
  }
  CHECK(c.probability[1] > 0.8);
  CHECK(c.probability[2] < 0.2);
}

TEST_CASE_METHOD(validation_test,
                 "insertion_curves: with a point for each token they mirror the deletion of the reversed order") {
  std::vector<int> order{4, 2, 0, 1, 3, 5, 6, 7, 8, 9}, reversed(order.rbegin(), order.rend());
  std::vector<token_order> const forward{{0, order}}, backward{{0, reversed}};
  auto const in =
      insertion_curves(model, std::span<saliency_item const>(items), std::span<token_order const>(forward))[0];
  auto const out =
      deletion_curves(model, std::span<saliency_item const>(items), std::span<token_order const>(backward))[0];
  for (std::size_t i = 0; i < in.share.size(); ++i)
    CHECK(in.probability[i] == Approx(out.probability[in.share.size() - 1 - i]));
  CHECK(in.area() == Approx(out.area()));
}

TEST_CASE_METHOD(validation_test,
                 "deletion_curves: fewer points lie on the whole curve, and orders that are none are refused") {
  std::vector<int> order{4, 2, 0, 1, 3, 5, 6, 7, 8, 9};
  std::vector<token_order> orders{{0, order}};
  auto const whole =
      deletion_curves(model, std::span<saliency_item const>(items), std::span<token_order const>(orders))[0];
  auto const few = deletion_curves(model, std::span<saliency_item const>(items), std::span<token_order const>(orders),
                                   {.points = 4})[0];
  REQUIRE(few.share.size() == 5);
  for (std::size_t i = 0; i < few.share.size(); ++i) {
    auto const n = std::size_t(std::lround(few.share[i] * 10));
    CHECK(few.share[i] == Approx(double(n) / 10));
    CHECK(few.probability[i] == whole.probability[n]);
  }
  CHECK(few.share.back() == 1);
  orders[0].order[1] = 4;
  CHECK_THROWS_WITH(deletion_curves(model, std::span<saliency_item const>(items), std::span<token_order const>(orders)),
                    ATMANRL_CONTAINS("not a permutation"));
  CHECK_THROWS_WITH(
      rationale_scores(model, std::span<saliency_item const>(items), std::span<token_order const>(orders)),
      ATMANRL_CONTAINS("not a permutation"));
}

TEST_CASE_METHOD(validation_test, "rationale_scores: the causal token is comprehensive and sufficient") {
  auto const good = rationale_scores(model, std::span<saliency_item const>(items),
                                     std::span<token_order const>(detail::orders_of(perfect.saliency)));
  auto const bad = rationale_scores(model, std::span<saliency_item const>(items),
                                    std::span<token_order const>(detail::orders_of(wrong.saliency)));
  for (std::size_t i = 0; i < items.size(); ++i) {
    CHECK(good[i].comprehensiveness[0] > 0.6);  // 1 % of 10 tokens is one token
    CHECK(good[i].sufficiency[0] < 0.1);
    CHECK(bad[i].comprehensiveness[4] < 0.1);  // half of the tokens, none of them causal
    CHECK(bad[i].sufficiency[4] > 0.6);
  }
  std::vector<std::uint8_t> top(10), rest(10, 1);
  top[2] = 1;
  rest[2] = 0;
  double const all = p(0, std::vector<std::uint8_t>(10));
  CHECK(good[0].comprehensiveness[2] == Approx(all - p(0, top)));
  CHECK(good[0].sufficiency[2] == Approx(all - p(0, rest)));
}

TEST_CASE_METHOD(validation_test, "validate_saliency: the right ranking beats random, the wrong one loses to it") {
  std::vector<saliency_method> const methods{
      perfect, wrong,
      run_method("leave-one-out", estimators::leave_one_out{}, model, std::span<saliency_item const>(items))};
  auto const r =
      validate_saliency(model, std::span<saliency_item const>(items), std::span<saliency_method const>(methods),
                        std::span<token_labels const>(labels), {.curve_points = 0});
  REQUIRE(r.methods.size() == 3);
  CHECK(r.items == 2);
  CHECK(*r.methods[0].auroc_narrow == 1);
  CHECK(*r.methods[1].auroc_narrow == 0);
  CHECK(*r.methods[0].top_1 == 1);
  CHECK(*r.methods[1].top_1 == 0);
  CHECK(*r.methods[2].auroc_narrow == 1);
  CHECK(*r.methods[2].spearman_leave_one_out == Approx(1));
  CHECK(r.methods[0].deletion_auc < r.deletion_auc_random());
  CHECK(r.methods[1].deletion_auc > r.deletion_auc_random());
  CHECK(*r.methods[0].insertion_auc > *r.methods[1].insertion_auc);
  CHECK((*r.methods[0].comprehensiveness)[0] > (*r.methods[1].comprehensiveness)[0]);
  CHECK_FALSE(r.methods[0].auroc_digits);
  CHECK(r.methods[2].rows.forward > 0);
  CHECK(r.controls[0].name == "random");
  CHECK(r.controls[1].name == "recency");
  CHECK(r.controls.size() == 2);  // which tokens are digits is not known
  CHECK(r.p_whole > 0.8);
  CHECK(r.p_without < 0.3);
  CHECK(r.methods[0].deletion.probability.front() == Approx(r.p_whole));
  CHECK(r.methods[0].deletion.probability.back() == Approx(r.p_without));
  CHECK(markdown(r).find("| perfect | 1.000 |") != std::string::npos);
}

TEST_CASE_METHOD(validation_test,
                 "validate_saliency: digits alone are compared where they are known, and misfits are refused") {
  for (auto& l : labels) {
    l.digit = l.narrow;
    l.digit[0] = true;
  }
  std::vector<saliency_method> methods{perfect};
  validation_options const quick{
      .curve_points = 2, .random_orders = 1, .insertion = false, .rationale = false, .references = false};
  auto const validate = [&] {
    return validate_saliency(model, std::span<saliency_item const>(items), std::span<saliency_method const>(methods),
                             std::span<token_labels const>(labels), quick);
  };
  auto const r = validate();
  CHECK(*r.methods[0].auroc_digits == 1);
  CHECK_FALSE(r.methods[0].insertion_auc);
  CHECK_FALSE(r.methods[0].comprehensiveness);
  CHECK_FALSE(r.methods[0].spearman_leave_one_out);
  REQUIRE(r.controls.size() == 4);
  CHECK(*r.controls[2].auroc_digits == 0.5);
  CHECK(*r.controls[3].auroc_digits == 1);
  methods[0].saliency[1].pop_back();
  CHECK_THROWS_WITH(validate(), ATMANRL_CONTAINS("11 values for the 12 tokens of item 1"));
}

TEST_CASE("sentence_ends: after a full stop that is not inside a number, and at the end") {
  characters const z;
  CHECK(sentence_ends(z, z.encode("A b. 1.5 c! d")) == std::vector<index_t>{4, 11, 13});
  CHECK(sentence_ends(z, z.encode("x.")) == std::vector<index_t>{2});
}

TEST_CASE_METHOD(validation_test, "truncate_chains: the answer comes back with the sentence that holds it") {
  std::vector<std::vector<index_t>> const ends{{2, 4, 10}, {4, 12}};
  auto const c =
      truncate_chains(model, std::span<saliency_item const>(items), std::span<std::vector<index_t> const>(ends));
  CHECK(c[0].share == std::vector<double>{0, 0.2, 0.4, 1});
  CHECK(c[0].same[2] == 1);
  CHECK(c[0].same[3] == 1);
  CHECK(c[0].same[1] == 0);
  CHECK(c[0].whole == Approx(std::pow(p(0, std::vector<std::uint8_t>(10)), items[0].answer.size())));
  CHECK(c[0].early_answering == Approx(0.3 - 0.1 * c[0].same[0]));
  CHECK(c[1].same.back() == 1);
}

TEST_CASE_METHOD(validation_test,
                 "score_changed_chains: a corrupted number or filler takes the answer away, other changes do not") {
  std::vector<int> const digits{1, 2, 3, 4};
  std::vector<std::vector<int>> changed;
  for (std::size_t i = 0; i < items.size(); ++i) {
    changed.push_back(corrupt_one_digit(items[i].cot, digits, labels[i].narrow, 1, i));
    int differences = 0;
    for (std::size_t t = 0; t < changed[i].size(); ++t)
      if (changed[i][t] != items[i].cot[t]) {
        ++differences;
        CHECK(labels[i].narrow[t]);
        CHECK((changed[i][t] >= 1 && changed[i][t] <= 4));
      }
    CHECK(differences == 1);
  }
  auto const corrupted =
      score_changed_chains(model, std::span<saliency_item const>(items), std::span<std::vector<int> const>(changed));
  CHECK(*corrupted.same_share() == 0);
  CHECK(*corrupted.probability_before[0] > 0.8);
  CHECK(*corrupted.probability_after[0] < 0.1);
  changed[0] = filler_chain(10, std::array{6, 7});
  changed[1] = std::vector<int>(items[1].cot.begin(), items[1].cot.end());
  changed[1][0] = 7;
  auto const other =
      score_changed_chains(model, std::span<saliency_item const>(items), std::span<std::vector<int> const>(changed));
  CHECK(*other.same[0] == 0);
  CHECK(*other.same[1] == 1);
  changed[0].clear();
  CHECK_FALSE(
      score_changed_chains(model, std::span<saliency_item const>(items), std::span<std::vector<int> const>(changed))
          .same[0]);
  CHECK(corrupt_one_digit(items[0].cot, digits, std::vector<bool>(10), 1, 0).empty());
}

TEST_CASE_METHOD(validation_test, "agreement: 100 and 200 steps of mask training rank alike, random weights do not") {
  mask_options o = mask_options::recommended();
  o.scale = 25;
  o = o.in_steps(100);
  auto const shorter = run_method("", estimators::learned_mask(o), model, std::span<saliency_item const>(items));
  auto const longer =
      run_method("", estimators::learned_mask(o.in_steps(200)), model, std::span<saliency_item const>(items));
  auto const steps = agreement(shorter.saliency, longer.saliency);
  CHECK(*steps.spearman > 0.9);
  CHECK(steps.top_k_jaccard == 1);
  CHECK(steps.items == 2);
  auto destroyed = with_random_weights(model, 3, 1.0);
  auto const without = run_method("", estimators::leave_one_out{}, destroyed, std::span<saliency_item const>(items));
  auto const trained = run_method("", estimators::leave_one_out{}, model, std::span<saliency_item const>(items));
  CHECK(*agreement(trained.saliency, without.saliency).spearman < 0.5);
  CHECK(read_parameters(destroyed) != read_parameters(model));
  auto same = with_random_weights(model, 3, 1.0);
  CHECK(read_parameters(same) == read_parameters(destroyed));
}

}  // namespace validation_test
