#pragma once

/// \file
/// The 64-bit hash XXH64 (Yann Collet; github.com/Cyan4973/xxHash, doc/xxhash_spec.md): finds accidental damage at
/// memory speed.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace atmanrl {

/// Hash of a sequence of bytes that may come in pieces.
class xxh64 {
 public:
  explicit xxh64(std::uint64_t seed = 0) : seed_(seed), lane_{seed + p1 + p2, seed + p2, seed, seed - p1} {}

  void update(std::span<std::byte const> bytes) {
    if (bytes.empty()) return;
    total_ += bytes.size();
    if (held_ > 0) {
      std::size_t const n = std::min(bytes.size(), sizeof(tail_) - held_);
      std::memcpy(tail_ + held_, bytes.data(), n);
      held_ += n;
      bytes = bytes.subspan(n);
      if (held_ < sizeof(tail_)) return;
      stripe(tail_);
      held_ = 0;
    }
    while (bytes.size() >= sizeof(tail_)) {
      stripe(bytes.data());
      bytes = bytes.subspan(sizeof(tail_));
    }
    if (!bytes.empty()) std::memcpy(tail_, bytes.data(), bytes.size());
    held_ = bytes.size();
  }

  /// The hash of everything so far.
  std::uint64_t digest() const {
    std::uint64_t h = seed_ + p5;
    if (total_ >= sizeof(tail_)) {
      h = std::rotl(lane_[0], 1) + std::rotl(lane_[1], 7) + std::rotl(lane_[2], 12) + std::rotl(lane_[3], 18);
      for (std::uint64_t const v : lane_) h = (h ^ mix(0, v)) * p1 + p4;
    }
    h += total_;
    std::size_t i = 0;
    for (; i + 8 <= held_; i += 8) h = std::rotl(h ^ mix(0, load<std::uint64_t>(tail_ + i)), 27) * p1 + p4;
    for (; i + 4 <= held_; i += 4) h = std::rotl(h ^ load<std::uint32_t>(tail_ + i) * p1, 23) * p2 + p3;
    for (; i < held_; ++i) h = std::rotl(h ^ std::to_integer<std::uint64_t>(tail_[i]) * p5, 11) * p1;
    h = (h ^ h >> 33) * p2;
    h = (h ^ h >> 29) * p3;
    return h ^ h >> 32;
  }

 private:
  static constexpr std::uint64_t p1 = 0x9E3779B185EBCA87u, p2 = 0xC2B2AE3D27D4EB4Fu, p3 = 0x165667B19E3779F9u,
                                 p4 = 0x85EBCA77C2B2AE63u, p5 = 0x27D4EB2F165667C5u;

  template <class T>
  static T load(std::byte const* at) {
    T value;
    std::memcpy(&value, at, sizeof(T));
    return value;
  }
  static std::uint64_t mix(std::uint64_t lane, std::uint64_t word) { return std::rotl(lane + word * p2, 31) * p1; }
  void stripe(std::byte const* at) {
    for (int i = 0; i < 4; ++i) lane_[i] = mix(lane_[i], load<std::uint64_t>(at + 8 * i));
  }

  std::uint64_t seed_;
  std::uint64_t lane_[4];
  std::uint64_t total_ = 0;
  std::byte tail_[32];
  std::size_t held_ = 0;
};

}  // namespace atmanrl
