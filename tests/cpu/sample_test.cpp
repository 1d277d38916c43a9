#include <atmanrl/core/random.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace sample_test {
namespace {

struct problem {
  index_t vocabulary, draws = 37;
  std::vector<float> logits = random_floats(5 * vocabulary, 1, 3);
  std::vector<int> rows;
  std::vector<std::uint64_t> shares;

  explicit problem(index_t size) : vocabulary(size) {
    random_stream draw(3, 2);
    for (index_t i = 0; i < draws; ++i) {
      rows.push_back(int(i * 3 % 5));
      shares.push_back(share_of_2_64(draw.uniform()));
    }
  }
  view<float const, 2> z() const { return {logits.data(), {5, vocabulary}}; }

  template <class B>
  std::vector<int> ids(B& backend, double temperature, sample_form const& form) const {
    std::vector<int> out(rows.size(), -1);
    sample_tokens(backend, z(), std::span<int const>(rows), std::span<std::uint64_t const>(shares), temperature, form,
                  std::span<int>(out));
    return out;
  }
  /// Log-probabilities, then entropies.
  template <class B>
  std::vector<float> scores(B& backend) const {
    std::vector<float> out(2 * rows.size());
    auto const drawn = ids(backend, 0.7, {});
    score_tokens(backend, z(), std::span<int const>(rows), std::span<int const>(drawn), 0.7,
                 view<float, 1>(out.data(), {draws}), view<float, 1>(out.data() + draws, {draws}));
    return out;
  }
};

}  // namespace

TEST_CASE("cpu sample_tokens: the tokens of the plain loop, for any number of threads") {
  for (index_t const vocabulary : {1, 5, 257, 1030, 20001}) {
    problem const p(vocabulary);
    for (sample_form const& form :
         {sample_form{}, {.greedy = true}, {.top_k = 20}, {.top_p = 0.9}, {.top_k = 100, .top_p = 0.8, .min_p = 0.01}})
      for (double const temperature : {0.0, 0.7, 1.0}) {
        CAPTURE(vocabulary, form.top_k, temperature);
        reference_backend reference;
        auto const expected = p.ids(reference, temperature, form);
        for (int const threads : {1, 2, 3, 7}) {
          cpu_backend backend({.threads = threads});
          CHECK(p.ids(backend, temperature, form) == expected);
        }
      }
  }
}

TEST_CASE("cpu score_tokens: the bits of training, for any number of threads") {
  index_t const vocabulary = 2500, dim = 24;
  cpu_backend backend({.threads = 2});
  weight<cpu_backend, float> head(backend, vocabulary, dim);
  auto const contents = random_floats(vocabulary * dim, 2), h = random_floats(5 * dim, 3);
  head.assign_rows(backend, 0, as(contents, {vocabulary, dim}));
  problem p(vocabulary);
  matmul(backend, as(h, {5, dim}), head.view(), as(p.logits, {5, vocabulary}));
  auto const drawn = p.ids(backend, 0.7, {});
  auto const got = p.scores(backend);

  std::vector<float> of_rows(std::size_t(p.draws * dim)), log_p(std::size_t(p.draws)), lse = log_p, entropy = log_p;
  for (std::size_t i = 0; i < p.rows.size(); ++i) std::copy_n(&h[std::size_t(p.rows[i]) * 24], 24, &of_rows[i * 24]);
  log_prob_scratch<cpu_backend, float> scratch;
  log_prob(backend, as(of_rows, {p.draws, dim}), head.view(), std::span<int const>(drawn), 0.7, scratch,
           as(log_p, {p.draws}), as(lse, {p.draws}), as(entropy, {p.draws}));
  log_p.insert(log_p.end(), entropy.begin(), entropy.end());
  CHECK(same_bits(got, log_p));
  CHECK(same_for_any_threads([&](cpu_backend& b) { return p.scores(b); }));
  reference_backend reference;
  CHECK(relative_difference(got, p.scores(reference)) < 1e-5);
}

}  // namespace sample_test
