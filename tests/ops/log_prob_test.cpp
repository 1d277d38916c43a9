#include <atmanrl/ops/log_prob.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace log_prob_test {
namespace {

// Rows of hidden states, a head, targets, and weights of log p and entropy in the loss.
struct problem {
  index_t rows, dim, vocabulary;
  double temperature;
  std::vector<double> h, head, dlog_p, dentropy;
  std::vector<int> targets;

  problem(index_t r, index_t d, index_t v, double t)
      : rows(r),
        dim(d),
        vocabulary(v),
        temperature(t),
        h(random_values(r * d, 1)),
        head(random_values(v * d, 2)),
        dlog_p(random_values(r, 3)),
        dentropy(random_values(r, 4)) {
    random_stream draw(5, 0);
    for (index_t i = 0; i < r; ++i) targets.push_back(draw.between(0, int(v) - 1));
    targets[0] = int(v) - 1;  // the last id of the last chunk
  }

  template <class T>
  struct result {
    std::vector<T> log_p, lse, entropy;
  };

  template <class T>
  result<T> forward(std::vector<T> const& x, std::vector<T> const& w) const {
    reference_backend backend;
    weight<reference_backend, T> packed(backend, vocabulary, dim);
    packed.assign_rows(backend, 0, as(w, {vocabulary, dim}));
    log_prob_scratch<reference_backend, T> scratch;
    index_t const n = index_t(x.size()) / dim;
    result<T> out{std::vector<T>(x.size() / std::size_t(dim)), {}, {}};
    out.lse = out.entropy = out.log_p;
    log_prob(backend, as(x, {n, dim}), packed.view(), as(targets, {rows}).rows(0, n), temperature, scratch,
             as(out.log_p, {n}), as(out.lse, {n}), as(out.entropy, {n}));
    return out;
  }

  template <class T>
  T loss(std::vector<T> const& x, std::vector<T> const& w, bool with_entropy) const {
    auto const f = forward(x, w);
    return weighted_sum(f.log_p, dlog_p) + (with_entropy ? weighted_sum(f.entropy, dentropy) : T{});
  }

  void backward(std::vector<double>& dh, view<double, 2> dhead, bool with_entropy) const {
    auto const f = forward(h, head);
    reference_backend backend;
    weight<reference_backend, double> packed(backend, vocabulary, dim);
    packed.assign_rows(backend, 0, as(head, {vocabulary, dim}));
    log_prob_scratch<reference_backend, double> scratch;
    log_prob_backward(backend, as(h, {rows, dim}), packed.view(), as(targets, {rows}), temperature, scratch,
                      as(f.lse, {rows}), as(dlog_p, {rows}),
                      with_entropy ? as(f.entropy, {rows}) : view<double const, 1>(),
                      with_entropy ? as(dentropy, {rows}) : view<double const, 1>(), as(dh, {rows, dim}), dhead);
  }
};

}  // namespace

TEST_CASE("log_prob: equals the log-softmax of whole logits, over several chunks of the vocabulary") {
  problem const p(3, 4, 2 * cached_logit_blocks.ids + 37, 0.7);
  auto const out = p.forward(p.h, p.head);
  for (std::size_t r = 0; r < 3; ++r) {
    std::vector<double> z(std::size_t(p.vocabulary));
    double largest = -1e300;
    for (std::size_t j = 0; j < z.size(); ++j) {
      for (std::size_t c = 0; c < 4; ++c) z[j] += p.h[r * 4 + c] * p.head[j * 4 + c];
      largest = std::max(largest, z[j] /= p.temperature);
    }
    double sum = 0, entropy = 0;
    for (double const v : z) sum += std::exp(v - largest);
    double const lse = largest + std::log(sum);
    for (double const v : z) entropy -= std::exp(v - lse) * (v - lse);
    CHECK(out.lse[r] == Approx(lse).epsilon(1e-13));
    CHECK(out.log_p[r] == Approx(z[std::size_t(p.targets[r])] - lse).epsilon(1e-13));
    CHECK(out.entropy[r] == Approx(entropy).epsilon(1e-12));
  }
}

TEST_CASE("log_prob: backward over three chunks agrees with the complex step, with and without entropy") {
  bool const with_entropy = GENERATE(false, true);
  problem const p(3, 2, 2 * cached_logit_blocks.ids + 37, 0.7);
  auto const expected_dh =
      complex_step_gradient(p.h, [&](auto const& at) { return p.loss(at, converted<complex>(p.head), with_entropy); });
  std::vector<double> dh(p.h.size(), 9), dhead(p.head.size(), 0);
  p.backward(dh, as(dhead, {p.vocabulary, p.dim}), with_entropy);
  CHECK(relative_difference(dh, expected_dh) < 1e-12);

  // Every seventh number of the head, and all of the targets' rows.
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < p.head.size(); i += 7) chosen.push_back(i);
  for (int const t : p.targets) chosen.insert(chosen.end(), {std::size_t(2 * t), std::size_t(2 * t + 1)});
  std::vector<double> some, computed;
  for (std::size_t const i : chosen) some.push_back(p.head[i]), computed.push_back(dhead[i]);
  auto const expected_dhead = complex_step_gradient(some, [&](std::vector<complex> const& at) {
    auto head = converted<complex>(p.head);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      if (at[i].imag() != 0) head[chosen[i]] = at[i];
    return p.loss(converted<complex>(p.h), head, with_entropy);
  });
  CHECK(relative_difference(computed, expected_dhead) < 1e-12);
}

TEST_CASE("log_prob: backward over several row blocks agrees with the complex step") {
  problem const p(2 * cached_logit_blocks.rows + 11, 3, 6, 1.9);
  std::vector<double> dh(p.h.size(), 9), dhead(p.head.size(), 0);
  p.backward(dh, as(dhead, {p.vocabulary, p.dim}), true);
  // Rows do not depend on each other: one component of all rows is perturbed at once.
  std::vector<double> expected(p.h.size());
  for (std::size_t c = 0; c < 3; ++c) {
    auto x = converted<complex>(p.h);
    for (std::size_t r = 0; r < p.targets.size(); ++r) x[r * 3 + c] += complex(0, 1e-50);
    auto const f = p.forward(x, converted<complex>(p.head));
    for (std::size_t r = 0; r < p.targets.size(); ++r)
      expected[r * 3 + c] = (p.dlog_p[r] * f.log_p[r].imag() + p.dentropy[r] * f.entropy[r].imag()) / 1e-50;
  }
  CHECK(relative_difference(dh, expected) < 1e-12);
  auto const expected_dhead =
      complex_step_gradient(p.head, [&](auto const& at) { return p.loss(converted<complex>(p.h), at, true); });
  CHECK(relative_difference(dhead, expected_dhead) < 1e-12);

  // The head's gradient is added to, and may be left out.
  p.backward(dh, as(dhead, {p.vocabulary, p.dim}), true);
  for (std::size_t i = 0; i < dhead.size(); ++i) CHECK(dhead[i] == Approx(2 * expected_dhead[i]));
  std::vector<double> again(dh.size());
  p.backward(again, {}, true);
  CHECK(again == dh);
}

TEST_CASE("log_prob: a row has the same bits alone and in a batch") {
  problem const p(5, 3, cached_logit_blocks.ids + 9, 1);
  auto const h = converted<float>(p.h), head = converted<float>(p.head);
  auto const all = p.forward(h, head);
  auto const alone = p.forward(std::vector<float>(h.begin(), h.begin() + 3), head);
  CHECK(alone.log_p[0] == all.log_p[0]);
  CHECK(alone.entropy[0] == all.entropy[0]);
}

TEST_CASE("log_prob: logits far from zero neither overflow nor vanish in float") {
  problem p(1, 1, 3, 1);
  std::vector<float> const h{1000}, head{1, 0.998f, -1};
  p.targets = {1};
  auto const out = p.forward(h, head);
  double const q = 1 / (1 + std::exp(2.));
  CHECK(out.log_p[0] == Approx(std::log(q)).epsilon(1e-3));
  CHECK(out.entropy[0] == Approx(-q * std::log(q) - (1 - q) * std::log(1 - q)).epsilon(1e-2));
}

TEST_CASE("log_prob: extents that disagree and a temperature of zero are named") {
  reference_backend backend;
  weight<reference_backend, float> const head(backend, 5, 3);
  log_prob_scratch<reference_backend, float> scratch;
  std::vector<float> h(8), out(2), dhead(15);
  std::vector<int> const targets{0, 1};
  auto const call = [&](index_t dim, index_t count, double temperature) {
    log_prob(backend, as(h, {2, dim}), head.view(), as(targets, {count}), temperature, scratch, as(out, {2}),
             as(out, {2}));
  };
  CHECK_THROWS_WITH(call(3, 1, 1), ATMANRL_CONTAINS("1 targets, log_p [2], lse [2] for h [2, 3]"));
  CHECK_THROWS_WITH(call(4, 2, 1), ATMANRL_CONTAINS("x [2, 4] times a weight of (5, 3)"));
  CHECK_THROWS_AS(call(3, 2, 0), usage_error);
  CHECK_THROWS_AS(call(3, 2, std::numeric_limits<double>::quiet_NaN()), usage_error);
  auto const back = [&](index_t dim, index_t vocabulary) {
    log_prob_backward(backend, as(h, {2, 3}), head.view(), as(targets, {2}), 1, scratch, as(out, {2}), as(out, {2}), {},
                      {}, as(h, {2, dim}), as(dhead, {vocabulary, 3}));
  };
  CHECK_THROWS_WITH(back(4, 5), ATMANRL_CONTAINS("dh [2, 4], lse [2], dlog_p [2] for h [2, 3]"));
  CHECK_THROWS_WITH(back(3, 4), ATMANRL_CONTAINS("dhead [4, 3] for a head of (5, 3)"));
}

}  // namespace log_prob_test
