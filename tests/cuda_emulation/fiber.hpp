#pragma once
// Fibers: a stack and the registers that a call preserves. Switching costs a few nanoseconds on x86-64.
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#if !defined(__x86_64__)
#  include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#  include <sanitizer/asan_interface.h>
#  include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
// System V x86-64: save the callee-saved registers, swap stacks.
extern "C" void cuda_emulation_switch(void** save_stack_pointer, void* to_stack_pointer);
asm(R"(
.pushsection .text.cuda_emulation_switch,"axG",@progbits,cuda_emulation_switch,comdat
.weak cuda_emulation_switch
.type cuda_emulation_switch,@function
cuda_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulation_switch,.-cuda_emulation_switch
.popsection
)");
#endif

namespace cuda_emulation {

inline constexpr std::size_t page_bytes = 4096;

struct fiber {
  static constexpr std::size_t stack_bytes = 128 << 10;  // only touched pages cost memory

  std::byte* stack = nullptr;  ///< its first page is closed: an overflow faults instead of meeting a neighbour
  std::size_t size = 0;
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context{};
#endif
  void* sanitizer_state = nullptr;

  /// Makes the fiber begin at `entry` when it is next switched to.
  void prepare(void (*entry)()) {
    if (!stack) allocate_stack();
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack + page_bytes, size - page_bytes);  // what an abandoned thread left after
#endif
#if defined(__x86_64__)
    void** p = reinterpret_cast<void**>(stack + size) - 2;  // `ret` leaves the stack as after a call: 8 modulo 16
    *p = reinterpret_cast<void*>(entry);
    p -= 6;
    std::fill_n(p, 6, nullptr);
    stack_pointer = p;
#else
    getcontext(&context);
    context.uc_stack.ss_sp = stack + page_bytes;
    context.uc_stack.ss_size = size - page_bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
#endif
  }

 private:
  void allocate_stack() {
    static std::size_t colour = 0;  // stacks a power of two apart would fight for the same lines of the cache
    void* const p =
        mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      std::perror("cuda_emulation: stack of a thread");
      std::abort();
    }
    stack = static_cast<std::byte*>(p);
    mprotect(stack, page_bytes, PROT_NONE);
    size = stack_bytes - colour++ * 448 % 8192 / 64 * 64;
  }
};

inline void switch_between(fiber& from, fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.sanitizer_state, to.stack ? to.stack + page_bytes : nullptr,
                                 to.stack ? to.size - page_bytes : 0);
#endif
#if defined(__x86_64__)
  cuda_emulation_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  // Where it comes back from: the scheduler has the stack of the host thread that launches.
  void const* bottom;
  std::size_t size;
  __sanitizer_finish_switch_fiber(from.sanitizer_state, &bottom, &size);
  to.stack = static_cast<std::byte*>(const_cast<void*>(bottom)) - page_bytes;
  to.size = size + page_bytes;
#endif
}

}  // namespace cuda_emulation
