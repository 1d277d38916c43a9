#include <atmanrl/io/xxh64.hpp>

#include "catch.hpp"

#include <string>
#include <string_view>

namespace xxh64_test {

using atmanrl::xxh64;

namespace {
std::uint64_t hash_of(std::string_view text, std::uint64_t seed = 0, std::size_t piece = 1000) {
  xxh64 h(seed);
  for (std::size_t i = 0; i < text.size(); i += piece) h.update(std::as_bytes(std::span(text.substr(i, piece))));
  return h.digest();
}
}  // namespace

// Values of Python's xxhash.xxh64_intdigest.
TEST_CASE("xxh64: known hashes of short and long texts") {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += char(i);
  CHECK(hash_of("") == 0xEF46DB3751D8E999u);
  CHECK(hash_of("a") == 0xD24EC4F1A98C6E5Bu);
  CHECK(hash_of("abc") == 0x44BC2CF5AD770999u);
  CHECK(hash_of(bytes) == 0x1FACBE8406CD904Bu);
  CHECK(hash_of(bytes.substr(0, 63), 12345) == 0x14F7D7FDBB0CD505u);
}

TEST_CASE("xxh64: the hash does not depend on the pieces") {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += char(i * 7);
  for (std::size_t piece : {1u, 3u, 8u, 31u, 32u, 33u, 64u, 999u}) CHECK(hash_of(text, 5, piece) == hash_of(text, 5));
}

}  // namespace xxh64_test
