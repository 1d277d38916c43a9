#pragma once

/// \file
/// Shuffling without a list: element `i` of a pseudo-random permutation, computed on its own, so that a resumed run and
/// every process of a parallel one see the same order without storing it.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/random.hpp>
#include <atmanrl/core/view.hpp>

#include <bit>

namespace atmanrl::inline ATMANRL_ABI {

/// Element `i` of permutation number `epoch` of [0, size) under `seed`: a four-round Feistel network over the next even
/// power of two, walked until it lands inside (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
inline index_t shuffled(index_t size, std::uint64_t seed, std::uint64_t epoch, index_t i) {
  expects<shape_error>(size > 0 && size < index_t{1} << 31 && i >= 0 && i < size, "element {} of a permutation of {}",
                       i, size);
  int const half = (int(std::bit_width(std::uint64_t(size - 1))) + 1) / 2;
  if (half == 0) return 0;
  std::uint32_t const mask = (std::uint32_t{1} << half) - 1;
  auto value = std::uint64_t(i);
  do {
    auto left = std::uint32_t(value >> half), right = std::uint32_t(value) & mask;
    for (std::uint32_t round = 0; round < 4; ++round) {
      std::uint32_t const mixed =
          random_bits({seed, std::uint32_t(epoch), std::uint32_t(epoch >> 32), 0x5u << 28 | round, right})[0] & mask;
      left ^= mixed;
      std::swap(left, right);
    }
    value = std::uint64_t(left) << half | right;
  } while (value >= std::uint64_t(size));
  return index_t(value);
}

/// Element `index` of an endless sequence that goes through [0, size) epoch after epoch, each in its own order.
inline index_t shuffled_epochs(index_t size, std::uint64_t seed, std::uint64_t index) {
  expects<shape_error>(size > 0, "an epoch of {} items", size);
  return shuffled(size, seed, index / std::uint64_t(size), index_t(index % std::uint64_t(size)));
}

}  // namespace atmanrl::inline ATMANRL_ABI
