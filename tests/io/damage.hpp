#pragma once
// Ways to damage a file, and what must come of it: one file_error that names the file, or an intact reading.
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/random.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>

namespace atmanrl_test {

/// Numbers that lie about a length or an offset.
inline constexpr std::array<std::uint64_t, 9> huge{std::uint64_t(1) << 63,
                                                   ~std::uint64_t{0},
                                                   ~std::uint64_t{0} - 7,
                                                   (std::uint64_t(1) << 63) - 1,
                                                   std::uint64_t(1) << 62,
                                                   std::uint64_t(1) << 61,
                                                   std::uint64_t(1) << 40,
                                                   0xffffffffu,
                                                   0x7fffffffu};

/// `bytes` with the `width` bytes at `at` replaced by the low ones of `value`.
inline std::string overwritten(std::string bytes, std::size_t at, std::size_t width, std::uint64_t value) {
  std::memcpy(bytes.data() + at, &value, width);
  return bytes;
}

/// `open(path)` must throw a file_error that names the file.
template <class Open>
void check_refused(std::filesystem::path const& path, std::string const& bytes, Open open) {
  put(path, bytes);
  auto const text = complaint([&] { open(path); });
  INFO(text.value_or("(accepted)"));
  CHECK(contains(text, path.string()));
}

/// Every proper prefix of `bytes` must be refused.
template <class Open>
void check_every_truncation(std::filesystem::path const& path, std::string const& bytes, Open open) {
  put(path, bytes);
  REQUIRE_NOTHROW(open(path));
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    INFO("cut to " << n << " of " << bytes.size() << " bytes");
    check_refused(path, bytes.substr(0, n), open);
  }
}

/// 2000 times one to four random bytes are changed: `open` either works or throws file_error.
template <class Open>
void check_random_damage(std::filesystem::path const& path, std::string const& bytes, Open open) {
  atmanrl::random_stream random(1, 1);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bad = bytes;
    for (int i = random.between(1, 4); i > 0; --i) {
      // Half of the changes go to the first kilobyte, where the lengths are.
      int const last = int(bad.size()) - 1;
      int const at = random.between(0, round % 2 ? last : std::min(last, 1023));
      bad[std::size_t(at)] = char(random.between(0, 255));
    }
    put(path, bad);
    auto const text = complaint([&] { open(path); });
    if (text) {
      ++refused;
      REQUIRE(contains(text, path.string()));
    }
  }
  CHECK(refused > 100);
}

}  // namespace atmanrl_test
