#include <atmanrl/io/file.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

#include <sys/stat.h>

using namespace atmanrl;
namespace file_test {

using atmanrl_test::complaint;
using atmanrl_test::contains;
using atmanrl_test::put;
using atmanrl_test::scratch_folder;

TEST_CASE("file: a mapped file shows the bytes and can be moved") {
  scratch_folder const dir;
  put(dir / "f", std::string("a\0b", 3));
  mapped_file a(dir / "f");
  REQUIRE(a.bytes().size() == 3);
  mapped_file b(std::move(a));
  CHECK(a.bytes().empty());
  CHECK(b.bytes()[2] == std::byte{'b'});
  CHECK(b.path() == dir / "f");
  put(dir / "empty", "");
  CHECK(mapped_file(dir / "empty").bytes().empty());
}

TEST_CASE("file: missing files, folders and pipes are refused by name, without waiting") {
  scratch_folder const dir;
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  for (char const* name : {"missing", "pipe", "."}) {
    std::string const full = (dir / name).string();
    CHECK(contains(complaint([&] { mapped_file f(full); }), full));
    CHECK(contains(complaint([&] { read_text_file(full); }), full));
  }
}

TEST_CASE("file: a text larger than allowed is refused before it is read") {
  scratch_folder const dir;
  put(dir / "f", "12345");
  CHECK(read_text_file(dir / "f", 5) == "12345");
  CHECK(contains(complaint([&] { read_text_file(dir / "f", 4); }), "has 5 bytes"));
}

TEST_CASE("file: an atomic write replaces the content and leaves no other file") {
  scratch_folder const dir;
  write_file_atomically(dir / "f", "old");
  write_file_atomically(dir / "f", "new");
  CHECK(read_text_file(dir / "f") == "new");
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("file: an atomic file that is not committed leaves the old content and no other file") {
  scratch_folder const dir;
  write_file_atomically(dir / "f", "old");
  {
    atomic_file f(dir / "f");
    f.write("half");
    CHECK(read_text_file(dir / "f") == "old");
    CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 2);
  }
  CHECK(read_text_file(dir / "f") == "old");
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("file: writing into a folder that does not exist names the file") {
  CHECK(contains(complaint([] { write_file_atomically("/nowhere/at/all", "x"); }), "/nowhere/at/all"));
}

TEST_CASE("file: a Git LFS pointer in the place of any file is called by its name") {
  scratch_folder const dir;
  std::string const pointer =
      "version https://git-lfs.github.com/spec/v1\n"
      "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 269060552\n";
  put(dir / "model.safetensors", pointer);
  for (auto const& open : std::initializer_list<std::function<void()>>{
           [&] { mapped_file{dir / "model.safetensors"}; }, [&] { read_text_file(dir / "model.safetensors"); }}) {
    auto const text = complaint(open);
    CHECK(contains(text, (dir / "model.safetensors").string() + ": is a Git LFS pointer"));
  }
  put(dir / "essay.txt", "About " + pointer);
  CHECK(read_text_file(dir / "essay.txt") == "About " + pointer);
  put(dir / "long.txt", pointer + std::string(2000, 'x'));
  CHECK_NOTHROW(mapped_file{dir / "long.txt"});
}

}  // namespace file_test
