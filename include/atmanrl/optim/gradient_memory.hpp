#pragma once

/// \file
/// How much of a step's gradient each of several ranks keeps (docs/distributed.md#what-of-a-gradient-a-rank-keeps). No
/// choice changes a bit of the sum, nor does it change what one rank does.

#include <atmanrl/comm/leaf_tree.hpp>
#include <atmanrl/comm/shares.hpp>
#include <atmanrl/optim/dealt_sum.hpp>

#include <algorithm>
#include <cstddef>

namespace atmanrl::inline ATMANRL_ABI {

enum class gradient_memory {
  whole,   ///< that of a group and the sums that wait (optim/gradient_sum.hpp)
  slices,  ///< that of a group; of sums its slice (optim/dealt_sum.hpp)
  layers,  ///< the stretches that a backward pass has at hand (nn/gradient_stretches.hpp); of sums its slice
};

struct gradient_memory_options {
  gradient_memory kept = gradient_memory::whole;
  bool sums_on_host = false;  ///< in slices and layers: sums that wait do so in the host's memory
};

/// Elements that a rank holds at most, in the backend's memory.
struct gradient_elements {
  std::size_t leaf = 0;     ///< of the gradient of a group
  std::size_t sums = 0;     ///< that wait, the step's own among them where it lies elsewhere than the leaf
  std::size_t pieces = 0;   ///< of an exchange
  std::size_t on_host = 0;  ///< that wait in the host's memory instead

  std::size_t all() const { return leaf + sums + pieces; }
};

/// Under `slices` or `layers`, on the rank that needs most.
/// \param elements  of the flat gradient
/// \param leaf      elements of a leaf that are there at once
inline gradient_elements elements_of_dealt_sums(std::size_t leaves, std::size_t elements, int ranks, std::size_t leaf,
                                                bool sums_on_host) {
  std::size_t const slice = comm::slice_of(elements, ranks, 0).count, waiting = most_waiting_slices(leaves, ranks),
                    piece = std::min(slice, dealt_piece_of(ranks)), together = std::min(leaves, std::size_t(ranks));
  gradient_elements out{.leaf = leaf};
  out.sums = (sums_on_host ? 1 : waiting) * slice;
  out.pieces = (together + (sums_on_host ? waiting : 0)) * piece;
  out.on_host = sums_on_host ? waiting * slice : 0;
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
