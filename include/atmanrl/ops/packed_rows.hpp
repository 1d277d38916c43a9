#pragma once

/// \file
/// Weights that stay the blocks of a quantised file: which rows are of which type. A file mixes types, and matrices of
/// different types may share one product, so a type belongs to rows; a backend lays the rows out panel by panel, each
/// of as many outputs as its `output_granularity`.

#include <atmanrl/core/view.hpp>
#include <atmanrl/io/gguf_dequantize.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace atmanrl::inline ATMANRL_ABI {

/// So many successive rows of a matrix, and the type that a file stores them in.
struct typed_rows {
  index_t rows;
  gguf_type type;
};

/// Successive outputs of a packed weight: blocks of a quantised type, else floats as an unpacked weight has them.
struct packed_panel {
  gguf_type type;  ///< f32 or a quantised one
  std::byte* bytes;
};

/// Whether its numbers are stored in blocks that share a scale.
constexpr bool is_quantised(gguf_type type) { return find_gguf_type(std::uint32_t(type))->block_elements > 1; }

/// Of `elements` numbers, whole blocks of them.
constexpr index_t bytes_of(gguf_type type, index_t elements) {
  gguf_type_info const& info = *find_gguf_type(std::uint32_t(type));
  return elements / info.block_elements * info.block_bytes;
}

constexpr bool has_quantised(std::span<typed_rows const> rows) {
  for (typed_rows const& each : rows)
    if (is_quantised(each.type)) return true;
  return false;
}
constexpr index_t rows_of(std::span<typed_rows const> rows) {
  index_t all = 0;
  for (typed_rows const& each : rows) all += each.rows;
  return all;
}

}  // namespace atmanrl::inline ATMANRL_ABI
