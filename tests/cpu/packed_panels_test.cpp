#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/random_blocks.hpp"
#include "cpu/same_bits.hpp"

#include <bit>
#include <cstring>

using namespace atmanrl;
using namespace atmanrl_test;

namespace packed_panels_test {
namespace {

/// Two weights of the same numbers: packed, and as floats.
struct pair_of_weights {
  cpu_backend backend;
  weight<cpu_backend, float> packed, decoded;

  pair_of_weights(std::vector<typed_rows> const& parts, index_t inputs, int threads = 2)
      : backend({.threads = threads}), packed(backend, inputs, parts), decoded(backend, rows_of(parts), inputs) {
    index_t first = 0;
    for (typed_rows const& part : parts) {
      std::vector<float> rows(std::size_t(part.rows * inputs));
      if (is_quantised(part.type)) {
        auto const blocks = random_rows(part.type, part.rows, inputs, std::uint64_t(first + 1));
        atmanrl::detail::dequantize(part.type, blocks.data(), part.rows * inputs, rows.data());
        // In two parts, of which the second begins inside a panel.
        std::size_t const cut = std::size_t(part.rows / 3 * bytes_of(part.type, inputs));
        packed.assign_blocks(backend, first, part.type, std::span(blocks).first(cut));
        packed.assign_blocks(backend, first + part.rows / 3, part.type, std::span(blocks).subspan(cut));
      } else {
        rows = random_floats(part.rows * inputs, unsigned(first + 1));
        packed.assign_rows(backend, first, as(rows, {part.rows, inputs}));
      }
      decoded.assign_rows(backend, first, as(rows, {part.rows, inputs}));
      first += part.rows;
    }
  }

  void check_all(std::vector<index_t> const& row_counts) {
    REQUIRE(packed.is_packed());
    index_t const outputs = packed.outputs(), inputs = packed.inputs();
    std::vector<float> a(std::size_t(outputs * inputs)), b(a.size());
    packed.read_rows(backend, 0, as(a, {outputs, inputs}));
    decoded.read_rows(backend, 0, as(b, {outputs, inputs}));
    CHECK(same_bits(a, b));
    std::vector<int> const ids{0, int(outputs) - 1, int(outputs) / 2, 0};
    auto const rows_at = [&](weight<cpu_backend, float> const& w) {
      std::vector<float> y(ids.size() * std::size_t(inputs));
      embed(backend, view<int const, 1>(ids.data(), {4}), w.view(), as(y, {4, inputs}));
      return y;
    };
    CHECK(same_bits(rows_at(packed), rows_at(decoded)));
    for (index_t const rows : row_counts)
      for (store const how : {store::overwrite, store::add}) {
        CAPTURE(rows, how == store::add);
        auto const x = random_floats(rows * inputs, 5), dy = random_floats(rows * outputs, 6);
        auto const forward = [&](weight<cpu_backend, float> const& w) {
          std::vector<float> y = dy;
          matmul(backend, as(x, {rows, inputs}), w.view(), as(y, {rows, outputs}), how);
          return y;
        };
        auto const backward = [&](weight<cpu_backend, float> const& w) {
          std::vector<float> dx = x;
          matmul_backward_input(backend, as(dy, {rows, outputs}), w.view(), as(dx, {rows, inputs}), how);
          return dx;
        };
        CHECK(same_bits(forward(packed), forward(decoded)));
        CHECK(same_bits(backward(packed), backward(decoded)));
      }
  }
};

}  // namespace

TEST_CASE("cpu packed panels: products, rows and embeddings have the bits of the decoded weight") {
  for (gguf_type const type : quantised_types) {
    CAPTURE(name_of(type));
    index_t const blocks = find_gguf_type(std::uint32_t(type))->block_elements;
    for (int const threads : {1, 3}) {
      pair_of_weights({{70, type}}, 5 * blocks, threads).check_all({1, 2, 17});
      pair_of_weights({{32, type}}, blocks, threads).check_all({1, 120});
    }
  }
}

TEST_CASE("cpu packed panels: matrices of several types share a weight, and a panel where they meet is floats") {
  pair_of_weights({{40, gguf_type::q4_k}, {24, gguf_type::q6_k}, {33, gguf_type::f16}, {64, gguf_type::q4_k}}, 512)
      .check_all({1, 5, 40});
  pair_of_weights({{64, gguf_type::q8_0}, {32, gguf_type::q5_1}, {64, gguf_type::q8_0}}, 96).check_all({3});
}

TEST_CASE("cpu packed panels: part of a packed weight is one") {
  pair_of_weights p({{96, gguf_type::q5_k}, {32, gguf_type::q6_k}}, 256);
  auto const x = random_floats(3 * 256, 9);
  auto const part = [&](weight<cpu_backend, float> const& w) {
    std::vector<float> y(std::size_t(3 * 70));
    matmul(p.backend, as(x, {3, 256}), w.view().rows(32, 70), as(y, {3, 70}));
    return y;
  };
  CHECK(same_bits(part(p.packed), part(p.decoded)));
}

TEST_CASE("cpu packed panels: memory is the file's, where panels are whole") {
  std::vector<typed_rows> const rows{{64, gguf_type::q4_k}, {32, gguf_type::q6_k}};
  CHECK(weight<cpu_backend, float>::bytes(rows, 512) == std::size_t(64 * 2 * 144 + 32 * 2 * 210));
  std::vector<typed_rows> const shared{{16, gguf_type::q4_k}, {16, gguf_type::q6_k}};
  CHECK(weight<cpu_backend, float>::bytes(shared, 512) == std::size_t(32 * 512 * 4));
  cpu_backend backend;
  weight<cpu_backend, float> const w(backend, 512, rows);
  CHECK(backend.allocated_bytes() == weight<cpu_backend, float>::bytes(rows, 512));
}

TEST_CASE("cpu packed panels: what cannot be is refused in a sentence") {
  cpu_backend backend;
  std::vector<typed_rows> const rows{{32, gguf_type::q4_k}, {32, gguf_type::f32}};
  weight<cpu_backend, float> w(backend, 256, rows);
  auto const values = random_floats(32 * 256, 1);
  CHECK_NOTHROW(w.assign_rows(backend, 32, as(values, {32, 256})));
  CHECK_THROWS_WITH(w.assign_rows(backend, 1, as(values, {32, 256})),
                    ATMANRL_CONTAINS("a packed weight of Q4_K cannot be changed: train adapters"));
  CHECK_THROWS_WITH(w.assign_blocks(backend, 0, gguf_type::q5_k, random_rows(gguf_type::q5_k, 1, 256, 1)),
                    ATMANRL_CONTAINS("rows of Q5_K among rows of Q4_K"));
  CHECK_THROWS_WITH((weight<cpu_backend, float>(backend, 100, rows)), ATMANRL_CONTAINS("no whole blocks of Q4_K"));
  CHECK_THROWS_WITH((weight<cpu_backend, bf16>(backend, 256, rows)), ATMANRL_CONTAINS("load the model decoded"));
  reference_backend plain;
  CHECK_THROWS_WITH((weight<reference_backend, float>(plain, 256, rows)), ATMANRL_CONTAINS("load the model decoded"));
}

TEST_CASE("cpu packed panels: halves are widened exactly, all of them") {
  alignas(64) std::uint32_t halves[simd::lanes];
  for (std::uint32_t first = 0; first < 65536; first += simd::lanes) {
    for (std::uint32_t i = 0; i < simd::lanes; ++i) halves[i] = first + i;
    alignas(64) float have[simd::lanes];
    simd::store(have, simd::from_halves(simd::load(halves)));
    for (std::uint32_t i = 0; i < simd::lanes; ++i) {
      float const want = half_to_float(std::uint16_t(first + i));
      if (want == want)
        REQUIRE(std::bit_cast<std::uint32_t>(have[i]) == std::bit_cast<std::uint32_t>(want));
      else
        REQUIRE(have[i] != have[i]);
    }
  }
}

}  // namespace packed_panels_test
