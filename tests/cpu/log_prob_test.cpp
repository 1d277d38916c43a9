#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace log_prob_test {
namespace {

struct problem {
  index_t rows, vocabulary, dim;
  double temperature = 0.7;
  std::vector<double> h = random_values(rows * dim, 1),
                      head = converted<double>(converted<float>(random_values(vocabulary * dim, 2))),
                      dlog_p = random_values(rows, 3), dentropy = random_values(rows, 4);

  // log_p, lse, entropy, dh, dhead
  template <class T, class W, class B>
  std::array<std::vector<T>, 5> run(B& backend) const {
    weight<B, W> w(backend, vocabulary, dim);
    w.assign_rows(backend, 0, as(converted<compute_t<W>>(head), {vocabulary, dim}));
    std::vector<int> targets;
    for (index_t r = 0; r < rows; ++r) targets.push_back(int((r * 997 + 3) % vocabulary));
    auto const x = converted<T>(h), a = converted<T>(dlog_p), b = converted<T>(dentropy);
    std::vector<T> log_p(std::size_t(rows), 0), lse = log_p, entropy = log_p, dh(x.size()), dhead(head.size(), T(1));
    log_prob_scratch<B, T> scratch;
    log_prob(backend, as(x, {rows, dim}), w.view(), std::span<int const>(targets), temperature, scratch,
             as(log_p, {rows}), as(lse, {rows}), as(entropy, {rows}));
    log_prob_backward(backend, as(x, {rows, dim}), w.view(), std::span<int const>(targets), temperature, scratch,
                      as(lse, {rows}), as(a, {rows}), as(entropy, {rows}), as(b, {rows}), as(dh, {rows, dim}),
                      as(dhead, {vocabulary, dim}));
    return {log_p, lse, entropy, dh, dhead};
  }
};

}  // namespace

TEST_CASE("cpu log_prob: values, entropies and gradients agree with plain loops over several chunks") {
  for (index_t const vocabulary : {1, 5, 1024, 1031, 2500})
    for (index_t const rows : {1, 2, 17, 270}) {
      if (rows > 17 && vocabulary != 1031) continue;
      CAPTURE(vocabulary, rows);
      problem const p{rows, vocabulary, 24};
      cpu_backend backend({.threads = 2});
      reference_backend reference;
      auto const expected = p.run<double, double>(reference);
      auto const got = p.run<float, float>(backend);
      for (std::size_t i = 0; i < got.size(); ++i) {
        CAPTURE(i);
        if (vocabulary == 1 && i != 1)
          CHECK(*std::max_element(got[i].begin(), got[i].end()) < 1.00001f);  // log 1, and no gradient
        else
          CHECK(relative_difference(got[i], expected[i]) < 2e-5);
      }
    }
}

TEMPLATE_TEST_CASE("cpu log_prob: the same bits for any number of threads, and for a row alone", "", float, bf16) {
  problem const all{60, 1500, 40};
  for (std::size_t i = 0; i < 5; ++i)
    CHECK(same_for_any_threads([&](cpu_backend& b) { return all.run<float, TestType>(b)[i]; }));
  cpu_backend backend({.threads = 2});
  auto const together = all.run<float, TestType>(backend);
  problem first = all;
  first.rows = 1;
  first.h.resize(40);
  first.dlog_p.resize(1);
  first.dentropy.resize(1);
  auto const alone = first.run<float, TestType>(backend);
  for (std::size_t i = 0; i < 3; ++i) CHECK(alone[i][0] == together[i][0]);
}

}  // namespace log_prob_test
