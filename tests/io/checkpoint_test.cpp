#include <atmanrl/io/checkpoint.hpp>

#include "catch.hpp"
#include "io/damage.hpp"
#include "io/scratch.hpp"

#include <sys/wait.h>
#include <csignal>
#include <fstream>

using namespace atmanrl;
using namespace atmanrl_test;

namespace checkpoint_test {
namespace {

checkpoint sample(std::uint64_t step) {
  return {.step = step,
          .arrays = {{"weights", {1.0f, -2.5f, float(step)}}, {"moments", {0.25f, 3e-38f}}, {"empty", {}}},
          .state_json = fmt::format("{{\"step\":{},\"seed\":18446744073709551615}}", step)};
}

/// Largest memory of this process so far, in bytes.
std::size_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (std::size_t kib = 0; word == "VmHWM:" && status >> kib) return kib << 10;
  return 0;
}

}  // namespace

TEST_CASE("checkpoint: what is saved is loaded, bit for bit") {
  scratch_folder const dir;
  save_checkpoint(dir / "c", sample(12));
  CHECK(std::filesystem::exists(dir / "c/step-000012.checkpoint"));
  std::vector<std::string> bad;
  auto const c = load_latest_checkpoint(dir / "c", [&](std::string const& s) { bad.push_back(s); });
  REQUIRE(c);
  CHECK(c->step == 12);
  CHECK(c->arrays == sample(12).arrays);
  CHECK(c->state_json == sample(12).state_json);
  CHECK(bad.empty());
}

TEST_CASE("checkpoint: what is read of an array is all that takes memory, in pieces") {
  scratch_folder const dir;
  static constexpr std::size_t count = std::size_t(12) << 20, first = count / 2 + 5, wanted = count / 4;
  std::vector<float> piece(std::size_t(1) << 16);
  checkpoint_array const large{"weights", count, {}, [&](auto const& put) {
                                 for (std::size_t i = 0; i < count; i += piece.size()) {
                                   for (std::size_t k = 0; k < piece.size(); ++k) piece[k] = float(i + k);
                                   put(std::span<float const>(piece));
                                 }
                               }};
  save_checkpoint(dir.path(), checkpoint_view{.step = 1, .arrays = {large}, .state_json = "{}"});
  // The peak of a process of its own begins with what it has.
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::size_t const before = peak_memory();
    auto const c = load_latest_checkpoint(dir.path(), nullptr);
    std::size_t next = first;
    bool right = c.has_value() && before > 0;
    if (right)
      c->arrays.at("weights").in_pieces(first, wanted, [&](std::span<float const> part) {
        for (float const x : part) right = right && x == float(next++);
      });
    std::size_t const taken = peak_memory() - before;
    ::_exit(!right || next != first + wanted ? 1 : taken > std::size_t(10) << 20 ? 2 : 0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);  // 1: other values; 2: more than 10 MiB of 48
}

TEST_CASE("checkpoint: a folder without one, or no folder, has nothing to load") {
  scratch_folder const dir;
  CHECK_FALSE(load_latest_checkpoint(dir.path(), nullptr));
  CHECK_FALSE(load_latest_checkpoint(dir / "none", nullptr));
  put(dir / "step-x.checkpoint", "?");
  put(dir / "step-000001.checkpoint.partial-7", "?");
  CHECK(list_checkpoints(dir.path()).empty());
}

TEST_CASE("checkpoint: the last two are kept, later ones of an abandoned course are removed") {
  scratch_folder const dir;
  auto steps = [&] {
    std::vector<std::uint64_t> all;
    for (auto const& p : list_checkpoints(dir.path())) all.push_back(load_checkpoint(p).step);
    return all;
  };
  for (std::uint64_t const s : {1u, 2u, 10u, 1000000u}) save_checkpoint(dir.path(), sample(s));
  CHECK(steps() == std::vector<std::uint64_t>{1000000, 10});
  save_checkpoint(dir.path(), sample(11));
  CHECK(steps() == std::vector<std::uint64_t>{11, 10});
  save_checkpoint(dir.path(), sample(12), 3);
  CHECK(steps() == std::vector<std::uint64_t>{12, 11, 10});
  CHECK_THROWS_AS(save_checkpoint(dir.path(), sample(13), 0), usage_error);
}

TEST_CASE("checkpoint: every changed bit and every truncation is noticed, and the one before is used") {
  scratch_folder const dir;
  save_checkpoint(dir.path(), sample(1));
  save_checkpoint(dir.path(), sample(2));
  std::filesystem::path const newest = dir / "step-000002.checkpoint";
  std::string const good = read_text_file(newest);
  auto falls_back = [&](std::string const& damaged) {
    put(newest, damaged);
    std::vector<std::string> messages;
    auto const c = load_latest_checkpoint(dir.path(), [&](std::string const& s) { messages.push_back(s); });
    REQUIRE(c);
    REQUIRE(c->step == 1);
    REQUIRE(messages.size() == 1);
    REQUIRE(contains(messages[0], newest.string()));
  };
  for (std::size_t i = 0; i < good.size(); ++i) {
    INFO("byte " << i);
    falls_back(good.substr(0, i));
    std::string flipped = good;
    flipped[i] = char(flipped[i] ^ (1 << (i % 8)));
    falls_back(flipped);
  }
  falls_back(good + "x");
  put(newest, good);
  CHECK(load_latest_checkpoint(dir.path(), nullptr)->step == 2);
}

TEST_CASE("checkpoint: a folder that cannot be read is not one without checkpoints") {
  scratch_folder const dir;
  std::filesystem::create_symlink("loop", dir / "loop");
  CHECK(contains(complaint([&] { list_checkpoints(dir / "loop"); }), (dir / "loop").string()));
  put(dir / "file", "x");
  CHECK(contains(complaint([&] { load_latest_checkpoint(dir / "file", nullptr); }), "the folder cannot be read"));
}

TEST_CASE("checkpoint: the newest that is intact and fits is used; intact ones of which none fits are an error") {
  scratch_folder const dir;
  for (std::uint64_t const step : {1, 2, 3}) save_checkpoint(dir.path(), sample(step), 3);
  std::vector<std::string> said;
  auto const load = [&](std::uint64_t most) {
    said.clear();
    return load_latest_checkpoint(
        dir.path(), [&](std::string const& s) { said.push_back(s); },
        [&](checkpoint const& c, std::filesystem::path const& path) {
          expects<file_error>(c.step <= most, "{}: too late", path.string());
        });
  };
  CHECK(load(3)->step == 3);
  CHECK(said.empty());
  CHECK(load(1)->step == 1);
  REQUIRE(said.size() == 2);
  CHECK(contains(said[0], "step-000003.checkpoint: too late; the checkpoint before it is looked at"));
  CHECK(contains(complaint([&] { load(0); }), "step-000003.checkpoint: too late"));
  CHECK(contains(said.back(), "there is no checkpoint before it"));
  // One that is damaged does not fit either, but the intact one is what there is to lose.
  put(dir / "step-000001.checkpoint", "damaged");
  CHECK(contains(complaint([&] { load(0); }), "step-000003.checkpoint: too late"));
  CHECK(load(2)->step == 2);
  CHECK_THROWS_AS(
      load_latest_checkpoint(dir.path(), nullptr,
                             [](checkpoint const&, std::filesystem::path const&) { throw usage_error("no"); }),
      usage_error);
}
TEST_CASE("checkpoint: a header that lies under a right hash is refused all the same") {
  scratch_folder const dir;
  auto rehashed = [](std::string bytes) {
    xxh64 hash;
    hash.update(std::as_bytes(std::span(bytes).first(bytes.size() - 8)));
    return overwritten(bytes, bytes.size() - 8, 8, hash.digest());
  };
  save_checkpoint(dir.path(), sample(1));
  std::string const good = read_text_file(dir / "step-000001.checkpoint");
  auto open = [](std::filesystem::path const& p) { load_checkpoint(p); };
  for (std::uint64_t const lie : huge) {
    check_refused(dir / "bad", rehashed(overwritten(good, 16, 8, lie)), open);
    check_refused(dir / "bad", rehashed(overwritten(good, 8, 8, lie)), open);
  }
  auto const length = std::size_t(detail::load_unaligned<std::uint64_t>(std::as_bytes(std::span(good)).data() + 16));
  auto with_header = [&](json const& header) {
    std::string text = header.dump();
    text.resize(detail::padded_to_8(text.size()), ' ');
    std::string bytes = good.substr(0, 24) + text + good.substr(24 + length);
    bytes = overwritten(overwritten(bytes, 16, 8, text.size()), 8, 8, bytes.size());
    return rehashed(bytes);
  };
  json const header = json::parse(good.substr(24, length));
  put(dir / "same", with_header(header));
  CHECK(load_checkpoint(dir / "same").arrays == sample(1).arrays);
  for (json const& lie : {json(huge[0]), json(huge[1]), json(huge[3]), json(huge[6]), json(-1), json("3"), json()}) {
    for (char const* const place :
         {"/arrays/0/count", "/arrays/2/count", "/arrays/0/name", "/state_bytes", "/arrays", "/step"}) {
      if (std::string(place) == "/step" && lie.is_number_unsigned()) continue;  // any step may be true
      if (std::string(place) == "/arrays/0/name" && lie.is_string()) continue;  // as may any name
      json bad = header;
      bad[json::json_pointer(place)] = lie;
      INFO(bad.dump());
      check_refused(dir / "bad", with_header(bad), open);
    }
  }
}

TEST_CASE("checkpoint: a process killed at any moment of saving leaves a checkpoint that loads") {
  scratch_folder const dir;
  checkpoint big = sample(1);
  big.arrays["big"] = std::vector<float>(300000, 0.5f);
  save_checkpoint(dir.path(), big);
  for (int round = 0; round < 12; ++round) {
    pid_t const child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      try {
        for (std::uint64_t step = 2;; ++step) {
          big.step = step;
          save_checkpoint(dir.path(), big);
        }
      } catch (...) {
      }
      ::_exit(1);
    }
    ::usleep(useconds_t(3000 + 1700 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    int messages = 0;
    auto const c = load_latest_checkpoint(dir.path(), [&](std::string const&) { ++messages; });
    REQUIRE(c);
    CHECK(c->arrays.at("big") == big.arrays.at("big"));
    CHECK(messages == 0);
  }
  put(dir / "step-000007.checkpoint.partial-123", "half");
  put(dir / "mine.partial-123", "somebody else's");
  save_checkpoint(dir.path(), big);
  int files = 0;
  for (auto const& entry : std::filesystem::directory_iterator(dir.path())) {
    INFO(entry.path());
    bool const expected = entry.path().extension() == ".checkpoint" || entry.path().filename() == "mine.partial-123";
    CHECK(expected);
    ++files;
  }
  CHECK(files >= 2);
}

}  // namespace checkpoint_test
