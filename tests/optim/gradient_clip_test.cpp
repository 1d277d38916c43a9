#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/optim/gradient_clip.hpp>

#include "catch.hpp"

#include <limits>
#include <vector>

using namespace atmanrl;

namespace gradient_clip_test {
namespace {

double clip(std::vector<double>& g, double max_norm) {
  reference_backend backend;
  return clip_gradient_norm(backend, view<double, 1>(std::span(g)), max_norm);
}

}  // namespace

TEST_CASE("clip_gradient_norm: a longer gradient is scaled by max_norm / (norm + 1e-6), as PyTorch does") {
  std::vector<double> g{3, 0, -4};
  CHECK(clip(g, 2) == 5);
  double const factor = 2 / (5 + 1e-6);
  CHECK(g == std::vector<double>{3 * factor, 0, -4 * factor});
}

TEST_CASE("clip_gradient_norm: a shorter gradient, or one without a limit, stays as it is") {
  std::vector<double> g{3, 0, -4};
  CHECK(clip(g, 5.1) == 5);
  CHECK(clip(g, 0) == 5);
  CHECK(clip(g, -1) == 5);
  CHECK(g == std::vector<double>{3, 0, -4});
}

TEST_CASE("clip_gradient_norm: a norm that is not finite is handed back and nothing is scaled") {
  for (double const bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    std::vector<double> g{1, bad};
    CHECK_FALSE(std::isfinite(clip(g, 0.1)));
    CHECK(g[0] == 1);
  }
}

}  // namespace gradient_clip_test
