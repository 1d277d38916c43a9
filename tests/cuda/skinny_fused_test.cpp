// What products of few rows do in their kernels besides: the activation of a gated layer, and the rotation of queries
// and keys on the way into the cache. To the bits of the product and a kernel after it, and as plain loops have it.
#include <atmanrl/ops/matmul_gated.hpp>
#include <atmanrl/ops/matmul_rope_append.hpp>

#include "cuda/skinny_problem.hpp"

#include <algorithm>
#include <cmath>

namespace skinny_fused_test {
using namespace skinny_problems;

namespace {

/// Launches of kernels and products of cuBLAS.
struct calls {
  std::uint64_t kernels = 0, products = 0;
  friend bool operator==(calls const&, calls const&) = default;
};
#if defined(ATMANRL_CUDA_EMULATION)
constexpr bool calls_are_counted = true;
calls calls_of(auto const& run) {
  auto& of = cuda_emulation::calls().by_name;
  calls const before{of["cudaLaunchKernelEx"], of["cublasGemmStridedBatchedEx"]};
  run();
  return {of["cudaLaunchKernelEx"] - before.kernels, of["cublasGemmStridedBatchedEx"] - before.products};
}
#else
constexpr bool calls_are_counted = false;
calls calls_of(auto const& run) {
  run();
  return {};
}
#endif

/// An activation whose arguments do not change places, and which is exact of small whole numbers.
struct less_up {
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T gate, T up) const {
    return gate - up * T(2);
  }
};

/// What a gated layer makes of its product, whose first half of outputs is the gate's, and how.
struct activated {
  std::vector<bf16> y;
  std::vector<float> product;  ///< 7 where it is nowhere but in registers
  calls counted;

  bool in_one() const {
    return std::all_of(product.begin(), product.end(), [](float v) { return v == 7; });
  }
};
/// \param activate  `void(backend, x, w, scratch for the product, y)`
activated activated_by(cuda_backend& b, problem const& p, auto const& activate) {
  auto const w = weight_of(b, p);
  auto const x = on_device(b, p.rows, p.inputs, p.x);
  index_t const ffn = p.outputs / 2;
  auto product = on_device(b, p.rows, p.outputs, std::vector<float>(std::size_t(p.rows * p.outputs), 7.0f));
  auto y = on_device(b, p.rows, ffn, std::vector<bf16>(std::size_t(p.rows * ffn), bf16(7.0f)));
  auto const counted = calls_of([&] { activate(b, x.cview(), w.view(), product.view(), y.view()); });
  return {y.to_host(), product.to_host(), counted};
}

constexpr auto swiglu_in_one = [](auto& b, auto x, auto w, auto product, auto y) {
  matmul_and_swiglu(b, x, w, product, y);
};
constexpr auto swiglu_in_two = [](auto& b, auto x, auto w, auto product, auto y) {
  matmul(b, x, w, product);
  swiglu(b, product, y);
};
constexpr auto less_up_in_one = [](auto& b, auto x, auto w, auto product, auto y) {
  matmul_and_gated(b, less_up{}, x, w, product, y);
};
constexpr auto less_up_in_two = [](auto& b, auto x, auto w, auto product, auto y) {
  matmul(b, x, w, product);
  gated(b, less_up{}, product, y);
};

}  // namespace

TEST_CASE("cuda skinny activation: in the product's kernel it has the bits of one after it, and writes nothing else") {
  cuda_backend device({.skinny_products = true});
  for (index_t const inputs : some_inputs)
    for (index_t const ffn : {1, 7, 8, 9, 20}) {
      index_t const rows = 1 + (inputs / 8 + 3 * ffn) % 16;
      CAPTURE(rows, ffn, inputs);
      problem const p = random_problem(rows, 2 * ffn, inputs);
      auto const swiglu_one = activated_by(device, p, swiglu_in_one),
                 less_one = activated_by(device, p, less_up_in_one);
      CHECK(swiglu_one.y == activated_by(device, p, swiglu_in_two).y);
      CHECK(less_one.y == activated_by(device, p, less_up_in_two).y);
      CHECK(swiglu_one.in_one());
      CHECK(less_one.in_one());
    }
  problem const p = random_problem(11, 42, 520);
  CHECK(same_in_every_thread_order([&] { return activated_by(device, p, swiglu_in_one).y; }));
}

TEST_CASE(
    "cuda skinny activation: in the product's kernel it is that of the plain loop's sums, for every row and column") {
  cuda_backend device({.skinny_products = true});
  for (index_t rows = 1; rows <= 16; ++rows) {
    index_t const ffn = 3 + rows, inputs = 8 * rows + 24;
    CAPTURE(rows, ffn, inputs);
    problem const p = exact_problem(rows, 2 * ffn, inputs);  // so no sum is rounded
    auto const sums = of_each(p, exactly);
    auto const less = activated_by(device, p, less_up_in_one).y, swiglu = activated_by(device, p, swiglu_in_one).y;
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < ffn; ++c) {
        float const gate = sums[std::size_t(2 * r * ffn + c)], up = sums[std::size_t((2 * r + 1) * ffn + c)];
        auto const at = std::size_t(r * ffn + c);
        CHECK(less[at] == bf16(gate - 2 * up));
        double const expected = double(gate) / (1 + std::exp(-double(gate))) * double(up);
        // Half a unit of bf16's last place and a little of float's; the exponential may overflow, below -88.
        CHECK(std::abs(double(float(swiglu[at])) - expected) <= 0x1.01p-8 * std::abs(expected) + 1e-30);
      }
  }
}

TEST_CASE("cuda skinny activation: a row has the same bits in every place") {
  cuda_backend device({.skinny_products = true});
  problem const p = random_problem(16, 38, 584);
  auto const all = activated_by(device, p, swiglu_in_one).y;
  for (index_t rows = 1; rows < 16; ++rows)
    for (index_t const first : {index_t{0}, 16 - rows}) {
      CAPTURE(rows, first);
      problem const some{rows, p.outputs, p.inputs, {p.row(first), p.row(first) + rows * p.inputs}, p.w};
      auto const begin = all.begin() + first * 19;
      CHECK(activated_by(device, some, swiglu_in_one).y == std::vector(begin, begin + rows * 19));
    }
}

TEST_CASE("cuda skinny activation: it is a kernel of its own where the product is another's") {
  cuda_backend asked({.skinny_products = true}), not_asked;
  auto const check = [](cuda_backend& b, problem const& p, bool in_one) {
    CAPTURE(p.rows, p.inputs);
    for (auto const& [one, two] : {std::pair(activated_by(b, p, swiglu_in_one), activated_by(b, p, swiglu_in_two)),
                                   std::pair(activated_by(b, p, less_up_in_one), activated_by(b, p, less_up_in_two))}) {
      CHECK(one.y == two.y);
      CHECK(one.in_one() == in_one);
      if (calls_are_counted) CHECK(one.counted == calls{1, in_one ? 0u : 1u});
    }
  };
  check(asked, random_problem(16, 10, 16), true);
  check(asked, random_problem(17, 10, 16), false);
  check(asked, random_problem(16, 10, 12), false);
  check(not_asked, random_problem(16, 10, 16), false);
  problem const p = random_problem(4, 10, 16);
  CHECK_THROWS_AS(activated_by(asked, p,
                               [](auto& b, auto x, auto w, auto product, auto y) {
                                 matmul_and_swiglu(b, x, w.rows(0, 8), product, y);
                               }),
                  shape_error);
}

namespace {

/// Where a projection of queries, keys and values goes. Caches have rows that nobody writes; numbers that are not
/// written are 7.
template <class K>
struct rotated {
  std::vector<float> qkv;
  std::vector<K> keys, values;
  calls counted;
};

index_t const cached_rows = 40, table_rows = 9;
/// Of a row: distinct ones of the cache, and places in the tables.
int cache_row(index_t r) { return int(r * 7 % cached_rows); }
int position(index_t r) { return int((5 * r + 3) % table_rows); }
std::vector<float> table(index_t half, unsigned seed) {
  std::vector<float> t;
  for (double const v : random_values(table_rows * half, seed)) t.push_back(float(v));
  return t;
}

/// \param rotate  `void(backend, extents, x, w, qkv, positions, cosine, sine, cache rows, keys, values)`
template <class K>
rotated<K> rotated_by(cuda_backend& b, problem const& p, attention_extents const& e, auto const& rotate) {
  inputs<cuda_backend, float> const in(b);
  auto const w = weight_of(b, p);
  auto const x = on_device(b, p.rows, p.inputs, p.x);
  std::vector<int> at, places;
  for (index_t r = 0; r < p.rows; ++r) at.push_back(cache_row(r)), places.push_back(position(r));
  auto const cache_rows = in.ids(at), positions = in.ids(places);
  auto const cosine = on_device(b, table_rows, e.head_dim / 2, table(e.head_dim / 2, 5)),
             sine = on_device(b, table_rows, e.head_dim / 2, table(e.head_dim / 2, 6));
  tensor<cuda_backend, float, 3> qkv(b, {p.rows, e.heads + 2 * e.kv_heads, e.head_dim});
  qkv.assign(std::vector<float>(std::size_t(qkv.size()), 7.0f));
  tensor<cuda_backend, K, 3> keys(b, {cached_rows, e.kv_heads, e.head_dim}), values(b, keys.shape());
  for (auto* const cache : {&keys, &values}) cache->assign(std::vector<K>(std::size_t(keys.size()), K(7.0f)));
  auto const counted = calls_of([&] {
    rotate(b, e, x.cview(), w.view(), qkv.view(), positions.cview(), cosine.cview(), sine.cview(), cache_rows.cview(),
           keys.view(), values.view());
  });
  return {qkv.to_host(), keys.to_host(), values.to_host(), counted};
}
constexpr auto rotated_in_one = [](auto& b, auto& e, auto x, auto w, auto qkv, auto... where) {
  matmul_rope_and_append(b, e, x, w, qkv, where...);
};
constexpr auto rotated_in_two = [](auto& b, auto& e, auto x, auto w, auto qkv, auto... where) {
  matmul(b, x, w, qkv.template reshaped<2>({qkv.extent(0), qkv.extent(1) * qkv.extent(2)}));
  rope_and_append(b, e, qkv, where...);
};
attention_extents heads_of(index_t kv_heads, index_t half) {
  return {.heads = 2 * kv_heads, .kv_heads = kv_heads, .head_dim = 2 * half};
}

/// The same queries, keys and values; whether keys and values are in the caches alone.
template <class K>
bool check_rotated(cuda_backend& b, problem const& p, attention_extents const& e) {
  auto const one = rotated_by<K>(b, p, e, rotated_in_one), two = rotated_by<K>(b, p, e, rotated_in_two);
  CHECK(one.keys == two.keys);
  CHECK(one.values == two.values);
  bool in_one = true;
  index_t const queries = e.heads * e.head_dim, width = p.outputs;
  for (index_t r = 0; r < p.rows; ++r) {
    auto const begin = one.qkv.begin() + r * width;
    CHECK(bits({begin, begin + queries}) == bits({two.qkv.begin() + r * width, two.qkv.begin() + r * width + queries}));
    in_one = in_one && std::all_of(begin + queries, begin + width, [](float v) { return v == 7; });
  }
  if (calls_are_counted) CHECK(one.counted == (in_one ? calls{1, 0} : two.counted));
  return in_one;
}

}  // namespace

TEMPLATE_TEST_CASE("cuda skinny rotation: in the product's kernel it has the bits of one after it, in the cache, too",
                   "", float, bf16) {
  cuda_backend device({.skinny_products = true});
  for (index_t const half : {8, 64})
    for (index_t const kv_heads : {1, 3})
      for (index_t const rows : {1, 8, 13}) {
        CAPTURE(half, kv_heads, rows);
        attention_extents const e = heads_of(kv_heads, half);
        CHECK(check_rotated<TestType>(device, random_problem(rows, 4 * kv_heads * 2 * half, 8 * rows + 40), e));
      }
  auto const e = heads_of(2, 8);
  problem const p = random_problem(11, 128, 520);
  CHECK(same_in_every_thread_order([&] { return rotated_by<TestType>(device, p, e, rotated_in_one).qkv; }));
  CHECK(same_in_every_thread_order([&] { return rotated_by<TestType>(device, p, e, rotated_in_one).keys; }));
}

TEST_CASE("cuda skinny rotation: in the product's kernel it is that of the plain loop's sums") {
  cuda_backend device({.skinny_products = true});
  index_t const rows = 11, half = 16;
  attention_extents const e = heads_of(2, half);
  problem const p = exact_problem(rows, 8 * 2 * half, 72);  // so no sum is rounded
  auto const sums = of_each(p, exactly), cosine = table(half, 5), sine = table(half, 6);
  auto const got = rotated_by<bf16>(device, p, e, rotated_in_one);
  std::vector<bf16> keys(got.keys.size(), bf16(7.0f)), values = keys;
  for (index_t r = 0; r < rows; ++r)
    for (index_t head = 0; head < 8; ++head)
      for (index_t i = 0; i < half; ++i) {
        std::size_t const at = std::size_t((r * 8 + head) * 2 * half + i), other = at + std::size_t(half),
                          angle = std::size_t(position(r) * half + i);
        double const a = sums[at], b = sums[other], c = cosine[angle], s = sine[angle];
        auto const into = [&](std::vector<bf16>& cache, index_t first, double x, double y) {
          std::size_t const to = std::size_t((cache_row(r) * 2 + head - first) * 2 * half + i);
          cache[to] = bf16(float(x)), cache[to + std::size_t(half)] = bf16(float(y));
        };
        if (head < 4) {
          CHECK(std::abs(double(got.qkv[at]) - (a * c - b * s)) <= 0x1p-22 * (std::abs(a * c) + std::abs(b * s)));
          CHECK(std::abs(double(got.qkv[other]) - (b * c + a * s)) <= 0x1p-22 * (std::abs(b * c) + std::abs(a * s)));
        } else if (head < 6) {
          into(keys, 4, a * c - b * s, b * c + a * s);
        } else {
          into(values, 6, a, b);
        }
      }
  CHECK(got.values == values);
  for (std::size_t i = 0; i < keys.size(); ++i)  // two roundings of the float may decide between neighbours
    CHECK(std::abs(float(got.keys[i]) - float(keys[i])) <= 0x1p-7f * std::abs(float(keys[i])) + 1e-4f);
}

TEST_CASE("cuda skinny rotation: it is a kernel of its own where the product is another's, or halves are no eights") {
  cuda_backend asked({.skinny_products = true}), not_asked;
  auto const check = [](cuda_backend& b, index_t rows, index_t half, index_t inputs) {
    CAPTURE(rows, half, inputs);
    return check_rotated<float>(b, random_problem(rows, 4 * 2 * half, inputs), heads_of(1, half));
  };
  CHECK(check(asked, 16, 8, 16));
  CHECK_FALSE(check(asked, 17, 8, 16));
  CHECK_FALSE(check(asked, 16, 8, 12));
  CHECK_FALSE(check(asked, 16, 4, 16));
  CHECK_FALSE(check(asked, 16, 12, 16));
  CHECK_FALSE(check(not_asked, 16, 8, 16));
  problem const p = random_problem(4, 4 * 16, 16);
  auto const with = [&](auto const& change) {
    rotated_by<float>(asked, p, heads_of(1, 8),
                      [&](auto& b, auto& e, auto x, auto w, auto qkv, auto positions, auto cosine, auto sine,
                          auto cache_rows, auto keys, auto values) {
                        change(positions, cosine, cache_rows);
                        matmul_rope_and_append(b, e, x, w, qkv, positions, cosine, sine, cache_rows, keys, values);
                      });
  };
  CHECK_NOTHROW(with([](auto&, auto&, auto&) {}));
  CHECK_THROWS_AS(with([](auto& positions, auto&, auto&) { positions = positions.rows(0, 3); }), shape_error);
  CHECK_THROWS_AS(with([](auto&, auto&, auto& cache_rows) { cache_rows = cache_rows.rows(0, 3); }), shape_error);
  CHECK_THROWS_AS(with([](auto&, auto& cosine, auto&) { cosine = cosine.rows(0, 8); }), shape_error);
}

}  // namespace skinny_fused_test
