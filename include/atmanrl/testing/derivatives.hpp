#pragma once

/// \file
/// Derivatives from values alone, for checks of derivatives that somebody wrote: the complex step, which is exact where
/// a function takes complex numbers, and difference quotients for the others.

#include <atmanrl/core/random.hpp>
#include <atmanrl/core/view.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <cstddef>
#include <initializer_list>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

using complex = std::complex<double>;

/// Standard normal numbers times `scale`, a function of the seed alone.
inline std::vector<double> random_values(std::ptrdiff_t count, unsigned seed, double scale = 1) {
  random_stream draw(seed, 77);
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

/// Gradient at x of `loss`, which takes a std::vector<complex> const& and returns a complex: imag f(x + ih) / h with
/// h = 1e-50 (Squire & Trapp 1998) has no cancellation, so a derivative in double must agree with it to rounding.
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

/// f'(0) from four values in double; the error is h⁴ f⁽⁵⁾(0) / 30 and the rounding of f by h.
template <class F>
double difference_quotient(F&& f, double h = 1e-3) {
  return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h);
}

/// What a derivative at 0 may be: the slopes on both sides of the point, which differ where the function has a kink.
struct slopes {
  double below, above;

  /// Whether `derivative` lies between the two, give or take `tolerance`: at a kink every slope between them is one.
  bool allow(double derivative, double tolerance) const {
    return derivative >= std::min(below, above) - tolerance && derivative <= std::max(below, above) + tolerance;
  }
  double mean() const { return (below + above) / 2; }
};

/// Of second order on each side: three values each, so that a curved function is not taken for a kink.
template <class F>
slopes slopes_of(F&& f, double h) {
  double const here = f(0.0);
  return {(3 * here - 4 * f(-h) + f(-2 * h)) / (2 * h), (-3 * here + 4 * f(h) - f(2 * h)) / (2 * h)};
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

/// Views of vectors, so that tests can write down shapes where they call an operation.
template <class T, std::size_t Rank>
view<T, int(Rank)> as(std::vector<T>& x, std::ptrdiff_t const (&shape)[Rank]) {
  return {x.data(), std::to_array(shape)};
}
template <class T, std::size_t Rank>
view<T const, int(Rank)> as(std::vector<T> const& x, std::ptrdiff_t const (&shape)[Rank]) {
  return {x.data(), std::to_array(shape)};
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
