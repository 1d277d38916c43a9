#pragma once

/// \file
/// The tiles that a thread holds while it multiplies, the processor's or those of a twin.

#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/amx_twin.hpp>
#include <atmanrl/cpu/amx_unit.hpp>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {
namespace amx {

/// Configured from its beginning to its end. The system saves tiles with the thread's other registers until they are
/// released.
class thread_tiles {
 public:
  thread_tiles(bool twin, configuration const& shapes) : uses_twin_(twin) { configure(shapes); }
  ~thread_tiles() {
    with_unit([](auto& unit) { unit.release(); });
  }
  thread_tiles(thread_tiles const&) = delete;
  thread_tiles& operator=(thread_tiles const&) = delete;

  void configure(configuration const& shapes) {
    with_unit([&](auto& unit) { unit.configure(shapes); });
  }

  /// f(unit) with the instructions or the twin.
  template <class F>
  void with_unit(F const& f) {
    if (uses_twin_) return f(twin_);
#if defined(__x86_64__) && defined(__GNUC__)
    instructions unit;
    f(unit);
#endif
  }

 private:
  bool uses_twin_;
  amx::twin twin_;
};

}  // namespace amx
}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
