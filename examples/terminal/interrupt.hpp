#pragma once
// Ctrl-C as a wish: the run looks at it between two steps. A second one ends the program at once.

#include <csignal>

#include <array>
#include <cstddef>

namespace terminal {

namespace detail {
// A signal handler can reach nothing but a variable of static storage.
inline volatile std::sig_atomic_t caught_signal = 0;
extern "C" {
inline void note_signal(int number) { caught_signal = number; }
}
}  // namespace detail

/// Listens for SIGINT, SIGTERM and SIGUSR1, which batch systems can send in time and mpirun passes on to its ranks,
/// while it lives; the handlers from before come back afterwards.
class interrupt_listener {
 public:
  interrupt_listener() {
    detail::caught_signal = 0;
    struct sigaction act {};
    act.sa_handler = detail::note_signal;
    sigemptyset(&act.sa_mask);
    act.sa_flags = SA_RESTART | int(SA_RESETHAND);  // the second signal does what it always does
    for (std::size_t i = 0; i < signals.size(); ++i) sigaction(signals[i], &act, &before_[i]);
  }
  interrupt_listener(interrupt_listener const&) = delete;
  interrupt_listener& operator=(interrupt_listener const&) = delete;
  ~interrupt_listener() {
    for (std::size_t i = 0; i < signals.size(); ++i) sigaction(signals[i], &before_[i], nullptr);
  }

  /// Number of the signal that came, 0 for none.
  int caught() const { return detail::caught_signal; }

 private:
  static constexpr std::array signals{SIGINT, SIGTERM, SIGUSR1};
  std::array<struct sigaction, signals.size()> before_{};
};

}  // namespace terminal
