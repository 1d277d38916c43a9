// The estimators that read one unedited pass: attention rollout against matrices written out, gradient x input against
// difference quotients, and both where the causal token is known.
#include <atmanrl/saliency/estimators/any.hpp>
#include <atmanrl/saliency/estimators/attention_rollout.hpp>
#include <atmanrl/saliency/estimators/gradient_x_input.hpp>

#include "catch.hpp"
#include "saliency/copying_model.hpp"

using namespace atmanrl_test;

namespace kept_activations_test {
namespace {

using matrix = std::vector<std::vector<double>>;

matrix product(matrix const& a, matrix const& b) {
  matrix c(a.size(), std::vector<double>(a.size()));
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t k = 0; k < a.size(); ++k)
      for (std::size_t j = 0; j < a.size(); ++j) c[i][j] += a[i][k] * b[k][j];
  return c;
}

/// 1/2 P + 1/2 I
matrix with_residual(matrix p) {
  for (std::size_t w = 0; w < p.size(); ++w)
    for (std::size_t v = 0; v < p.size(); ++v) p[w][v] = 0.5 * p[w][v] + (w == v ? 0.5 : 0);
  return p;
}

/// Mean over the rows after which the answer is scored, of the columns of the chain.
std::vector<double> chain_shares(matrix const& flow, owned_item const& item) {
  std::size_t const answer = item.answer.size(), rows = flow.size();
  std::vector<double> s;
  for (std::size_t v = item.prompt.size(); v < item.prompt.size() + item.cot.size(); ++v) {
    s.push_back(0);
    for (std::size_t w = rows - answer; w < rows; ++w) s.back() += flow[w][v] / double(answer);
  }
  return s;
}

template <class Estimator>
saliency_result estimate(Estimator estimator, llama<reference_backend, double>& model, owned_item const& item) {
  std::vector<saliency_item> const one{item};
  return estimate_saliency(estimator, model, std::span<saliency_item const>(one)).items[0];
}

double cross_entropy(llama<reference_backend, double>& model, owned_item const& item) {
  auto const log_p = teacher_forced(model, item.all());
  double sum = 0;
  for (std::size_t t = log_p.size() - item.answer.size(); t < log_p.size(); ++t) sum -= log_p[t];
  return sum / double(item.answer.size());
}

/// All tokens differ, so that an embedding row is one position's.
owned_item distinct_item() { return {{1, 2}, {3, 4, 5, 6}, {7, 0}, {8, 9, 10}}; }

}  // namespace

TEST_CASE("attention_rollout: two layers of known attention give the product of their matrices") {
  copying_model m(2);
  owned_item const item{{8, 8}, {6, 3, 7}, {5}, {3, 2}};
  std::vector<int> const tokens{8, 8, 6, 3, 7, 5, 3};
  std::size_t const n = tokens.size();
  matrix lower(n, std::vector<double>(n)), upper = lower;
  for (std::size_t w = 0; w < n; ++w) {
    double sum = 0;
    for (std::size_t v = 0; v <= w; ++v) sum += std::exp(copying_model::key_score(tokens[v]));
    for (std::size_t v = 0; v <= w; ++v) {
      lower[w][v] = 1 / double(w + 1);
      upper[w][v] = std::exp(copying_model::key_score(tokens[v])) / sum;
    }
  }
  auto const expected = chain_shares(product(with_residual(upper), with_residual(lower)), item);
  auto const r = estimate(estimators::attention_rollout{}, m.model, item);
  REQUIRE(r.token_saliency.size() == 3);
  for (std::size_t v = 0; v < 3; ++v)
    CHECK(r.token_saliency[v] == Approx(expected[v]).margin(1e-4));  // rms eps is in the scores
  CHECK(r.re_enabled == Approx((expected[0] + expected[1] + expected[2]) / 3).margin(1e-4));
}

TEST_CASE("attention_rollout: ragged items with shared prompts give what whole sequences one by one give") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  auto const owned = ragged_items(11);
  auto const items = views_of(owned);
  for (index_t const budget : {index_t{1}, index_t{20}, index_t{16384}}) {
    estimators::attention_rollout estimator{.row_budget = budget};
    auto const e = estimate_saliency(estimator, model, std::span<saliency_item const>(items));
    CHECK(e.rows.backward == 0);
    for (std::size_t i = 0; i < items.size(); ++i) {
      auto ids = owned[i].all();
      ids.pop_back();
      kv_cache<reference_backend, double> cache(backend, model.config(), index_t(ids.size()));
      forward_pass<reference_backend, double> pass(backend);
      ragged_batch batch;
      batch.add(cache.add_sequence(index_t(ids.size())), ids);
      model.forward(cache, batch, pass, {.mode = gradient_mode::activations});
      matrix flow(ids.size(), std::vector<double>(ids.size()));
      for (std::size_t w = 0; w < ids.size(); ++w) flow[w][w] = 1;
      tensor<reference_backend, double, 2> p(backend, {0, 0});
      for (index_t layer = 0; layer < 2; ++layer) {
        model.mean_attention(cache, pass, layer, p);
        auto const host = p.to_host();
        matrix a;
        for (std::size_t w = 0; w < ids.size(); ++w)
          a.emplace_back(host.begin() + index_t(w * ids.size()), host.begin() + index_t((w + 1) * ids.size()));
        flow = product(with_residual(a), flow);
      }
      auto const expected = chain_shares(flow, owned[i]);
      double sum = 0;
      for (std::size_t v = 0; v < expected.size(); ++v) {
        CHECK(e.items[i].token_saliency[v] == Approx(expected[v]).epsilon(1e-6));
        sum += expected[v];
      }
      CHECK(sum <= 0.75);  // 1 - 2^-L
      CHECK(e.items[i].re_enabled == Approx(sum / double(expected.size())));
      CHECK(e.items[i].ce_unmasked == Approx(cross_entropy(model, owned[i])));
    }
  }
}

TEST_CASE("estimators: what a pass computes again has the bits of what it would have kept") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  auto const owned = ragged_items(11);
  auto const items = views_of(owned);
  mask_options o = mask_options::recommended().in_steps(2);
  o.rows = mask_rows::all_later;
  for (std::string_view const name : estimators::names) {
    std::vector<saliency_estimate> both;
    for (bool const recompute : {false, true}) {
      o.recompute = recompute;
      auto estimator = estimators::by_name(name, o);
      both.push_back(estimate_saliency(estimator, model, std::span<saliency_item const>(items)));
    }
    INFO(name);
    for (std::size_t i = 0; i < items.size(); ++i)
      CHECK(both[0].items[i].token_saliency == both[1].items[i].token_saliency);
  }
}

TEST_CASE("gradient_x_input: it is the derivative by which the answer's cross-entropy rises as one embedding shrinks") {
  reference_backend backend;
  owned_item const item = distinct_item();
  auto const parameters = random_parameters(rich_config(), 2, 1.5);
  llama<reference_backend, double> model(backend, rich_config());
  set_parameters(model, parameters);
  auto const r = estimate(estimators::gradient_x_input{}, model, item);
  CHECK(r.ce_unmasked == Approx(cross_entropy(model, item)));
  parameter_info const& p = *model.layout().find("model.embed_tokens.weight");
  double const step = 1e-5;
  for (std::size_t v = 0; v < item.cot.size(); ++v) {
    auto const shrunk = [&](double h) {
      auto changed = parameters;
      for (index_t c = 0; c < p.columns; ++c) changed[std::size_t(p.offset + item.cot[v] * p.columns + c)] *= 1 - h;
      set_parameters(model, changed);
      return cross_entropy(model, item);
    };
    double const expected = (shrunk(step) - shrunk(-step)) / (2 * step);
    CHECK(std::abs(expected) > 1e-4);
    CHECK(r.token_saliency[v] == Approx(expected).epsilon(1e-5));
  }
}

TEST_CASE("gradient_x_input: an item's values do not depend on what it is batched with") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 2, 1.5);
  auto const owned = ragged_items(11);
  auto const items = views_of(owned);
  estimators::gradient_x_input estimator;
  auto const e = estimate_saliency(estimator, model, std::span<saliency_item const>(items));
  CHECK(e.rows.backward == e.rows.forward - 3 - 2 - 1);  // three different prompts
  for (std::size_t i = 0; i < items.size(); ++i)
    CHECK(e.items[i].token_saliency ==
          estimate(estimators::gradient_x_input{.row_budget = 1}, model, owned[i]).token_saliency);
}

TEST_CASE("gradient_x_input: RMS norm hides the length of what a single layer reads") {
  std::vector<int> const cot{6, 3, 7};
  copying_model one(1), two(2);
  auto const blind = estimate(estimators::gradient_x_input{}, one.model, one.item(cot, 3)),
             sees = estimate(estimators::gradient_x_input{}, two.model, two.item(cot, 3));
  CHECK(std::abs(blind.token_saliency[1]) < 1e-3);
  CHECK(sees.token_saliency[1] > 0.1);
}

TEST_CASE("estimators of one pass: both rank the token that the answer is copied from first") {
  copying_model m(2);
  for (std::size_t const place : {0u, 4u, 8u}) {
    std::vector<int> cot{6, 7, 7, 6, 7, 6, 6, 7, 6};
    cot[place] = 3;
    owned_item const item = m.item(cot, 3);
    auto const check = [&](auto estimator) {
      INFO(estimator.name << " at " << place);
      auto const r = estimate(estimator, m.model, item);
      auto const& s = r.token_saliency;
      CHECK(std::size_t(std::max_element(s.begin(), s.end()) - s.begin()) == place);
      CHECK(r.ce_start == r.ce_unmasked);
      CHECK(r.as_printed == 1 - r.re_enabled);
    };
    check(estimators::attention_rollout{});
    check(estimators::gradient_x_input{});
  }
}

TEST_CASE("estimators of one pass: a digit that speaks against the answer tells them apart") {
  copying_model m(2);
  owned_item const item = m.item({6, 3, 6, 2, 6}, 3);
  auto const rollout = estimate(estimators::attention_rollout{}, m.model, item),
             gradient = estimate(estimators::gradient_x_input{}, m.model, item);
  CHECK(rollout.token_saliency[3] > 2 * rollout.token_saliency[4]);  // attention goes there all the same
  CHECK(gradient.token_saliency[1] > 0);
  CHECK(gradient.token_saliency[3] < 0);  // removing it would help
}

TEST_CASE("estimators of one pass: filler lowers the reward number of both, which lies in [0, 1)") {
  copying_model m(2);
  auto const check = [&](auto estimator) {
    double before = 1;
    for (int const filler : {2, 8, 32, 128}) {
      std::vector<int> cot{2};
      cot.insert(cot.end(), std::size_t(filler), 6);
      auto const r = estimate(estimator, m.model, m.item(cot, 2));
      INFO(estimator.name << " with " << filler << " filler tokens: " << r.re_enabled);
      CHECK(r.re_enabled < before);
      CHECK(r.re_enabled > 0);
      before = r.re_enabled;
    }
  };
  check(estimators::attention_rollout{});
  check(estimators::gradient_x_input{});
}

}  // namespace kept_activations_test
