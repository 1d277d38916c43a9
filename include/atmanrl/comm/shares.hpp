#pragma once

/// \file
/// Which part of a list or of a flat array is a rank's.

#include <cstddef>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI::comm {

/// Neighbouring items.
struct range {
  std::size_t first = 0;
  std::size_t count = 0;
  constexpr std::size_t end() const { return first + count; }
  bool operator==(range const&) const = default;
};

/// What two ranges have in common; where that is nothing, an empty range within `b`.
constexpr range common(range a, range b) {
  std::size_t const first = a.first > b.first ? a.first : b.first, end = a.end() < b.end() ? a.end() : b.end();
  return first < end ? range{first, end - first} : range{b.first, 0};
}

/// A rank's part of `count` items: contiguous, in the order of ranks, sizes that differ by one at most.
constexpr range share_of(std::size_t count, int ranks, int rank) {
  auto const n = std::size_t(ranks), r = std::size_t(rank);
  // The rest goes to the first ranks; no product of count and rank that could overflow.
  std::size_t const each = count / n, rest = count % n;
  return {each * r + (r < rest ? r : rest), each + (r < rest ? 1 : 0)};
}

/// What a slice of a flat array begins at a multiple of, in elements: norms are added in blocks of as many.
inline constexpr std::size_t slice_alignment = 65536;

/// A rank's slice of a flat array of parameters, whose optimizer state it holds (ZeRO-1, arXiv:1910.02054). Slices are
/// cut at multiples of `alignment`; the last ranks of a small array have none.
constexpr range slice_of(std::size_t elements, int ranks, int rank, std::size_t alignment = slice_alignment) {
  range const blocks = share_of((elements + alignment - 1) / alignment, ranks, rank);
  std::size_t const first = blocks.first * alignment < elements ? blocks.first * alignment : elements;
  std::size_t const end = blocks.end() * alignment < elements ? blocks.end() * alignment : elements;
  return {first, end - first};
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm
