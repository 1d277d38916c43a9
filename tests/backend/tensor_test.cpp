#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/backend/tensor.hpp>

#include "catch.hpp"

#include <cstdint>
#include <vector>

using namespace atmanrl;

namespace {

struct small_backend : reference_backend {
  void* allocate(std::size_t bytes) {
    expects(bytes < 1000, "out of memory: {} bytes wanted", bytes);
    return reference_backend::allocate(bytes);
  }
};

}  // namespace

TEST_CASE("tensor: hands out aligned memory, counts it, and gives it back") {
  reference_backend backend;
  {
    tensor<reference_backend, float, 2> t(backend, {3, 5});
    CHECK(reinterpret_cast<std::uintptr_t>(t.data()) % host_memory::alignment == 0);
    CHECK(backend.allocated_bytes() == 60);
    tensor<reference_backend, float, 2> moved(std::move(t));
    CHECK(moved.size() == 15);
    CHECK(t.size() == 0);
    CHECK(backend.allocated_bytes() == 60);
    moved = tensor<reference_backend, float, 2>(backend, {1, 2});
    CHECK(backend.allocated_bytes() == 8);
  }
  CHECK(backend.allocated_bytes() == 0);
  CHECK(backend.peak_bytes() == 68);
}

TEST_CASE("tensor: keeps its memory when it shrinks and when it grows back") {
  reference_backend backend;
  tensor<reference_backend, double, 1> t(backend, {100});
  double const* const where = t.data();
  t.resize({10});
  CHECK(t.size() == 10);
  CHECK(t.extent(0) == 10);
  t.resize({100});
  CHECK(t.data() == where);
  t.resize({101});
  CHECK(backend.allocated_bytes() == 101 * sizeof(double));
}

TEST_CASE("tensor: values go in and come out") {
  reference_backend backend;
  auto t = tensor<reference_backend, int, 2>::zeros(backend, {2, 2});
  CHECK(t.to_host() == std::vector<int>{0, 0, 0, 0});
  t.assign(std::vector<int>{1, 2, 3, 4});
  CHECK(t.view()(1, 0) == 3);
  CHECK(t.to_host() == std::vector<int>{1, 2, 3, 4});
  CHECK_THROWS_WITH(t.assign(std::vector<int>{1, 2}), ATMANRL_CONTAINS("2 values for a tensor of [2, 2]"));
}

TEST_CASE("tensor: of no elements is allowed, and of no backend cannot be resized") {
  reference_backend backend;
  auto none = tensor<reference_backend, float, 1>::zeros(backend, {0});
  CHECK(none.to_host().empty());
  std::vector<tensor<reference_backend, float, 1>> unbound(1);
  CHECK(unbound[0].size() == 0);
  CHECK_THROWS_AS(unbound[0].resize({3}), shape_error);
  unbound[0].resize(backend, {3});
  CHECK(unbound[0].size() == 3);
}

TEST_CASE("tensor: memory that cannot be had leaves an empty tensor, which can be used again") {
  small_backend backend;
  tensor<small_backend, float, 1> t(backend, {4});
  CHECK_THROWS_WITH(t.resize({index_t{1} << 20}), ATMANRL_CONTAINS("out of memory: 4194304 bytes wanted"));
  CHECK(t.size() == 0);
  CHECK_NOTHROW(t.fill_zero());
  CHECK(t.to_host().empty());
  CHECK(backend.allocated_bytes() == 0);
  t.resize({4});
  CHECK(t.size() == 4);
}

TEST_CASE("tensor: extents whose bytes do not fit 64 bits are an error, not a small allocation") {
  reference_backend backend;
  tensor<reference_backend, double, 2> t(backend, {1, 1});
  CHECK_THROWS_AS(t.resize({index_t{1} << 61, 1}), error);
  CHECK_THROWS_AS(t.resize({index_t{1} << 40, index_t{1} << 40}), error);
  CHECK_THROWS_WITH(t.resize({-1, 4}), ATMANRL_CONTAINS("no tensor can have the extents [-1, 4]"));
}
