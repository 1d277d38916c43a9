#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/nn/kv_cache.hpp>

#include "catch.hpp"

using namespace atmanrl;

namespace kv_cache_test {
namespace {

model_config shape() {
  model_config c;
  c.layers = 2;
  c.kv_heads = 2;
  c.head_dim = 3;
  return c;
}

struct cache_test {
  reference_backend backend;
  kv_cache<reference_backend, float> cache{backend, shape(), 10};
};

}  // namespace

TEST_CASE_METHOD(cache_test, "kv_cache: a child begins where its view of the parent ends") {
  int const root = cache.add_sequence(4);
  cache.extend(root, 4);
  int const whole = cache.add_child(root, 4, 2), fork = cache.add_child(root, 2, 2);
  CHECK(cache.length(root) == 4);
  CHECK(cache.length(whole) == 4);
  CHECK(cache.length(fork) == 2);
  cache.extend(fork, 2);
  CHECK(cache.length(fork) == 4);
  CHECK(cache.at(fork).parent == root);
  CHECK(cache.at(root).children == 2);
  CHECK_THROWS_WITH(cache.add_child(root, 5, 1), ATMANRL_CONTAINS("5 positions") && ATMANRL_CONTAINS("can hold 4"));
  CHECK_THROWS_AS(cache.add_child(root, 0, 1), shape_error);
  CHECK_THROWS_AS(cache.add_child(99, 1, 1), shape_error);
}

TEST_CASE_METHOD(cache_test, "kv_cache: truncate forgets positions, but none that a child sees or an ancestor owns") {
  int const root = cache.add_sequence(6);
  cache.extend(root, 5);
  cache.truncate(root, 3);
  CHECK(cache.length(root) == 3);
  cache.extend(root, 3);
  int const child = cache.add_child(root, 4, 2);
  cache.extend(child, 1);
  CHECK_THROWS_WITH(cache.truncate(root, 3), ATMANRL_CONTAINS("child 1 sees 4"));
  cache.truncate(root, 4);
  CHECK(cache.length(root) == 4);
  CHECK_THROWS_WITH(cache.truncate(child, 3), ATMANRL_CONTAINS("[4, 5)"));
  CHECK_THROWS_AS(cache.truncate(child, 6), shape_error);
  cache.truncate(child, 4);
  CHECK(cache.length(child) == 4);
}

TEST_CASE_METHOD(cache_test, "kv_cache: released rows are used again, in pieces that have grown together") {
  int const a = cache.add_sequence(3), b = cache.add_sequence(3), c = cache.add_sequence(4);
  CHECK_THROWS_AS(cache.add_sequence(1), usage_error);
  cache.release(a);
  cache.release(c);
  CHECK_THROWS_WITH(cache.add_sequence(5), ATMANRL_CONTAINS("10 rows") && ATMANRL_CONTAINS("4 are free in one piece") &&
                                               ATMANRL_CONTAINS("sequence of 5"));
  int const d = cache.add_sequence(4);
  CHECK(cache.at(d).first_row == 6);
  cache.release(d);
  cache.release(b);
  CHECK(cache.at(cache.add_sequence(10)).first_row == 0);
}

TEST_CASE_METHOD(cache_test, "kv_cache: a parent cannot be released before its children, and no sequence twice") {
  int const root = cache.add_sequence(2), child = cache.add_child(root, 2, 2);
  CHECK_THROWS_WITH(cache.release(root), ATMANRL_CONTAINS("1 children"));
  cache.release(child);
  CHECK_THROWS_AS(cache.release(child), shape_error);
  CHECK_THROWS_AS(cache.length(child), shape_error);
  cache.release(root);
  CHECK_THROWS_AS(cache.at(root), shape_error);
}

TEST_CASE_METHOD(cache_test, "kv_cache: a sequence does not grow beyond its rows") {
  int const root = cache.add_sequence(3);
  cache.extend(root, 2);
  CHECK_THROWS_WITH(cache.extend(root, 2), ATMANRL_CONTAINS("room for 3 positions, 2 are there and 2 more"));
  CHECK(cache.length(root) == 2);
  CHECK_THROWS_AS(cache.add_sequence(0), shape_error);
}

TEST_CASE_METHOD(cache_test, "kv_cache: it belongs to one version of one model until it is cleared") {
  int model = 0, other = 0;
  cache.add_sequence(2);
  cache.bind(&model, 3);
  cache.bind(&model, 3);
  CHECK_THROWS_WITH(cache.bind(&model, 4), ATMANRL_CONTAINS("version 3") && ATMANRL_CONTAINS("version 4"));
  CHECK_THROWS_AS(cache.bind(&other, 3), shape_error);
  cache.clear();
  cache.bind(&other, 4);
  CHECK_THROWS_AS(cache.length(0), shape_error);
}

TEST_CASE("kv_cache: 16-bit storage is refused where it does not belong") {
  reference_backend backend;
  CHECK_THROWS_AS((kv_cache<reference_backend, double>(backend, shape(), 10, kv_storage::bf16)), usage_error);
  kv_cache<reference_backend, float> half(backend, shape(), 10, kv_storage::bf16);
  int const model = 0;
  CHECK_THROWS_WITH(half.bind(&model, 1),
                    ATMANRL_CONTAINS("the cache stores bf16, but the model's keys and values are full scalars"));
  CHECK_NOTHROW(half.bind(&model, 1, false, kv_storage::bf16));
}

TEST_CASE("kv_cache: reset makes room for more or fewer rows and allocates for more alone") {
  reference_backend backend;
  kv_cache<reference_backend, float> cache(backend, shape(), 10);
  cache.add_sequence(10);
  cache.reset(4);
  CHECK(cache.capacity() == 4);
  CHECK(cache.add_sequence(4) == 0);
  CHECK(backend.allocated_bytes() == kv_cache<reference_backend, float>::bytes(shape(), 10));
  CHECK_THROWS_AS(cache.add_sequence(1), usage_error);
  cache.reset(12);
  CHECK_NOTHROW(cache.add_sequence(12));
  CHECK(backend.allocated_bytes() == kv_cache<reference_backend, float>::bytes(shape(), 12));
}

TEST_CASE("kv_cache: bytes() is what the constructor takes") {
  reference_backend backend;
  kv_cache<reference_backend, float> const cache(backend, shape(), 10);
  CHECK(backend.allocated_bytes() == kv_cache<reference_backend, float>::bytes(shape(), 10));
  reference_backend other;
  kv_cache<reference_backend, float> const half(other, shape(), 10, kv_storage::bf16);
  CHECK(other.allocated_bytes() == kv_cache<reference_backend, float>::bytes(shape(), 10, kv_storage::bf16));
  CHECK(2 * other.allocated_bytes() == backend.allocated_bytes());
  CHECK(backend.allocated_bytes() == 2 * 2 * 10 * 2 * 3 * sizeof(float));
  CHECK_THROWS_AS((kv_cache<reference_backend, float>(backend, shape(), 0)), shape_error);
}

}  // namespace kv_cache_test
