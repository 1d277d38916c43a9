#pragma once
// The state of the running block, the options of a run, and what was found.
#include "fiber.hpp"
#include "language.hpp"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace cuda_emulation {

/// A place in the source; clang 14 has no std::source_location here.
struct location {
  char const* file = "";
  unsigned line = 0;
  static constexpr location current(char const* f = __builtin_FILE(), unsigned l = __builtin_LINE()) { return {f, l}; }
  bool operator==(location const& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }
  std::string text() const {
    std::string name = file;
    if (auto const slash = name.rfind('/'); slash != name.npos) name.erase(0, slash + 1);
    return name + ":" + std::to_string(line);
  }
};

enum class waits_for : std::uint8_t { nothing, block, warp };
enum class thread_order { ascending, descending, random };
enum class collective : std::uint8_t {
  sync,
  shuffle,
  ballot,
  add,
  min,
  max,
  bit_and,
  bit_or,
  match_any,
  matrix_access,
  matrix_product,
  bf16_product,
  rows,
  transposed_rows
};

/// A copy that a thread has begun and not waited for.
struct begun_copy {
  void* to;
  void const* from;
  unsigned group;
};

struct emulated_thread {
  uint3 index{};
  unsigned linear = 0;
  bool started = false, done = false;
  fiber* runs_on = nullptr;
  // where it waits
  waits_for wait = waits_for::nothing;
  collective operation{};
  char const* call = "";
  location place{};
  int predicate = 0;              // of __syncthreads_or and its like
  unsigned mask = 0, source = 0;  // of a warp collective, and the lane whose value is asked for
  std::uint64_t given = 0, got = 0;
  unsigned warp_epoch = 0;  // counts __syncwarp
  std::vector<begun_copy> copies;
  unsigned copy_groups = 0;  // committed so far

  unsigned lane() const { return linear & 31u; }
};

struct emulation_options {
  thread_order order = thread_order::ascending;  ///< of the threads of a block and of the blocks of a grid
  std::uint64_t seed = 1;                        ///< of the random order
  bool lazy_streams = false;  ///< queued work runs only when something waits for it, which shows a missing wait
  std::size_t shared_static_limit = 48 << 10;  // bytes of a block
  unsigned threads_limit = 1024;

  /// Order and streams as ATMANRL_EMULATION_ORDER (ascending, descending, random) and ATMANRL_EMULATION_LAZY ask.
  static emulation_options from_environment() {
    emulation_options o;
    if (char const* const wanted = std::getenv("ATMANRL_EMULATION_ORDER")) {
      std::string const order = wanted;
      if (order != "ascending" && order != "descending" && order != "random") {
        std::fprintf(stderr, "cuda_emulation: ATMANRL_EMULATION_ORDER is %s\n", wanted);
        std::abort();
      }
      o.order = order == "random"       ? thread_order::random
                : order == "descending" ? thread_order::descending
                                        : thread_order::ascending;
    }
    o.lazy_streams = std::getenv("ATMANRL_EMULATION_LAZY") != nullptr;
    return o;
  }
};

inline int devices = 1;  ///< what cudaGetDeviceCount finds

struct device_properties {
  int major = 9, minor = 0;  ///< compute capability

  /// sharedMemPerBlockOptin: bytes of a block, static and dynamic (CUDA C++ Programming Guide, "Technical
  /// Specifications per Compute Capability").
  std::size_t shared_limit() const {
    if (major == 8) return (minor == 6 || minor == 9 ? 99 : 163) << 10;
    return (major < 12 ? 227 : 99) << 10;
  }
};
/// Of the device with that ordinal; a test may change them.
inline device_properties& properties_of(int device) {
  static device_properties all[64];
  return all[device];
}

/// What the program was compiled for, as 10 major + minor. Code runs on devices of its major version and the same or a
/// later minor one; PTX on all that come later.
struct compiled_code {
  std::vector<int> cubins{80, 90, 100};
  int ptx = 100;  ///< 0: none

  bool runs_on(device_properties const& d) const {
    int const capability = 10 * d.major + d.minor;
    for (int const cubin : cubins)
      if (cubin / 10 == d.major && cubin <= capability) return true;
    return ptx > 0 && ptx <= capability;
  }
};
inline compiled_code& program() {
  static compiled_code p;
  return p;
}

/// Of the host thread, as cudaSetDevice has left it.
inline thread_local constinit int current_device = 0;

/// Read by the tracer before static initialisation, so it is not in `block_state`.
inline constinit bool in_kernel = false;

struct block_state {
  emulation_options options = emulation_options::from_environment();
  std::recursive_mutex mutex;
  // threads and the fibers that they run on
  std::vector<emulated_thread> threads;
  std::vector<unsigned> arrived;  // per warp: lanes that wait in a collective
  std::vector<fiber*> idle;
  std::vector<std::unique_ptr<fiber>> fibers;
  fiber scheduler;
  emulated_thread* running = nullptr;
  std::function<void()> const* body = nullptr;
  bool abandoned = false;
  unsigned barrier_epoch = 0;
  int any = 0, all = 1, count = 0;  // of the predicates at the barrier just passed
  // shared memory: the dynamic part, then the static arrays in the order of their first use
  static constexpr std::size_t shared_capacity = 256 << 10;
  struct static_array {
    void const* key;
    std::size_t offset, bytes;
  };
  std::byte* shared = nullptr;
  std::size_t dynamic_bytes = 0, shared_used = 0;
  std::vector<static_array> static_arrays;
  // what was found
  std::vector<std::string> reports;
  std::string kernel = "kernel";
  int device = 0;  // on which it runs
  std::uint64_t switches = 0, barriers = 0, collectives = 0;
  // the tracer's hooks
  void (*on_block)() = nullptr;
  void (*on_kernel)() = nullptr;
  void (*on_write)(void*, std::size_t) = nullptr;                    // device memory written by a copy or a library
  void (*on_read)(void const*, std::size_t, char const*) = nullptr;  // and read by one
  void (*on_release)(void const*, std::size_t) = nullptr;            // and freed
};

/// Never destroyed, so that static destructors may still use it.
inline block_state& state() {
  static auto* const s = new block_state;
  return *s;
}

inline emulation_options& options() { return state().options; }

inline std::string name_of(emulated_thread const& t) {
  char text[160];
  std::snprintf(text, sizeof text, "block (%u,%u,%u) thread (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z, t.index.x,
                t.index.y, t.index.z);
  return text;
}

/// Remembers what was found; a kernel during which something was found fails. ATMANRL_EMULATION_ABORT stops a debugger.
inline void report(std::string const& sentence, std::string const& of = state().kernel) {
  constexpr std::size_t most = 50;
  auto& s = state();
  if (s.reports.size() < most) s.reports.push_back(of + ": " + sentence);
  if (std::getenv("ATMANRL_EMULATION_ABORT")) {
    std::fprintf(stderr, "cuda_emulation: %s: %s\n", of.c_str(), sentence.c_str());
    std::abort();
  }
}

/// What was found since the last call.
inline std::vector<std::string> take_reports() { return std::exchange(state().reports, {}); }

}  // namespace cuda_emulation
