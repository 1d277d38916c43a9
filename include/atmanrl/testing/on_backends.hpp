#pragma once

/// \file
/// The same lines on any backend: a function of backend and scalar makes its inputs with `inputs` and hands back its
/// outputs on the host, so that two backends can be compared.

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/testing/broken_promise.hpp>
#include <atmanrl/testing/derivatives.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// Tensors with the same contents on every backend: a function of shape and seed, rounded to float.
template <class B, class T>
class inputs {
 public:
  explicit inputs(B& backend) : backend_(backend) {}

  template <std::size_t Rank>
  tensor<B, T, int(Rank)> random(index_t const (&shape)[Rank], unsigned seed, double scale = 1) const {
    auto t = empty(shape);
    std::vector<T> values;
    for (double const x : random_values(t.size(), seed, scale)) values.push_back(T(float(x)));
    t.assign(values);
    return t;
  }
  template <std::size_t Rank>
  tensor<B, T, int(Rank)> empty(index_t const (&shape)[Rank]) const {
    return {backend_, std::to_array(shape)};
  }
  tensor<B, int, 1> ids(std::vector<int> const& values) const { return array(values); }
  /// Anything that plans are made of.
  template <class U>
  tensor<B, U, 1> array(std::vector<U> const& values) const {
    tensor<B, U, 1> t(backend_, {index_t(values.size())});
    t.assign(values);
    return t;
  }

 private:
  B& backend_;
};

template <class Tensor>
std::vector<double> host(Tensor const& t) {
  std::vector<double> all;
  for (auto const x : t.to_host()) all.push_back(double(x));
  return all;
}

struct backend_check {
  double tolerance = 2e-5;  ///< how far results may be from those of plain loops in double, as a share of the largest
  std::vector<index_t> head_dims{4, 32};  ///< dimensions of heads that its attention is compiled for
};

/// An output of an operation, on the host.
struct operation_output {
  std::string_view name;
  std::vector<double> values;
};
using operation_outputs = std::vector<operation_output>;

/// Compares f(backend, T) with f(reference_backend, double), output by output.
/// \throws broken_promise
template <class T, Backend B, class F>
void compare_with_plain_loops(B& backend, std::string_view operation, F const& f, backend_check const& options = {}) {
  reference_backend plain;
  operation_outputs const expected = f(plain, double{}), got = f(backend, T{});
  for (std::size_t o = 0; o < expected.size(); ++o) {
    auto const &a = got[o].values, &b = expected[o].values;
    if (relative_difference(a, b) <= options.tolerance) continue;
    std::size_t worst = 0;
    for (std::size_t i = 0; i < b.size(); ++i)
      if (!(std::abs(a[i] - b[i]) <= std::abs(a[worst] - b[worst]))) worst = i;
    fail<broken_promise>(
        "{}: {} of {} differs from plain loops by {:.3g} of its size: element {} is {:.6g} and not {:.6g}",
        std::string_view(B::name), expected[o].name, operation, relative_difference(a, b), worst, a[worst], b[worst]);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
