#pragma once
// Lets `cpu::amx::instructions` run on processors without AMX: they raise SIGILL there, and a handler does to a twin
// what the instruction says. So which tiles, addresses and strides the compiled instructions name is tested anywhere.
#include <atmanrl/cpu/amx_twin.hpp>

#if defined(__x86_64__) && defined(__linux__)
#  include <ucontext.h>
#  include <csignal>
#  include <cstring>

namespace atmanrl_test {

inline constexpr bool can_emulate_amx = true;

class amx_emulation {
 public:
  amx_emulation() {
    struct sigaction action {};
    action.sa_sigaction = execute;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, &before_);
  }
  ~amx_emulation() { sigaction(SIGILL, &before_, nullptr); }
  amx_emulation(amx_emulation const&) = delete;
  amx_emulation& operator=(amx_emulation const&) = delete;

  /// The tiles of this thread.
  static atmanrl::cpu::amx::twin& tiles() {
    thread_local atmanrl::cpu::amx::twin t;
    return t;
  }

 private:
  // Three-byte VEX prefix, opcode, ModRM and what follows it (Intel's manual, volume 2, chapter 2).
  static void execute(int, siginfo_t*, void* context) {
    constexpr int numbers[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                               REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    auto const value = [&](int number) { return registers[numbers[number]]; };
    auto const* p = reinterpret_cast<unsigned char const*>(registers[REG_RIP]);
    if (p[0] != 0xc4 || (p[1] & 31) != 2) return other();
    int const high_index = p[1] & 0x40 ? 0 : 8, high_base = p[1] & 0x20 ? 0 : 8, third = (~p[2] >> 3) & 15,
              prefix = p[2] & 3, opcode = p[3], mod = p[4] >> 6, reg = (p[4] >> 3) & 7, rm = p[4] & 7;
    p += 5;
    long long address = 0, stride = 0;
    bool relative = false;
    if (mod != 3) {
      int base = rm | high_base;
      if (rm == 4) {
        base = (*p & 7) | high_base;
        if (int const index = ((*p >> 3) & 7) | high_index; index != 4) stride = value(index) << (*p >> 6);
        ++p;
      }
      relative = mod == 0 && rm == 5;
      if (!relative) address = value(base);
      if (mod == 1) address += *reinterpret_cast<signed char const*>(p++);
      if (mod == 2 || relative) {
        int displacement;
        std::memcpy(&displacement, p, 4);
        address += displacement;
        p += 4;
      }
    }
    if (relative) address += reinterpret_cast<long long>(p);
    enum { none, x66, xf3, xf2 };
    auto* const memory = reinterpret_cast<void*>(address);
    if (opcode == 0x49 && prefix == none && mod != 3)
      tiles().configure(*static_cast<atmanrl::cpu::amx::configuration const*>(memory));
    else if (opcode == 0x49 && prefix == none)
      tiles().release();
    else if (opcode == 0x49 && prefix == xf2)
      tiles().zero(reg);
    else if (opcode == 0x4b && prefix == xf2)
      tiles().load(reg, memory, stride);
    else if (opcode == 0x4b && prefix == xf3)
      tiles().store(reg, memory, stride);
    else if (opcode == 0x5c && prefix == xf3 && mod == 3)
      tiles().multiply(reg, rm, third);
    else if (opcode == 0x5e && prefix == xf2 && mod == 3)
      tiles().multiply_bytes(reg, rm, third);
    else
      return other();
    registers[REG_RIP] = reinterpret_cast<long long>(p);
  }

  // Another instruction: the program ends as it does without a handler.
  static void other() { std::signal(SIGILL, SIG_DFL); }

  struct sigaction before_ {};
};

}  // namespace atmanrl_test
#else
namespace atmanrl_test {
inline constexpr bool can_emulate_amx = false;
}
#endif
