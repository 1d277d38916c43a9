#pragma once

/// \file
/// Counter-based random numbers (Philox4x32-10; Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as
/// 1, 2, 3", SC 2011): a number is a function of what it is for, never of a process, a thread or a call order.

#include <atmanrl/core/config.hpp>

#include <array>
#include <cmath>
#include <cstdint>

namespace atmanrl::inline ATMANRL_ABI {

/// One Philox4x32-10 block: 128 random bits from a 128-bit counter and a 64-bit key.
ATMANRL_HOST_DEVICE constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                                                  std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const a = std::uint64_t{0xD2511F53u} * counter[0];
    std::uint64_t const b = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {std::uint32_t(b >> 32) ^ counter[1] ^ key[0], std::uint32_t(b),
               std::uint32_t(a >> 32) ^ counter[3] ^ key[1], std::uint32_t(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

/// What a random number is for. Two different purposes never share a number.
struct random_key {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;      ///< optimiser step, or a stream number where there are no steps
  std::uint32_t prompt = 0;    ///< index of the prompt within the step
  std::uint32_t rollout = 0;   ///< index of the rollout within its group
  std::uint32_t position = 0;  ///< token position, or a running number
};

ATMANRL_HOST_DEVICE constexpr std::array<std::uint32_t, 4> random_bits(random_key k) {
  return philox({k.step, k.prompt, k.rollout, k.position}, {std::uint32_t(k.seed), std::uint32_t(k.seed >> 32)});
}

/// Uniform below 2^53.
ATMANRL_HOST_DEVICE constexpr std::uint64_t uniform_bits(random_key k) {
  auto const bits = random_bits(k);
  return (std::uint64_t{bits[0]} << 21) ^ (bits[1] >> 11);
}

/// Uniform in [0, 1) with 53 random bits.
ATMANRL_HOST_DEVICE constexpr double uniform(random_key k) { return double(uniform_bits(k)) * 0x1p-53; }

/// Standard normal (Box & Muller 1958).
inline double normal(random_key k) {
  auto const bits = random_bits(k);
  double const u = (double(bits[0]) + 1) * 0x1p-32, v = double(bits[1]) * 0x1p-32;
  return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
}

/// A sequence of draws under one key: `position` counts up. Satisfies UniformRandomBitGenerator.
class random_stream {
 public:
  using result_type = std::uint32_t;

  constexpr explicit random_stream(random_key key) : key_(key) {}
  constexpr random_stream(std::uint64_t seed, std::uint32_t stream) : key_{.seed = seed, .step = stream} {}

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return 0xffffffffu; }
  constexpr result_type operator()() { return random_bits(next())[0]; }

  constexpr double uniform() { return atmanrl::uniform(next()); }
  double normal() { return atmanrl::normal(next()); }

  /// Uniform integer in [low, high], both ends included.
  constexpr int between(int low, int high) { return low + int(uniform() * (double(high) - low + 1)); }

 private:
  constexpr random_key next() {
    random_key const k = key_;
    ++key_.position;
    return k;
  }
  random_key key_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
