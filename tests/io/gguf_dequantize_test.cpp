#include <atmanrl/io/gguf.hpp>
#include <atmanrl/io/gguf_dequantize.hpp>
#include <atmanrl/io/safetensors.hpp>

#include "catch.hpp"
#include "test_data.hpp"

#include <cstring>

using namespace atmanrl;

namespace gguf_dequantize_test {

// tests/fixtures/make_gguf_fixtures.py wrote both files: blocks, and what the gguf package makes of them.
TEST_CASE("gguf_dequantize: every type has the bits that the gguf package computes") {
  gguf_file const blocks(atmanrl_test::fixture("io/types.gguf"));
  safetensors_file const expected(atmanrl_test::fixture("io/types.safetensors"));
  REQUIRE(blocks.tensors().size() == detail::gguf_type_table.size());
  for (auto const& info : detail::gguf_type_table) {
    std::string const name = fmt::format("values.{}", info.name);
    INFO(name);
    gguf_tensor const* const t = blocks.find_tensor(name);
    tensor_entry const* const e = expected.find(name);
    REQUIRE(t);
    REQUIRE(e);
    REQUIRE(t->type == info.type);
    REQUIRE(t->shape == e->shape);
    std::vector<float> have(std::size_t(e->size())), want(std::size_t(e->size()));
    detail::dequantize(t->type, t->bytes.data(), e->size(), have.data());
    to_float(*e, 0, want);
    int distinct = 0;
    for (std::size_t i = 0; i < have.size(); ++i) {
      INFO("element " << i);
      REQUIRE(have[i] == want[i]);
      distinct += i > 0 && want[i] != want[i - 1];
    }
    CHECK(distinct > int(have.size()) / 2);
  }
}

TEST_CASE("gguf_dequantize: types that cannot be converted are not known") {
  for (std::uint32_t const number : {4u, 5u, 9u, 10u, 11u, 15u, 16u, 24u, 28u, 31u, 1000u})
    CHECK_FALSE(find_gguf_type(number));
  CHECK(find_gguf_type(14)->name == "Q6_K");
}

}  // namespace gguf_dequantize_test
