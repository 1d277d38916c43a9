#pragma once
// Exact derivatives for the tests of backward passes: the complex step, imag f(x + ih) / h with h = 1e-50 (Squire &
// Trapp 1998), has no cancellation, so a backward pass in double must agree with it to rounding.
#include <atmanrl/core/random.hpp>
#include <atmanrl/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <span>
#include <vector>

namespace atmanrl_test {

using complex = std::complex<double>;

/// Standard normal numbers times `scale`, a function of the seed alone.
inline std::vector<double> random_values(std::ptrdiff_t count, unsigned seed, double scale = 1) {
  atmanrl::random_stream draw(seed, 77);
  std::vector<double> x(static_cast<std::size_t>(count));
  for (double& v : x) v = scale * draw.normal();
  return x;
}

template <class To, class From>
std::vector<To> converted(std::vector<From> const& from) {
  std::vector<To> to(from.size());
  std::transform(from.begin(), from.end(), to.begin(), [](From const& x) { return To(x); });
  return to;
}

/// Gradient at x of `loss`, which takes a std::vector<complex> const& and returns a complex.
template <class Loss>
std::vector<double> complex_step_gradient(std::vector<double> const& x, Loss&& loss) {
  constexpr double h = 1e-50;
  std::vector<complex> at = converted<complex>(x);
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    at[i] = complex(x[i], h);
    gradient[i] = loss(at).imag() / h;
    at[i] = complex(x[i], 0);
  }
  return gradient;
}

/// Sum of a[i] * b[i]: turns an output into a scalar loss whose gradient with respect to the output is b.
template <class T>
T weighted_sum(std::vector<T> const& a, std::vector<double> const& b) {
  T sum{};
  for (std::size_t i = 0; i < b.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Largest |a - b| divided by the largest |b|; infinite when the sizes differ or something is not a number.
template <class A, class B>
double relative_difference(A const& a, B const& b) {
  if (std::size(a) != std::size(b)) return INFINITY;
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < std::size(a); ++i) {
    double const d = std::abs(double(std::data(a)[i]) - double(std::data(b)[i]));
    if (!(d < INFINITY)) return INFINITY;
    difference = std::max(difference, d);
    size = std::max(size, std::abs(double(std::data(b)[i])));
  }
  return difference == 0 ? 0 : difference / size;
}

/// Views of vectors, so that tests can write down shapes where they call an op.
template <class T, std::size_t Rank>
atmanrl::view<T, int(Rank)> as(std::vector<T>& x, std::ptrdiff_t const (&shape)[Rank]) {
  std::array<atmanrl::index_t, Rank> s;
  std::copy(std::begin(shape), std::end(shape), s.begin());
  return {x.data(), s};
}
template <class T, std::size_t Rank>
atmanrl::view<T const, int(Rank)> as(std::vector<T> const& x, std::ptrdiff_t const (&shape)[Rank]) {
  std::array<atmanrl::index_t, Rank> s;
  std::copy(std::begin(shape), std::end(shape), s.begin());
  return {x.data(), s};
}

}  // namespace atmanrl_test
