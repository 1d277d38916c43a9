#include <atmanrl/ops/divergence.hpp>

#include <atmanrl/saliency/objectives/kl_to_unmasked.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

constexpr index_t rows = 3, ids = 11;
std::vector<int> const z0_rows{3, 0, 3}, targets{10, 0, 4};  // of four rows, one for two
std::vector<double> const weights{0.5, -2, 1};

template <class T>
struct results_of_rows {
  std::vector<T> gradient, kl, log_p;
};

template <class T>
results_of_rows<T> computed(std::vector<T> z0, std::vector<T> z) {
  reference_backend plain;
  std::vector<T> const w(weights.begin(), weights.end());
  results_of_rows<T> out{std::move(z), std::vector<T>(rows), std::vector<T>(rows)};
  divergence(plain, as(z0, {4, ids}), as(z0_rows, {rows}), as(targets, {rows}), as(w, {rows}),
             as(out.gradient, {rows, ids}), as(out.kl, {rows}), as(out.log_p, {rows}));
  return out;
}

}  // namespace

TEST_CASE("divergence: that of two rows, and log p, by their definition") {
  auto const z0 = random_values(4 * ids, 1, 3), z = random_values(rows * ids, 2, 3);
  auto const out = computed(z0, z);
  for (index_t r = 0; r < rows; ++r) {
    double const *const row0 = z0.data() + z0_rows[std::size_t(r)] * ids, *const row = z.data() + r * ids;
    double sum0 = 0, sum = 0, kl = 0;
    for (index_t j = 0; j < ids; ++j) sum0 += std::exp(row0[j]), sum += std::exp(row[j]);
    for (index_t j = 0; j < ids; ++j) {
      double const p0 = std::exp(row0[j]) / sum0, p = std::exp(row[j]) / sum;
      kl += p0 * std::log(p0 / p);
      CHECK(out.gradient[std::size_t(r * ids + j)] == Approx(weights[std::size_t(r)] * (p - p0)).margin(1e-14));
    }
    CHECK(out.kl[std::size_t(r)] == Approx(kl).epsilon(1e-12));
    CHECK(out.log_p[std::size_t(r)] == Approx(std::log(std::exp(row[targets[std::size_t(r)]]) / sum)).epsilon(1e-12));
    // The host's, which objectives::kl_to_unmasked is on backends without the kernel.
    std::vector<double> mine(row, row + ids);
    CHECK(kl_and_gradient(std::span(row0, std::size_t(ids)), std::span(mine), 1) == Approx(kl).epsilon(1e-12));
  }
}

TEST_CASE("divergence: the gradient is that of the weighted sum") {
  auto const z0 = random_values(4 * ids, 3, 2), z = random_values(rows * ids, 4, 2);
  std::vector<complex> const fixed(z0.begin(), z0.end());
  auto const exact = complex_step_gradient(
      z, [&](std::vector<complex> const& x) { return weighted_sum(computed(fixed, x).kl, weights); });
  CHECK(relative_difference(computed(z0, z).gradient, exact) < 1e-12);
}

TEST_CASE("divergence: exactly zero, with a gradient of exactly zero, where both rows are the same") {
  auto const z0 = random_values(4 * ids, 5, 100);
  std::vector<double> z;
  for (int const r : z0_rows) z.insert(z.end(), z0.begin() + r * ids, z0.begin() + (r + 1) * ids);
  auto const out = computed(z0, z);
  CHECK(out.kl == std::vector<double>(rows, 0.0));
  CHECK(out.gradient == std::vector<double>(rows * ids, 0.0));
}

TEST_CASE("divergence: shapes that do not fit are refused") {
  reference_backend plain;
  std::vector<double> z0(8), z(6), few(2);
  std::vector<int> two(2), one(1);
  auto const call = [&](index_t ids0, std::vector<int>& targets_of) {
    divergence(plain, as(z0, {8 / ids0, ids0}), as(two, {2}), as(targets_of, {index_t(targets_of.size())}),
               as(few, {2}), as(z, {2, 3}), as(few, {2}), as(few, {2}));
  };
  CHECK_THROWS_AS(call(4, two), shape_error);
  CHECK_THROWS_WITH(call(4, two), ATMANRL_CONTAINS("divergence: z0"));
  CHECK_THROWS_AS(call(4, one), shape_error);
}
