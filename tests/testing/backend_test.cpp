// The library's backends and a stranger's keep what check_backend asks for; a backend whose kernels are wrong in one
// place after the other, and the sentence about each.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/testing/backend.hpp>

#include "catch.hpp"
#include "strangers.hpp"

#include <concepts>

using namespace atmanrl;

namespace backend_test {

enum class fault { none, keeps_half, matmul, rope, attention, sampling };

/// The stranger's backend, which computes as plain loops do, with one mistake.
struct faulty_backend : strangers::dirty_backend {
  static constexpr std::string_view name = "faulty";
  fault wrong = fault::none;

  void copy_from_host(void* to, void const* from, std::size_t bytes) {
    strangers::dirty_backend::copy_from_host(to, from, wrong == fault::keeps_half ? bytes / 2 : bytes);
  }
};

}  // namespace backend_test

namespace atmanrl::kernels {

using backend_test::fault;
using backend_test::faulty_backend;

template <>
struct matmul<faulty_backend> : matmul<reference_backend> {
  using loops = matmul<reference_backend>;
  template <class W>
  static weight_view<reference_backend, W> plain(weight_view<faulty_backend, W> w) {
    return {w.data, w.outputs, w.inputs};
  }
  template <class W, class T>
  static void assign_rows(faulty_backend& b, weight_view<faulty_backend, W> w, index_t first, view<T const, 2> rows) {
    loops::assign_rows(b, plain(w), first, rows);
  }
  template <class W, class T>
  static void read_rows(faulty_backend& b, weight_view<faulty_backend, W> w, index_t first, view<T, 2> rows) {
    loops::read_rows(b, plain(w), first, rows);
  }
  template <class W, class T>
  static void forward(faulty_backend& b, view<T const, 2> x, weight_view<faulty_backend, W> w, view<T, 2> y, bool add) {
    loops::forward(b, x, plain(w), y, add && b.wrong != fault::matmul);
  }
  template <class W, class T>
  static void backward_input(faulty_backend& b, view<T const, 2> dy, weight_view<faulty_backend, W> w, view<T, 2> dx,
                             bool add) {
    loops::backward_input(b, dy, plain(w), dx, add);
  }
};
template <>
struct embedding<faulty_backend> : embedding<reference_backend> {
  template <class W, class T>
  static void forward(faulty_backend& b, view<int const, 1> ids, weight_view<faulty_backend, W> table, view<T, 2> y) {
    embedding<reference_backend>::forward(b, ids, matmul<faulty_backend>::plain(table), y);
  }
};
template <>
struct rope<faulty_backend> : rope<reference_backend> {
  template <class T, class Real>
  static void apply(faulty_backend& b, view<T, 3> x, index_t heads, view<int const, 1> positions,
                    view<Real const, 2> cosine, view<Real const, 2> sine, bool inverse) {
    rope<reference_backend>::apply(b, x, heads, positions, cosine, sine, inverse && b.wrong != fault::rope);
  }
};
template <>
struct attention<faulty_backend> : attention<reference_backend> {
  template <class T, class K, class Params>
  static void forward(faulty_backend& b, attention_extents const& e, view<T const, 3> qkv, view<K const, 3> keys,
                      view<K const, 3> values, attention_plan<> const& plan, Params params, T const* parameters,
                      view<T, 3> out, view<T, 2> lse) {
    auto extents = e;
    if (b.wrong == fault::attention) extents.layer = 0;  // the edit of another layer
    attention<reference_backend>::forward(b, extents, qkv, keys, values, plan, params, parameters, out, lse);
  }
};
template <>
struct sample<faulty_backend> : sample<reference_backend> {
  template <class T>
  static void draw(faulty_backend& b, view<T const, 2> logits, view<int const, 1> rows,
                   view<std::uint64_t const, 1> shares, double temperature, sample_form const& form, view<int, 1> ids) {
    sample<reference_backend>::draw(b, logits, rows, shares, b.wrong == fault::sampling ? 1.0 : temperature, form, ids);
  }
  template <class T>
  static void score(faulty_backend& b, view<T const, 2> logits, view<int const, 1> rows, view<int const, 1> ids,
                    double temperature, view<T, 1> log_p, view<T, 1> entropy) {
    sample<reference_backend>::score(b, logits, rows, ids, temperature, log_p, entropy);
  }
};

// clang-format off
template <> struct elementwise<faulty_backend> : elementwise<reference_backend> {};
template <> struct log_prob<faulty_backend> : log_prob<reference_backend> {};
template <> struct rms_norm<faulty_backend> : rms_norm<reference_backend> {};
template <> struct swiglu<faulty_backend> : swiglu<reference_backend> {};
// clang-format on

}  // namespace atmanrl::kernels

namespace backend_test {

TEMPLATE_TEST_CASE("check_backend: the library's backends and a stranger's have all operations", "", reference_backend,
                   cpu_backend, strangers::dirty_backend) {
  TestType backend;
  testing::check_backend(backend);
  if constexpr (!std::same_as<TestType, cpu_backend>)  // which computes in float alone
    testing::check_backend<double>(backend, {.tolerance = 1e-12});
  testing::check_gated(backend);
  testing::check_mean_attention(backend);
  testing::check_optimizer_steps(backend);
  testing::check_sampling(backend);
}

TEST_CASE("check_backend: a mistake is named with its operation, output, place and numbers") {
  faulty_backend backend;
  testing::check_backend(backend);
  testing::check_sampling(backend);
  auto const with = [&](fault f) -> faulty_backend& {
    backend.wrong = f;
    return backend;
  };
  CHECK_THROWS_WITH(testing::check_backend(with(fault::keeps_half)),
                    ATMANRL_CONTAINS("faulty: 1001 numbers are others when they come back from its memory"));
  CHECK_THROWS_WITH(testing::check_backend(with(fault::matmul)),
                    ATMANRL_CONTAINS("faulty: y that is added to of matmul differs from plain loops by") &&
                        ATMANRL_CONTAINS("of its size: element"));
  CHECK_THROWS_WITH(testing::check_backend(with(fault::rope)), ATMANRL_CONTAINS("x that is turned back of rope"));
  CHECK_THROWS_WITH(testing::check_backend(with(fault::attention)),
                    ATMANRL_CONTAINS("the output of attention under an edit differs"));
  CHECK_THROWS_WITH(testing::check_sampling(with(fault::sampling)), ATMANRL_CONTAINS("the drawn tokens of sampling"));
}

}  // namespace backend_test
