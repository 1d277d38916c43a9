#include <atmanrl/io/paths.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace paths_test {
namespace {

std::size_t entries(std::filesystem::path const& folder) {
  return std::size_t(std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator{}));
}

}  // namespace

TEST_CASE("status_of: nothing there is an answer, what the system will not say is an error with the path") {
  scratch_folder const dir;
  put(dir / "file", "x");
  std::filesystem::create_symlink("loop", dir / "loop");
  CHECK(is_there(dir / "file"));
  CHECK_FALSE(is_folder(dir / "file"));
  CHECK(is_folder(dir.path()));
  CHECK_FALSE(is_there(dir / "nothing"));
  CHECK_FALSE(is_there(dir / "file/below"));
  CHECK(contains(complaint([&] { is_there(dir / "loop"); }), (dir / "loop").string() + ": "));
  std::string const long_name(300, 'n');
  CHECK(contains(complaint([&] { is_there(dir / long_name); }), "File name too long"));
  CHECK_NOTHROW(check_input_path("--model", dir / "nothing"));
  CHECK(contains(complaint<usage_error>([&] { check_input_path("--model", dir / long_name); }), "--model /"));
}

TEST_CASE("check_output_file: what could not be written is refused with the option's name, before the work") {
  scratch_folder const dir;
  put(dir / "file", "old");
  auto const refused = [&](std::filesystem::path const& path) {
    return complaint<usage_error>([&] { check_output_file("--out", path); });
  };
  CHECK_FALSE(refused(dir / "new.json"));
  CHECK_FALSE(refused(dir / "file"));
  CHECK(read_text_file(dir / "file") == "old");
  CHECK(contains(refused(dir / "results/new.json"), "there is no folder " + (dir / "results").string()));
  CHECK(contains(refused(dir / "file/new.json"), "there is no folder"));
  CHECK(contains(refused(dir.path()), "is there and not a regular file"));
  CHECK(contains(refused(dir.path() / ""), "is not a file's name"));
  CHECK(contains(refused("/dev/null"), "--out /dev/null: is there and not a regular file"));
  // The name fits, but not the name under which the file is written first.
  CHECK(contains(refused(dir / std::string(250, 'n')), "File name too long"));
  CHECK(entries(dir.path()) == 1);
}

TEST_CASE("check_output_folder: it is tried with all folders above it, and nothing is left after") {
  scratch_folder const dir;
  put(dir / "file", "x");
  std::filesystem::create_directories(dir / "there");
  auto const refused = [&](std::filesystem::path const& path) {
    return complaint<usage_error>([&] { check_output_folder("--out", path); });
  };
  CHECK_FALSE(refused(dir / "new"));
  CHECK_FALSE(refused(dir / "new/"));
  CHECK_FALSE(refused(dir / "a/b/c"));
  CHECK_FALSE(refused(dir / "there"));
  CHECK(contains(refused(dir / "file"), "exists and is not a folder"));
  CHECK(contains(refused(dir / "file/below"), "cannot be made: Not a directory"));
  CHECK(contains(refused(dir / std::string(300, 'n')), "File name too long"));
  CHECK(contains(refused(dir / "a" / std::string(300, 'n') / "b"), "File name too long"));
  CHECK(contains(refused(""), "is not a folder's name"));
  CHECK(entries(dir.path()) == 2);
  CHECK(entries(dir / "there") == 0);
  if (::geteuid() != 0) CHECK(contains(refused("/proc/1/new"), "--out /proc/1/new"));
}

TEST_CASE("check_output_folder: the working directory can be filled and not be replaced") {
  scratch_folder const dir;
  std::filesystem::path const before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  for (std::filesystem::path const& here : {std::filesystem::path("."), std::filesystem::path("./"), dir.path()}) {
    CAPTURE(here);
    CHECK(contains(complaint<usage_error>([&] { check_output_folder("--out", here); }),
                   "--out " + here.string() + ": is the working directory"));
    CHECK_NOTHROW(check_output_folder("--out", here, folder_use::filled));
  }
  CHECK_NOTHROW(check_output_folder("--out", "new"));
  std::filesystem::current_path(before);
  CHECK(entries(dir.path()) == 0);
}

}  // namespace paths_test
