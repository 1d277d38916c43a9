#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace rms_norm_test {
namespace {

template <class B, class T>
auto run(B& backend, std::vector<T> const& x, std::vector<T> const& gain, std::vector<T> const& dy) {
  index_t const dim = index_t(gain.size()), rows = index_t(x.size()) / dim;
  std::vector<T> y(x.size()), inv_rms(std::size_t(rows), 0), again(x.size()), dx(x.size(), 1), dgain(gain.size(), 2);
  rms_norm(backend, as(x, {rows, dim}), as(gain, {dim}), real_t<T>(1e-5), as(y, {rows, dim}), as(inv_rms, {rows}));
  rms_norm_recompute(backend, as(x, {rows, dim}), as(gain, {dim}), as(inv_rms, {rows}), as(again, {rows, dim}));
  rms_norm_backward(backend, as(x, {rows, dim}), as(gain, {dim}), as(inv_rms, {rows}), as(dy, {rows, dim}),
                    as(dx, {rows, dim}), as(dgain, {dim}));
  return std::array{y, inv_rms, again, dx, dgain};
}

}  // namespace

TEST_CASE("cpu rms_norm: agrees with plain loops on ragged rows, and recomputing gives the same bits") {
  for (index_t const dim : {1, 3, 16, 17, 64, 576})
    for (index_t const rows : {1, 2, 3, 17, 64}) {
      CAPTURE(dim, rows);
      cpu_backend backend({.threads = 2});
      reference_backend reference;
      auto const x = random_values(rows * dim, 1), gain = random_values(dim, 2), dy = random_values(rows * dim, 3);
      auto const expected = run(reference, x, gain, dy);
      auto const got = run(backend, converted<float>(x), converted<float>(gain), converted<float>(dy));
      for (std::size_t i = 0; i < got.size(); ++i) CHECK(relative_difference(got[i], expected[i]) < 3e-6);
      CHECK(same_bits(got[0], got[2]));
    }
}

TEST_CASE("cpu rms_norm: a row has the same bits alone as in a batch, and all results for any number of threads") {
  index_t const dim = 579, rows = 200;
  auto const x = random_floats(rows * dim, 4), gain = random_floats(dim, 5), dy = random_floats(rows * dim, 6);
  cpu_backend backend({.threads = 2});
  auto const all = run(backend, x, gain, dy);
  for (index_t r : {0, 1, 77, 199}) {
    auto const part = [&](std::vector<float> const& v) {
      return std::vector<float>(v.begin() + r * dim, v.begin() + (r + 1) * dim);
    };
    auto const alone = run(backend, part(x), gain, part(dy));
    CHECK(same_bits(alone[0], part(all[0])));
    CHECK(same_bits(alone[3], part(all[3])));
  }
  for (std::size_t i = 0; i < all.size(); ++i)
    CHECK(same_for_any_threads([&](cpu_backend& b) { return run(b, x, gain, dy)[i]; }));
}

}  // namespace rms_norm_test
