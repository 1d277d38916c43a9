#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace embedding_test {

TEMPLATE_TEST_CASE("cpu embedding: rows come out of the panels as they went in", "", float, bf16) {
  for (index_t const dim : {1, 7, 64}) {
    index_t const vocabulary = 75;
    cpu_backend backend({.threads = 2});
    weight<cpu_backend, TestType> table(backend, vocabulary, dim);
    auto const rows = random_floats(vocabulary * dim, 1);
    table.assign_rows(backend, 0, as(rows, {vocabulary, dim}));
    std::vector<int> const ids{0, 74, 31, 32, 31, 5};
    std::vector<float> y(ids.size() * std::size_t(dim));
    embed(backend, std::span(ids), table.view(), as(y, {index_t(ids.size()), dim}));
    for (std::size_t r = 0; r < ids.size(); ++r)
      for (index_t c = 0; c < dim; ++c)
        CHECK(y[r * std::size_t(dim) + std::size_t(c)] == float(TestType(rows[std::size_t(ids[r] * dim + c)])));
  }
}

TEST_CASE("cpu embedding: gathering and adding rows agree with plain loops, repeated rows in ascending order") {
  index_t const dim = 45, rows = 300;
  auto const x = random_floats(40 * dim, 2), dy = random_floats(rows * dim, 3);
  std::vector<int> all_ids;
  for (index_t r = 0; r < rows; ++r) all_ids.push_back(int(r * r % 40));
  std::span<int const> const ids = all_ids;
  reference_backend reference;
  std::vector<float> expected(dy.size()), expected_sum = x;
  gather_rows(reference, as(x, {40, dim}), ids, as(expected, {rows, dim}));
  add_rows(reference, as(dy, {rows, dim}), ids, as(expected_sum, {40, dim}));
  for (int const threads : {1, 2, 3}) {
    cpu_backend backend({.threads = threads});
    std::vector<float> got(dy.size()), sum = x;
    gather_rows(backend, as(x, {40, dim}), ids, as(got, {rows, dim}));
    CHECK(same_bits(got, expected));
    add_rows(backend, as(dy, {rows, dim}), ids, as(sum, {40, dim}));
    CHECK(same_bits(sum, expected_sum));
  }
}

}  // namespace embedding_test
