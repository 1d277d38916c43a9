#pragma once
// Standard output and standard error as what they are: something that may be closed, full, or a pipe that nobody reads
// any more. Text that cannot be printed never ends a run.

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <string_view>

namespace terminal {

/// Opens /dev/null for each of standard input, output and error that is closed. A program calls it before it opens
/// anything: the system gives the lowest free number to the next file, and what is printed would land in it.
inline void open_closed_standard_streams() {
  for (int const number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    // Those below are open by now, so that the number which is free is this one.
    if (::fcntl(number, F_GETFD) < 0) (void)::open("/dev/null", O_RDWR);
}

/// Writes text and flushes it.
/// \returns whether it went out; a full disk or a closed pipe is `false`, not an exception and not a signal
inline bool print_if_possible(std::FILE* to, std::string_view text) {
  // A closed pipe raises SIGPIPE in the thread that writes. It is held back and taken away again, because how a program
  // answers that signal is not this function's to change.
  sigset_t pipe, before, pending;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  sigpending(&pending);
  bool const was_pending = sigismember(&pending, SIGPIPE) == 1;
  bool const held = pthread_sigmask(SIG_BLOCK, &pipe, &before) == 0;
  bool const whole = std::fwrite(text.data(), 1, text.size(), to) == text.size();
  bool const flushed = std::fflush(to) == 0;
  std::clearerr(to);
  if (held) {
    timespec const at_once{};
    if (!was_pending) (void)sigtimedwait(&pipe, nullptr, &at_once);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  return whole && flushed;
}

}  // namespace terminal
