#include <atmanrl/io/event_file.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

#include <array>
#include <cstring>
#include <vector>

namespace event_file_test {

using namespace atmanrl;
using atmanrl_test::complaint;
using atmanrl_test::contains;
using atmanrl_test::put;
using atmanrl_test::scratch_folder;

namespace {
std::string content(std::filesystem::path const& path) { return read_text_file(path); }

std::string hex(std::string_view bytes) {
  std::string out;
  for (char const c : bytes) out += fmt::format("{:02x}", std::uint8_t(c));
  return out;
}

/// The payloads of a file's records, in hexadecimal and without each event's time (a tag and eight bytes).
std::vector<std::string> events_of(std::filesystem::path const& path) {
  std::string const bytes = content(path);
  std::vector<std::string> out;
  std::size_t at = 0;
  while (at < bytes.size()) {
    std::uint64_t length = 0;
    REQUIRE(at + 16 <= bytes.size());
    std::memcpy(&length, bytes.data() + at, 8);
    REQUIRE(at + 16 + length <= bytes.size());
    REQUIRE(hex(std::string_view(bytes).substr(at + 12, 1)) == "09");
    out.push_back(hex(std::string_view(bytes).substr(at + 12 + 9, length - 9)));
    at += 16 + length;
  }
  return out;
}
}  // namespace

// RFC 3720, appendix B.4, and the check value of CRC-32C.
TEST_CASE("event file: CRC-32C has the values of its definition") {
  CHECK(crc32c("123456789") == 0xe3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aau);
  CHECK(crc32c(std::string(32, '\xff')) == 0x62a8ab43u);
  CHECK(crc32c("") == 0u);
}

// What the tensorboard package, version 2.21, serialises for the same events.
TEST_CASE("event file: events have the bytes that TensorBoard's own code gives them") {
  scratch_folder const folder;
  auto const path = folder / "events.out.tfevents.0.x";
  event_file_writer file(path);
  file.add(300, std::array{scalar_event{"train/reward", 0.5}, scalar_event{"kl", -2.0}});
  file.restart(7);
  auto const events = events_of(path);
  REQUIRE(events.size() == 3);
  CHECK(events[0] == "1a0d" + hex("brain.Event:2"));
  CHECK(events[1] == "10ac022a200a130a0c747261696e2f726577617264150000003f0a090a026b6c15000000c0");
  CHECK(events[2] == "10073a020801");
}

TEST_CASE("event file: a record carries the checksums that TensorBoard's own code gives it") {
  CHECK(detail::masked_crc32c(std::string("\3\0\0\0\0\0\0\0", 8)) == 0x0e4999b0u);
  CHECK(detail::masked_crc32c("abc") == 0x21f1576eu);
}

TEST_CASE("event file: writing goes on after the last intact record, wherever a process was killed") {
  scratch_folder const folder;
  auto const path = folder / "events.out.tfevents.0.x";
  {
    event_file_writer file(path);
    file.add(1, std::array{scalar_event{"a", 1.0}});
    file.add(2, std::array{scalar_event{"a", 2.0}});
  }
  std::string const whole = content(path);
  auto const all = events_of(path);
  REQUIRE(all.size() == 3);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    put(path, std::string_view(whole).substr(0, length));
    event_file_writer file(path);
    file.add(9, std::array{scalar_event{"a", 9.0}});
    auto const events = events_of(path);
    INFO(length);
    REQUIRE(events.size() >= 2);
    CHECK(events.back().starts_with("1009"));
    CHECK(events.front() == all.front());
    for (std::size_t i = 0; i + 1 < events.size(); ++i) CHECK(events[i] == all[i]);
  }
}

TEST_CASE("event file: a damaged record and what follows it are cut off; another file is refused and kept") {
  scratch_folder const folder;
  auto const path = folder / "events.out.tfevents.0.x";
  {
    event_file_writer file(path);
    file.add(1, std::array{scalar_event{"a", 1.0}});
  }
  std::string bytes = content(path);
  bytes[bytes.size() - 6] ^= 1;
  put(path, bytes);
  { event_file_writer const file(path); }
  CHECK(events_of(path).size() == 1);

  std::string const other(100, 'x');
  put(path, other);
  CHECK(contains(complaint([&] { event_file_writer const file(path); }), "is no event file of TensorBoard"));
  CHECK(content(path) == other);
  CHECK(contains(complaint([&] { event_file_writer const file(folder / "nowhere/events"); }), "cannot be written"));
}

}  // namespace event_file_test
