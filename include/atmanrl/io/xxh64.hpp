#pragma once

/// \file
/// The 64-bit hash XXH64 of libxxhash (Yann Collet; github.com/Cyan4973/xxHash): finds accidental damage at memory
/// speed.

#include <atmanrl/core/error.hpp>

#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace atmanrl::inline ATMANRL_ABI {

/// Hash of a sequence of bytes that may come in pieces.
class xxh64 {
 public:
  explicit xxh64(std::uint64_t seed = 0) : state_(XXH64_createState()) {
    expects(state_ != nullptr && XXH64_reset(state_.get(), seed) == XXH_OK, "no memory for a hash");
  }

  void update(std::span<std::byte const> bytes) {
    if (!bytes.empty()) XXH64_update(state_.get(), bytes.data(), bytes.size());
  }

  /// The hash of everything so far.
  std::uint64_t digest() const { return XXH64_digest(state_.get()); }

 private:
  struct free_state {
    void operator()(XXH64_state_t* state) const { XXH64_freeState(state); }
  };
  std::unique_ptr<XXH64_state_t, free_state> state_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
