// Tokens drawn by the kernel against the samplers of the host.
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/core/random.hpp>
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/cuda/sampling.cuh>
#include <atmanrl/ops/sample.hpp>
#include <atmanrl/rl/samplers/form.hpp>

#include "catch.hpp"
#include "cuda/thread_orders.hpp"

#include <limits>
#include <numeric>
#include <vector>

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

std::vector<float> random_logits(int vocabulary, double spread, std::uint32_t stream) {
  random_stream draw(7, stream);
  std::vector<float> z;
  for (int i = 0; i < vocabulary; ++i) z.push_back(float(spread * draw.normal()));
  return z;
}

template <class T>
std::vector<int> on_device(cuda_backend& backend, std::vector<T> const& logits, std::vector<int> const& rows,
                           std::vector<double> const& u, double temperature, sample_form const& form) {
  index_t const n = index_t(rows.size()),
                vocabulary = index_t(logits.size()) / (*std::max_element(rows.begin(), rows.end()) + 1);
  tensor<cuda_backend, T, 2> z(backend, {index_t(logits.size()) / vocabulary, vocabulary});
  z.assign(logits);
  tensor<cuda_backend, int, 1> at(backend, {n}), ids(backend, {n});
  at.assign(rows);
  std::vector<std::uint64_t> shares;
  for (double const x : u) shares.push_back(share_of_2_64(x));
  tensor<cuda_backend, std::uint64_t, 1> s(backend, {n});
  s.assign(shares);
  sample_tokens(backend, z.cview(), at.cview(), s.cview(), temperature, form, ids.view());
  return ids.to_host();
}

/// The host's token where rounding cannot decide between two: the same a little below and above `u`, and with the cut a
/// little more and less.
int decided(samplers::multinomial m, std::vector<float> const& z, double temperature, double u) {
  int const token = m(z, temperature, u);
  static constexpr double eps = 1e-5;
  for (double const du : {-eps, eps})
    for (double const dp : {-eps, 0.0, eps}) {
      samplers::multinomial other = m;
      if (m.top_p < 1) other.top_p = std::min(1.0, m.top_p * (1 + dp));
      if (m.min_p > 0) other.min_p = std::min(1.0, m.min_p * (1 + dp));
      if (other(z, temperature, std::clamp(u + du, 0.0, 1 - 1e-9)) != token) return -1;
    }
  return token;
}

void check_like_host(std::vector<float> const& z, samplers::multinomial const& m, double temperature,
                     std::uint32_t stream, int draws = 24) {
  cuda_backend backend;
  random_stream random(8, stream);
  std::vector<double> u{0.0, 1 - 0x1p-53};
  while (int(u.size()) < draws) u.push_back(random.uniform());
  std::vector<int> const rows(u.size(), 0);
  auto const ids = on_device(backend, z, rows, u, temperature, *samplers::form_of(m));
  int compared = 0;
  for (std::size_t i = 0; i < u.size(); ++i) {
    int const expected = decided(m, z, temperature, u[i]);
    if (expected < 0) continue;
    CAPTURE(z.size(), temperature, m.top_k, m.top_p, m.min_p, u[i]);
    CHECK(ids[i] == expected);
    ++compared;
  }
  CHECK(compared > draws / 3);
}

}  // namespace

TEST_CASE("cuda sampling: uncut tokens are those of the host, whatever the size of the vocabulary") {
  for (int const vocabulary : {1, 2, 31, 32, 33, 257, 1500})
    check_like_host(random_logits(vocabulary, 2, 1), {}, 1, std::uint32_t(vocabulary));
  check_like_host(random_logits(4099, 2, 2), {}, 1, 4);  // two parts, single logits
  check_like_host(random_logits(33000, 3, 2), {}, 0.7, 5, 8);
  check_like_host(random_logits(128 * 1024 + 4, 3, 2), {}, 1, 6, 8);  // pieces of 256 ids
  auto below_zero = random_logits(600, 2, 5);
  for (float& z : below_zero) z -= 40;
  check_like_host(below_zero, {}, 1, 7);
  check_like_host(below_zero, {.top_p = 0.9}, 1, 8);
}

TEST_CASE("cuda sampling: uncut tokens at the borders of packs, pieces and parts") {
  cuda_backend backend;
  for (int const vocabulary : {9000, 9001}) {  // whole packs, and single logits
    std::vector<float> z(std::size_t(vocabulary), -std::numeric_limits<float>::infinity());
    std::vector<int> expected, rows;
    std::vector<double> u;
    for (int const id : {0, 3, 4, 31, 32, 127, 128, 1023, 1024, 4095, 4096, 8191, 8192, vocabulary - 1}) {
      z[std::size_t(id)] = 1;
      expected.push_back(id);
      rows.push_back(0);
    }
    for (std::size_t i = 0; i < expected.size(); ++i) u.push_back((double(i) + 0.5) / double(expected.size()));
    CHECK(on_device(backend, z, rows, u, 1, {}) == expected);
    // Half of the sum is where the seventh token ends.
    auto const half = on_device(backend, z, {0, 0}, {0.5 - 1e-9, 0.5 + 1e-9}, 1, {});
    CHECK(half == std::vector<int>{expected[6], expected[7]});
  }
}

TEST_CASE("cuda sampling: every cut and their combinations give the host's tokens") {
  auto const z = random_logits(700, 2, 3);
  for (double const temperature : {0.5, 1.0, 2.0}) {
    for (samplers::multinomial const m : {samplers::multinomial{.top_k = 1},
                                          {.top_k = 40},
                                          {.top_k = 5000},
                                          {.top_p = 0.9},
                                          {.top_p = 1e-9},
                                          {.min_p = 0.1},
                                          {.min_p = 1},
                                          {.top_k = 50, .top_p = 0.8, .min_p = 0.02}})
      check_like_host(z, m, temperature, 11);
  }
}

TEST_CASE("cuda sampling: cuts of rows of several parts, with whole packs and without") {
  for (int const vocabulary : {9000, 9001}) {
    auto const z = random_logits(vocabulary, 2, 12);
    check_like_host(z, {.top_k = 300}, 1, 13, 8);
    check_like_host(z, {.top_p = 0.95}, 1, 14, 8);
    check_like_host(z, {.min_p = 0.01}, 1, 15, 8);
  }
}

TEST_CASE("cuda sampling: the sums of a cut carry beyond 32 bits") {
  // The weight 1 has the mass 2^46, all others a little less than 2^32 each, and one bucket holds them.
  std::vector<float> z(4000, float(std::log(0.99 * 0x1p-14)));
  z[7] = 0;
  check_like_host(z, {.top_p = 0.98}, 1, 23, 60);
}

TEST_CASE("cuda sampling: ids of more than one digit after equal weights") {
  std::vector<float> const flat(5000, 0.25f);  // all ranks differ in the ids alone
  check_like_host(flat, {.top_k = 1234}, 1, 20);
  check_like_host(flat, {.top_p = 0.50007}, 1, 21);
  std::vector<float> steps;
  for (int i = 0; i < 3000; ++i) steps.push_back(float(i % 7));
  check_like_host(steps, {.top_k = 600}, 1, 22);
}

TEST_CASE("cuda sampling: greedy takes the largest logit and the lowest id among equals") {
  cuda_backend backend;
  float const low = -std::numeric_limits<float>::infinity();
  std::vector<float> const z{-3, -1, -1, -7, 2, 0.5f, 2, 1, low, -0.0f, 0.0f, low};  // three rows of four
  CHECK(on_device(backend, z, {2, 0, 1}, {0, 0, 0}, 1, {.greedy = true}) == std::vector<int>{1, 1, 0});
  CHECK(on_device(backend, z, {2, 0, 1}, {0.9, 0.9, 0.9}, 0, {}) == std::vector<int>{1, 1, 0});
  std::vector<float> far(9000, 1.0f);  // equals in different warps, parts and packs
  far[8999] = far[4097] = far[4100] = 5;
  CHECK(on_device(backend, far, {0}, {0.5}, 0, {}) == std::vector<int>{4097});
  far[3] = 5;
  CHECK(on_device(backend, far, {0}, {0.5}, 0, {}) == std::vector<int>{3});
  auto const many = random_logits(2000, 1, 4);
  CHECK(on_device(backend, many, {0}, {0.3}, 1, {.greedy = true})[0] == samplers::greedy{}(many, 1, 0.3));
}

TEST_CASE("cuda sampling: each draw looks at its own row, in float and in double") {
  cuda_backend backend;
  std::vector<float> z(6 * 100, -30.0f);
  for (int r = 0; r < 6; ++r) z[std::size_t(r * 100 + 7 * r + 3)] = 30;
  std::vector<int> const rows{5, 0, 0, 3, 5, 1}, expected{38, 3, 3, 24, 38, 10};
  std::vector<double> const u{0.1, 0.2, 0.9, 0.5, 0.99, 0};
  CHECK(on_device(backend, z, rows, u, 1, {}) == expected);
  CHECK(on_device(backend, std::vector<double>(z.begin(), z.end()), rows, u, 1, {.top_k = 3}) == expected);
}

TEST_CASE("cuda sampling: tokens without weight are never drawn, and a row that is not a number does not hang") {
  cuda_backend backend;
  float const low = -std::numeric_limits<float>::infinity(), no = std::numeric_limits<float>::quiet_NaN();
  for (sample_form const& form : {sample_form{}, {.top_k = 3}, {.top_p = 0.9}, {.min_p = 0.5}}) {
    for (double const u : {0.0, 0.5, 1 - 0x1p-53})
      CHECK(on_device<float>(backend, {low, low, 1.0f, low}, {0}, {u}, 1, form)[0] == 2);
    int const id = on_device<float>(backend, {no, no, no}, {0}, {0.5}, 1, form)[0];
    CHECK((id >= 0 && id < 3));
    int const other = on_device<float>(backend, {1.0f, no, 2.0f}, {0}, {0.5}, 1, form)[0];
    CHECK((other >= 0 && other < 3));
  }
}

TEST_CASE("cuda sampling: a draw has the same bits in every order of threads") {
  cuda_backend backend;
  std::vector<int> const rows(4, 0);
  for (int const vocabulary : {1100, 8200}) {
    auto const z = random_logits(vocabulary, 2, 9);
    for (sample_form const& form : {sample_form{}, {.top_k = 100, .top_p = 0.9, .min_p = 0.01}})
      CHECK(same_in_every_thread_order([&] {
        return on_device(backend, z, rows, {0.05, 0.4, 0.77, 0.999}, 1.3, form);
      }));
  }
}

TEMPLATE_TEST_CASE("cuda sampling: log-probability and entropy are those of the plain loops", "", float, double) {
  cuda_backend device;
  reference_backend host;
  for (int const vocabulary : {1, 5, 64, 300, 1100, 4096, 8195, 8196}) {
    for (double const temperature : {1.0, 0.6}) {
      auto const drawn = random_logits(3 * vocabulary, 3, 30);
      std::vector<TestType> const z(drawn.begin(), drawn.end());
      std::vector<int> const rows{2, 0, 2, 1}, ids{0, vocabulary - 1, vocabulary / 2, vocabulary / 3};
      tensor<cuda_backend, TestType, 2> logits(device, {3, vocabulary});
      logits.assign(z);
      tensor<cuda_backend, int, 1> at(device, {4}), id(device, {4});
      at.assign(rows);
      id.assign(ids);
      tensor<cuda_backend, TestType, 1> log_p(device, {4}), entropy(device, {4});
      score_tokens(device, logits.cview(), at.cview(), id.cview(), temperature, log_p.view(), entropy.view());

      std::vector<double> wide(z.begin(), z.end()), lp(4), en(4);
      score_tokens(host, view<double const, 2>(wide.data(), {3, vocabulary}), view<int const, 1>(rows.data(), {4}),
                   view<int const, 1>(ids.data(), {4}), temperature, view<double, 1>(lp.data(), {4}),
                   view<double, 1>(en.data(), {4}));
      auto const got = log_p.to_host(), got_entropy = entropy.to_host();
      double const eps = sizeof(TestType) == 8 ? 1e-12 : 2e-5;
      for (std::size_t i = 0; i < 4; ++i) {
        CHECK(double(got[i]) == Approx(lp[i]).epsilon(eps).margin(eps));
        CHECK(double(got_entropy[i]) == Approx(en[i]).epsilon(eps).margin(eps));
      }
    }
  }
}

TEST_CASE("cuda sampling: the log-probability of what is impossible is minus infinity, and the entropy stays finite") {
  cuda_backend device;
  float const low = -std::numeric_limits<float>::infinity();
  tensor<cuda_backend, float, 2> logits(device, {1, 4});
  logits.assign(std::vector<float>{low, 1, 1, low});
  tensor<cuda_backend, int, 1> at(device, {2}), id(device, {2});
  at.assign(std::vector<int>{0, 0});
  id.assign(std::vector<int>{0, 2});
  tensor<cuda_backend, float, 1> log_p(device, {2}), entropy(device, {2});
  score_tokens(device, logits.cview(), at.cview(), id.cview(), 1, log_p.view(), entropy.view());
  CHECK(log_p.to_host()[0] == low);
  CHECK(log_p.to_host()[1] == Approx(-std::log(2.0)));
  CHECK(entropy.to_host()[1] == Approx(std::log(2.0)));
}

TEST_CASE("cuda sampling: scores of rows with more parts than lanes, and with a last part that outweighs all") {
  cuda_backend device;
  int const vocabulary = 34 * 4096;
  std::vector<float> z(2 * std::size_t(vocabulary), -std::numeric_limits<float>::infinity());
  z[5] = z[32 * 4096 + 7] = 1;  // parts 0 and 32 are one lane's
  z[std::size_t(vocabulary)] = 0, z[2 * std::size_t(vocabulary) - 1] = 200;
  tensor<cuda_backend, float, 2> logits(device, {2, vocabulary});
  logits.assign(z);
  tensor<cuda_backend, int, 1> at(device, {2}), id(device, {2});
  at.assign(std::vector<int>{0, 1});
  id.assign(std::vector<int>{5, vocabulary - 1});
  tensor<cuda_backend, float, 1> log_p(device, {2}), entropy(device, {2});
  score_tokens(device, logits.cview(), at.cview(), id.cview(), 1, log_p.view(), entropy.view());
  auto const got = log_p.to_host(), got_entropy = entropy.to_host();
  CHECK(got[0] == Approx(-std::log(2.0)));
  CHECK(got_entropy[0] == Approx(std::log(2.0)));
  CHECK(got[1] == 0);
  CHECK(got_entropy[1] == 0);
}

TEST_CASE("cuda sampling: scores of rows with parts of weight 0, and with what is not a number") {
  cuda_backend device;
  float const low = -std::numeric_limits<float>::infinity(), no = std::numeric_limits<float>::quiet_NaN();
  int const vocabulary = 12300;  // three parts and a bit
  std::vector<float> z(4 * std::size_t(vocabulary), low);
  auto const at_row = [&](int row, int id) -> float& { return z[std::size_t(row) * std::size_t(vocabulary) + id]; };
  at_row(0, 5000) = at_row(0, 9000) = 1;
  at_row(1, 5000) = at_row(1, 9000) = 1, at_row(1, 100) = -1e4f;  // a part whose weight rounds to 0
  at_row(2, 5000) = 1, at_row(2, 0) = no;
  at_row(3, 5000) = 1, at_row(3, 12299) = -low;
  tensor<cuda_backend, float, 2> logits(device, {4, vocabulary});
  logits.assign(z);
  tensor<cuda_backend, int, 1> at(device, {5}), id(device, {5});
  at.assign(std::vector<int>{0, 0, 1, 2, 3});
  id.assign(std::vector<int>{9000, 1, 5000, 5000, 5000});
  tensor<cuda_backend, float, 1> log_p(device, {5}), entropy(device, {5});
  score_tokens(device, logits.cview(), at.cview(), id.cview(), 1, log_p.view(), entropy.view());
  auto const got = log_p.to_host(), got_entropy = entropy.to_host();
  CHECK(got[0] == Approx(-std::log(2.0)));
  CHECK(got[1] == low);
  CHECK(got[2] == Approx(-std::log(2.0)));
  for (int i = 0; i < 3; ++i) CHECK(got_entropy[std::size_t(i)] == Approx(std::log(2.0)));
  for (std::size_t i = 3; i < 5; ++i) {
    CHECK(std::isnan(got[i]));
    CHECK(std::isnan(got_entropy[i]));
  }
}

TEST_CASE("cuda sampling: only the built-in samplers themselves are drawn by the kernel") {
  struct mine : samplers::multinomial {
    int operator()(std::span<float const>, double, double) const { return 0; }
  };
  CHECK_FALSE(samplers::form_of(mine{}).has_value());
  CHECK_FALSE(samplers::form_of(samplers::any(mine{})).has_value());
  CHECK(samplers::form_of(samplers::any(samplers::greedy{}))->greedy);
  CHECK(samplers::form_of(samplers::any(samplers::multinomial{.top_k = 3}))->top_k == 3);
}
