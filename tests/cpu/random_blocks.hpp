#pragma once
// Rows of random blocks of the types of quantised files.
#include <atmanrl/core/random.hpp>
#include <atmanrl/io/gguf_dequantize.hpp>
#include <atmanrl/ops/packed_rows.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace atmanrl_test {

using namespace atmanrl;

inline constexpr gguf_type quantised_types[] = {gguf_type::q8_0, gguf_type::q4_0, gguf_type::q4_1, gguf_type::q5_0,
                                                gguf_type::q5_1, gguf_type::q4_k, gguf_type::q5_k, gguf_type::q6_k};

inline std::string name_of(gguf_type t) { return std::string(find_gguf_type(std::uint32_t(t))->name); }

/// Rows of random blocks: every byte is drawn, but the exponents of the scales are kept from infinity and some of them
/// below the normal halves.
inline std::vector<std::byte> random_rows(gguf_type type, index_t rows, index_t inputs, std::uint64_t seed) {
  random_stream draw(seed, 7);
  std::vector<std::byte> out(std::size_t(rows * bytes_of(type, inputs)));
  for (std::byte& b : out) b = std::byte(draw.between(0, 255));
  gguf_type_info const& info = *find_gguf_type(std::uint32_t(type));
  bool const has_min =
      type == gguf_type::q4_1 || type == gguf_type::q5_1 || type == gguf_type::q4_k || type == gguf_type::q5_k;
  for (std::size_t block = 0; block < out.size(); block += std::size_t(info.block_bytes))
    for (std::size_t h = 0; h < (has_min ? 2u : 1u); ++h) {
      std::size_t const at = block + (type == gguf_type::q6_k ? 208 : 2 * h);
      std::uint16_t const half = std::uint16_t(draw.between(0, 0x2fff) | draw.between(0, 1) << 15);
      std::memcpy(&out[at], &half, 2);
    }
  return out;
}

}  // namespace atmanrl_test
