#include <atmanrl/core/view.hpp>

#include "catch.hpp"

#include <numeric>
#include <vector>

using namespace atmanrl;

namespace view_test {

TEST_CASE("view: is row-major, and rows, reshaped and const views see the same elements") {
  std::vector<int> data(24);
  std::iota(data.begin(), data.end(), 0);
  view<int, 3> const v(data.data(), {2, 3, 4});
  CHECK(v(1, 2, 3) == 23);
  CHECK(v(1, 0, 1) == 13);
  CHECK(v.size() == 24);
  CHECK(v.row_size() == 12);
  CHECK(v.row(1) == data.data() + 12);
  view<int, 3> const second = v.rows(1, 1);
  CHECK(second.shape() == std::array<index_t, 3>{1, 3, 4});
  CHECK(second(0, 0, 0) == 12);
  view<int const, 2> const flat = v.reshaped<2>({6, 4});
  CHECK(flat(5, 3) == 23);
  v(0, 1, 2) = -1;
  CHECK(flat(1, 2) == -1);
}

TEST_CASE("view: a default view is empty, and a span becomes a view of rank 1") {
  CHECK(view<float, 2>().empty());
  CHECK(view<float, 2>().data() == nullptr);
  std::vector<float> x{1, 2, 3};
  view<float, 1> const v = std::span<float>(x);
  CHECK(v.extent(0) == 3);
  CHECK(v(2) == 3);
}

}  // namespace view_test
