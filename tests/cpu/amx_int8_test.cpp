#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/amx_emulation.hpp"
#include "cpu/int8_oracle.hpp"
#include "cpu/random_blocks.hpp"
#include "cpu/same_bits.hpp"

#include <cstring>
#include <limits>
#include <optional>

using namespace atmanrl;
using namespace atmanrl_test;

namespace amx_int8_test {
namespace {

namespace amx = atmanrl::cpu::amx;

enum class bug { none, row, sign, order, cut, lost };

// TDPBSSD in loops of its own, without or with one mistake.
template <bug Bug>
struct unit {
  amx::configuration shapes;
  std::int8_t bytes[8][16][64];

  void configure(amx::configuration const& c) { shapes = c; }
  template <int T>
  void zero() {
    std::memset(bytes[T], 0, sizeof bytes[T]);
  }
  template <int T>
  void load(void const* from, index_t stride) {
    zero<T>();
    for (int i = 0; i < shapes.rows[T]; ++i)
      std::memcpy(bytes[T][i], static_cast<char const*>(from) + i * stride, shapes.row_bytes[T]);
  }
  template <int T>
  void store(void* to, index_t stride) {
    for (int i = 0; i < shapes.rows[T]; ++i)
      std::memcpy(static_cast<char*>(to) + i * stride, bytes[T][i], shapes.row_bytes[T]);
  }
  template <int C, int A, int B>
  void multiply_bytes() {
    int const depth = shapes.row_bytes[A];
    for (int m = 0; m < shapes.rows[C]; ++m)
      for (int n = 0; n < shapes.row_bytes[C] / 4; ++n) {
        std::int32_t sum = 0, pair = 0;
        for (int k = 0; k < depth; ++k) {
          int const row = Bug == bug::row ? (k / 4 + 1) % (depth / 4) : k / 4;
          int const a = bytes[A][m][Bug == bug::order ? k / 4 * 4 + 3 - k % 4 : k];
          int b = bytes[B][row][4 * n + k % 4];
          if (Bug == bug::sign) b &= 255;
          pair += a * b;
          if (Bug == bug::cut) pair = std::clamp(pair, -32768, 32767);  // as instructions for pairs of bytes do
          if (k % 2 == 1) sum += std::exchange(pair, 0);
        }
        std::uint32_t c;
        std::memcpy(&c, &bytes[C][m][4 * n], 4);
        c = Bug == bug::lost ? std::uint32_t(sum) : c + std::uint32_t(sum);
        std::memcpy(&bytes[C][m][4 * n], &c, 4);
      }
  }
};

// Whether a unit multiplies whole tiles as it should: every byte of A meets the byte of B that belongs to it, and sums
// are kept at their largest.
template <class Unit>
bool multiplies_bytes(Unit& u) {
  u.configure(amx::full_tiles());
  auto const product = [&u](auto const& a, auto const& b, std::int32_t before, std::int32_t(&c)[16][16]) {
    for (auto& row : c) std::fill(std::begin(row), std::end(row), before);
    u.template load<2>(c, 64);
    u.template load<5>(a, 64);
    u.template load<7>(b, 64);
    u.template multiply_bytes<2, 5, 7>();
    u.template store<2>(c, 64);
  };
  std::int8_t a[16][64], b[16][64];
  std::int32_t c[16][16];
  bool right = true;
  // Row m of A has one 1, at the byte that changes with `turn`; the numbers of B say where they stand, in two digits.
  for (int const digit : {0, 1}) {
    auto const place = [&](int k, int n) {
      int const at = 16 * k + n;
      return digit == 0 ? at % 128 - 64 : at / 128 - 4;
    };
    for (int k = 0; k < 64; ++k)
      for (int n = 0; n < 16; ++n) b[k / 4][4 * n + k % 4] = std::int8_t(place(k, n));
    for (int turn = 0; turn < 64; ++turn) {
      auto const one = [&](int m) { return (7 * m + turn) % 64; };
      std::memset(a, 0, sizeof a);
      for (int m = 0; m < 16; ++m) a[m][one(m)] = 1;
      product(a, b, turn, c);
      for (int m = 0; m < 16; ++m)
        for (int n = 0; n < 16; ++n) right = right && c[m][n] == turn + place(one(m), n);
    }
  }
  for (int const x : {-128, 127})
    for (int const w : {-128, 127}) {
      std::memset(a, x, sizeof a);
      std::memset(b, w, sizeof b);
      product(a, b, 0, c);
      right = right && c[15][15] == 64 * x * w;
      product(a, b, x * w > 0 ? INT32_MAX : INT32_MIN, c);  // goes round
      right = right && std::uint32_t(c[0][0]) == (x * w > 0 ? 0x7fffffffu : 0x80000000u) + std::uint32_t(64 * x * w);
    }
  return right;
}

// A weight of a type, and what its products with x should be.
struct problem {
  index_t outputs, inputs;
  cpu_backend backend;
  weight<cpu_backend, float> w;

  problem(gguf_type type, index_t outputs, index_t inputs, int threads = 1)
      : outputs(outputs),
        inputs(inputs),
        backend({.threads = threads}),
        w(backend, inputs, std::vector<typed_rows>{{outputs, type}}) {
    w.assign_blocks(backend, 0, type, random_rows(type, outputs, inputs, 3));
  }

  template <class Product>
  std::vector<float> y(Product const& p, std::vector<float> const& x, bool add = false) {
    index_t const rows = index_t(x.size()) / inputs;
    std::vector<float> to(std::size_t(rows * outputs), 0.75f);
    auto const v = w.view();
    cpu::multiply_by_panels(backend, p, as(x, {rows, inputs}), cpu::packed_panels{v.packed, outputs, inputs},
                            as(to, {rows, outputs}), add);
    return to;
  }
};

cpu::amx_int8_product const twin{.twin = true};

index_t inputs_of(gguf_type type) {  // more than a piece of groups, where it can be not a multiple of one
  return find_gguf_type(std::uint32_t(type))->block_elements == 32 ? 11 * 32 : 512;
}

}  // namespace

TEST_CASE("amx int8: the twin multiplies bytes with signs, each in its place, and cuts no sum off") {
  amx::twin t;
  CHECK(multiplies_bytes(t));
  auto const of_own = [](auto&& u) { return multiplies_bytes(u); };
  CHECK(of_own(unit<bug::none>{}));
  // What the check is worth.
  CHECK_FALSE(of_own(unit<bug::row>{}));
  CHECK_FALSE(of_own(unit<bug::sign>{}));
  CHECK_FALSE(of_own(unit<bug::order>{}));
  CHECK_FALSE(of_own(unit<bug::cut>{}));
  CHECK_FALSE(of_own(unit<bug::lost>{}));

  t.configure(amx::int8_tiles(16));
  CHECK_NOTHROW(t.multiply_bytes<0, 4, 6>());
  t.configure(amx::full_tiles());
  amx::configuration other = amx::int8_tiles(32);
  other.rows[6] = 4;
  t.configure(other);
  CHECK_THROWS_AS((t.multiply_bytes<0, 4, 6>()), usage_error);
  t.release();
  CHECK_THROWS_AS((t.multiply_bytes<0, 4, 6>()), usage_error);
}

TEST_CASE("amx int8: a panel's numbers less their centre, with signs") {
  for (gguf_type const type : quantised_types) {
    CAPTURE(name_of(type));
    problem p(type, 32, inputs_of(type));
    packed_panel const panel = p.w.view().packed[0];
    cpu::packed_panel_functions const& of = cpu::functions_of(type);
    int least = 255, most = -255;
    for (index_t g = 0; g < p.inputs / 32; ++g) {
      cpu::int8_group plain{}, centred{};
      of.int8_take(panel.bytes, g, plain);
      of.int8_take_centred(panel.bytes, g, centred);
      CHECK(plain.step == centred.step);
      if (of.affine) CHECK(plain.offset == centred.offset);
      for (std::size_t i = 0; i < plain.numbers.size(); ++i)
        for (int shift = 0; shift < 32; shift += 8) {
          int const u = int(plain.numbers[i] >> shift & 255u), n = std::int8_t(centred.numbers[i] >> shift & 255u);
          REQUIRE(u - n == (type == gguf_type::q8_0   ? 128
                            : type == gguf_type::q4_0 ? 8
                            : type == gguf_type::q5_0 ? 16
                            : type == gguf_type::q6_k ? 32
                                                      : 0));
          least = std::min(least, n), most = std::max(most, n);
        }
    }
    bool const five = type == gguf_type::q5_0 || type == gguf_type::q5_1 || type == gguf_type::q5_k;
    CHECK(most - least == (type == gguf_type::q8_0 ? 255 : type == gguf_type::q6_k ? 63 : five ? 31 : 15));
  }
}

TEST_CASE("amx int8: the bits of vectors and of plain loops, for every type, any rows and any threads") {
  for (gguf_type const type : quantised_types) {
    CAPTURE(name_of(type));
    index_t const inputs = inputs_of(type), rows = 150;  // more than a block
    problem p(type, 70, inputs);
    auto const x = random_floats(rows * inputs, 5);
    auto const expected = int8_oracle(p.w.view(), x);
    CHECK(same_bits(p.y(cpu::int8_product{}, x), expected));
    for (index_t const count : {1, 15, 16, 17, 40, 150}) {
      CAPTURE(count);
      index_t const first = std::min<index_t>(7, rows - count);
      std::vector<float> const part(x.begin() + first * inputs, x.begin() + (first + count) * inputs);
      std::vector<float> want(expected.begin() + first * 70, expected.begin() + (first + count) * 70);
      problem q(type, 70, inputs, int(count % 3) + 1);
      CHECK(same_bits(q.y(twin, part), want));
      for (float& v : want) v += 0.75f;
      CHECK(same_bits(q.y(twin, part, true), want));
    }
  }
}

TEST_CASE("amx int8: a row that is not finite or zero leaves the others alone") {
  problem p(gguf_type::q4_k, 32, 256);
  auto x = random_floats(20 * 256, 8);
  auto const expected = int8_oracle(p.w.view(), x);
  x[3 * 256 + 100] = std::numeric_limits<float>::infinity();
  x[17 * 256 + 9] = std::numeric_limits<float>::quiet_NaN();
  std::fill_n(x.begin() + 5 * 256, 256, 1e-42f);  // too small for a scale
  auto const y = p.y(twin, x);
  for (index_t r = 0; r < 20; ++r)
    for (index_t o = 0; o < 32; ++o) {
      std::size_t const at = std::size_t(r * 32 + o);
      CAPTURE(r, o);
      if (r == 3 || r == 17)
        REQUIRE(y[at] != y[at]);
      else if (r == 5)
        REQUIRE(y[at] == 0);
      else
        REQUIRE(y[at] == expected[at]);
    }
}

TEST_CASE("amx int8: panels of floats meet floats, and a weight may mix types") {
  std::vector<typed_rows> const rows{{32, gguf_type::q6_k}, {32, gguf_type::f32}, {64, gguf_type::q4_k}};
  cpu_backend backend({.threads = 2});
  weight<cpu_backend, float> w(backend, 256, rows);
  w.assign_blocks(backend, 0, gguf_type::q6_k, random_rows(gguf_type::q6_k, 32, 256, 1));
  auto const floats = random_floats(32 * 256, 2), x = random_floats(130 * 256, 3);
  w.assign_rows(backend, 32, as(floats, {32, 256}));
  w.assign_blocks(backend, 64, gguf_type::q4_k, random_rows(gguf_type::q4_k, 64, 256, 4));
  auto const y = [&](auto const& product) {
    std::vector<float> to(130 * 128);
    cpu::multiply_by_panels(backend, product, as(x, {130, 256}), cpu::packed_panels{w.view().packed, 128, 256},
                            as(to, {130, 128}), false);
    return to;
  };
  CHECK(same_bits(y(twin), y(cpu::int8_product{})));
}

TEST_CASE("amx int8: the instructions, or what they say, give the bits of the twin") {
  bool const native = cpu::this_processor().amx_int8 == cpu::amx_access::granted;
  if (!native)
    WARN(
        "this processor has no AMX for bytes: its instructions are emulated, so their arithmetic is not "
        "tested");
#if defined(__x86_64__) && defined(__linux__)
  std::optional<amx_emulation> emulated;
  if (!native) emulated.emplace();
  for (gguf_type const type : {gguf_type::q8_0, gguf_type::q4_k, gguf_type::q6_k}) {
    for (index_t const rows : {1, 33}) {
      CAPTURE(name_of(type), rows);
      problem p(type, 40, inputs_of(type), 2);
      auto const x = random_floats(rows * p.inputs, 6);
      CHECK(same_bits(p.y(cpu::amx_int8_product{}, x), p.y(twin, x)));
      if (!native) CHECK(!emulated->tiles().configured());  // released, so that the system need not save them
    }
  }
  if (!native) CHECK(emulated->tiles().counts().products > 0);
#endif
}

TEST_CASE("amx int8: instructions of 16 rows and a panel, and what a wrong one does to the sums") {
  index_t const groups = 5;
  auto const x = random_floats(16 * groups * 32, 7);
  std::vector<std::uint32_t> packed(std::size_t(amx::int8_packed_size(16, groups * 32)));
  amx::pack_int8_rows(x.data(), groups * 32, 16, groups * 32, packed.data());
  auto const sums = [&]<index_t Scales>(auto& u, gguf_type type, std::integral_constant<index_t, Scales>) {
    problem p(type, 32, type == gguf_type::q6_k ? 256 : groups * 32);
    std::vector<cpu::int8_group> taken(groups);
    for (index_t g = 0; g < groups; ++g)
      cpu::functions_of(type).int8_take_centred(p.w.view().packed[0].bytes, g, taken[std::size_t(g)]);
    std::vector<float> to(16 * 32);
    u.configure(amx::int8_tiles(32 / Scales));
    amx::multiply_groups<Scales, false>(u, packed.data(), taken.data(), groups, to.data(), true);
    return to;
  };
  std::integral_constant<index_t, 1> constexpr whole;
  std::integral_constant<index_t, 2> constexpr halves;
  amx::twin one, two;
  auto const right = sums(one, gguf_type::q8_0, whole), right_halves = sums(two, gguf_type::q6_k, halves);
  CHECK(one.counts().products == 2 * groups);  // 16 x 16 x 32 multiply-adds each, all that there are
  CHECK(one.counts().loads == 4 * groups);
  CHECK(one.counts().zeros == 2 * groups);
  CHECK(one.counts().stores == 2 * groups);
  CHECK(two.counts().products == 4 * groups);  // 16 x 16 x 16
  CHECK(two.counts().stores == 4 * groups);

  auto const of_own = [&](auto&& u) {
    return std::pair(same_bits(sums(u, gguf_type::q8_0, whole), right),
                     same_bits(sums(u, gguf_type::q6_k, halves), right_halves));
  };
  CHECK(of_own(unit<bug::none>{}) == std::pair(true, true));
  CHECK(of_own(unit<bug::row>{}) == std::pair(false, false));
  CHECK(of_own(unit<bug::sign>{}) == std::pair(false, false));
  CHECK(of_own(unit<bug::order>{}) == std::pair(false, false));
  CHECK(of_own(unit<bug::cut>{}).second);  // numbers of 6 bits fit
}

TEST_CASE("amx int8: a backend uses them where they are to be had or it asks, from a whole tile of rows on") {
  using enum byte_products;
  using namespace atmanrl::cpu;
  processor const sapphire{vendor::intel, amx_access::granted, amx_access::granted},
      container{vendor::intel, amx_access::refused, amx_access::refused},
      bf16_alone{vendor::intel, amx_access::granted, amx_access::none}, zen{vendor::amd};
  CHECK(cpu_options().int8_instructions == by_processor);
  CHECK(chosen_byte_products(by_processor, true, sapphire) == byte_products::amx);
  CHECK(chosen_byte_products(by_processor, false, sapphire) == vectors);
  for (processor const& p : {container, bf16_alone, zen}) CHECK(chosen_byte_products(by_processor, true, p) == vectors);
  CHECK(chosen_byte_products(byte_products::amx, true, sapphire) == byte_products::amx);
  for (processor const& p : {container, bf16_alone, zen}) {
    CHECK_THROWS_WITH(chosen_byte_products(byte_products::amx, true, p),
                      ATMANRL_CONTAINS(p.amx_int8 == amx_access::none ? "has none for bytes" : "does not permit"));
    CHECK(chosen_byte_products(amx_twin, true, p) == amx_twin);
  }
  CHECK(chosen_byte_products(vectors, false, sapphire) == vectors);
  CHECK_THROWS_WITH(chosen_byte_products(byte_products::amx, false, sapphire),
                    ATMANRL_CONTAINS("int8_products is off"));

  // The bits are the same, so what tells is the scratch that they take.
  for (index_t const rows : {15, 16}) {
    CAPTURE(rows);
    auto const scratch = [&](byte_products how) {
      cpu_backend backend({.threads = 1, .int8_products = true, .int8_instructions = how});
      CHECK(backend.int8_instructions() == how);
      weight<cpu_backend, float> w(backend, 512, std::vector<typed_rows>{{32, gguf_type::q4_k}});
      auto x = tensor<cpu_backend, float, 2>::zeros(backend, {rows, 512}),
           y = tensor<cpu_backend, float, 2>::zeros(backend, {rows, 32});
      std::size_t const before = backend.allocated_bytes();
      matmul(backend, x.cview(), w.view(), y.view());
      return index_t(backend.allocated_bytes() - before) / index_t(sizeof(float));
    };
    CHECK(scratch(vectors) == int8_product::packed_size(rows, 512));
    CHECK(scratch(amx_twin) ==
          (rows < 16 ? int8_product::packed_size(rows, 512) : amx_int8_product::packed_size(rows, 512)));
  }
}

}  // namespace amx_int8_test
