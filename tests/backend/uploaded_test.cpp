// Arrays that the host writes and a backend reads.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/backend/uploaded.hpp>

#include "catch.hpp"

#include <vector>

namespace uploaded_test {
using namespace atmanrl;

TEST_CASE("uploaded: values that are there are not sent again, unless the backend has taken the array over") {
  reference_backend backend;
  uploaded<reference_backend, int> x;
  std::vector<int> const values{1, 2, 3};
  x.assign(backend, values);
  int* const there = x.taken_over().data();
  x.assign(backend, values);
  there[1] = 7;  // behind its back
  x.assign(backend, values);
  CHECK(x.cview()(1) == 7);
  x.taken_over()(2) = 8;
  x.assign(backend, values);
  CHECK(std::vector<int>(there, there + 3) == values);
}

}  // namespace uploaded_test
