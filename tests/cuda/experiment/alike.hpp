#pragma once
// Figures of a run on the device beside those on the CPU.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/io/json.hpp>

#include <cmath>
#include <span>
#include <type_traits>

#include "catch.hpp"

namespace atmanrl_test {

/// `run()`, which is to launch kernels where B is the device's backend and none where it is the CPU's: what computes on
/// the CPU twice finds no difference.
template <class B, class Run>
auto computed_on(Run const& run) {
  auto const launches = [] { return cuda_emulation::calls().by_name["cudaLaunchKernelEx"]; };
  auto const before = launches();
  auto result = run();
  CHECK((launches() > before) == std::is_same_v<B, atmanrl::cuda_backend>);
  return result;
}

/// |a - b| / |b|, in Euclidean norms.
inline double relative_difference(std::span<float const> a, std::span<float const> b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, square = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    square += double(b[i]) * b[i];
  }
  return square > 0 ? std::sqrt(difference / square) : difference > 0;
}

/// Every number in both to a tolerance, all else exactly.
inline void check_alike(atmanrl::json const& a, atmanrl::json const& b, double tolerance) {
  atmanrl::json const flat_a = a.flatten(), flat_b = b.flatten();
  REQUIRE(flat_a.size() == flat_b.size());
  for (auto const& [name, value] : flat_a.items()) {
    INFO(name);
    // Two tokens of nearly the same saliency may change their ranks.
    double const allowed = name.find("spearman") == std::string::npos ? tolerance : 0.05;
    if (value.is_number_float())
      CHECK(value.get<double>() == Approx(flat_b.at(name).get<double>()).epsilon(allowed).margin(allowed));
    else
      CHECK(value == flat_b.at(name));
  }
}

}  // namespace atmanrl_test
