// What becomes of files and of printed text where standard output or standard error is closed, full or broken. Each
// case runs in a child, because these streams are the test's own, too.
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/jsonl.hpp>

#include <sys/wait.h>

#include "../../examples/terminal/standard_streams.hpp"
#include "catch.hpp"
#include "io/scratch.hpp"

using namespace atmanrl;
using namespace atmanrl_test;
namespace standard_streams_test {

using namespace terminal;

namespace {

/// \returns the child's exit code, -1 when a signal ended it
template <class Act>
int in_a_child(Act act) {
  pid_t const child = ::fork();
  if (child == 0) {
    int code = 99;
    try {
      code = act();
    } catch (...) {
    }
    ::_exit(code);
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return -2;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("standard_streams: with standard output and error closed, no file of a run gets their numbers") {
  scratch_folder const dir;
  CHECK(in_a_child([&] {
          for (int const number : {0, 1, 2}) ::close(number);
          jsonl_writer lines(dir / "metrics.jsonl");
          atomic_file file(dir / "state");
          (void)!::write(1, "printed\n", 8);
          (void)!::write(2, "said\n", 5);
          lines.append(json(1));
          file.write(std::string_view("state"));
          file.commit();
          return ::fcntl(0, F_GETFD) < 0 && ::fcntl(1, F_GETFD) < 0 && ::fcntl(2, F_GETFD) < 0 ? 0 : 1;
        }) == 0);
  CHECK(read_text_file(dir / "metrics.jsonl") == "1\n");
  CHECK(read_text_file(dir / "state") == "state");
}

TEST_CASE("standard_streams: closed ones are opened on nothing, and open ones stay what they are") {
  scratch_folder const dir;
  CHECK(in_a_child([&] {
          ::close(0);
          ::close(2);
          int const kept = ::open((dir / "out").c_str(), O_WRONLY | O_CREAT, 0600);  // takes 0
          ::dup2(kept, 1);
          ::close(kept);
          open_closed_standard_streams();
          char byte = 0;
          if (::read(0, &byte, 1) != 0 || ::write(2, "x", 1) != 1) return 1;
          if (::write(1, "kept", 4) != 4) return 2;
          int const next = ::open("/dev/null", O_RDONLY);
          return next > 2 ? 0 : 3;
        }) == 0);
  CHECK(read_text_file(dir / "out") == "kept");
}

TEST_CASE("print_if_possible: a full device and a closed pipe are no exception and no signal") {
  CHECK(in_a_child([&] {
          std::FILE* const full = std::fopen("/dev/full", "w");
          if (!full) return 1;
          return print_if_possible(full, "text") || print_if_possible(full, "again") ? 2 : 0;
        }) == 0);
  CHECK(in_a_child([&] {
          int ends[2];
          if (::pipe(ends) != 0) return 1;
          ::close(ends[0]);
          std::FILE* const broken = ::fdopen(ends[1], "w");
          if (print_if_possible(broken, "text")) return 2;
          // How the program answers the signal is as it was: nothing pends, nothing is held back.
          sigset_t held, pending;
          pthread_sigmask(SIG_SETMASK, nullptr, &held);
          sigpending(&pending);
          return sigismember(&held, SIGPIPE) || sigismember(&pending, SIGPIPE) ? 3 : 0;
        }) == 0);
  scratch_folder const dir;
  std::FILE* const file = std::fopen((dir / "f").c_str(), "w");
  REQUIRE(file);
  CHECK(print_if_possible(file, "text"));
  CHECK(read_text_file(dir / "f") == "text");
  std::fclose(file);
}

}  // namespace standard_streams_test
