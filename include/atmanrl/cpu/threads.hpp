#pragma once

/// \file
/// Threads and scratch memory of the CPU backend. Kernels split their work so that no result depends on the number of
/// threads: every output element is computed whole by one of them, or in blocks of fixed size that are merged in order.

#include <atmanrl/backend/host_memory.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/bf16_products.hpp>
#include <atmanrl/cpu/byte_products.hpp>
#include <atmanrl/cpu/thread_pool.hpp>

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

inline namespace ATMANRL_CPU_BUILD {

struct cpu_options {
  int threads = 0;  ///< 0: OMP_NUM_THREADS, else as many as the process may run on

  /// Models with bf16 weights round activations and output gradients to bf16, too, in products with weights and in
  /// attention's, where an instruction then does the work of several (`products`; docs/architecture.md says what it
  /// costs). True keeps them in float.
  bool exact_activations = false;

  /// Which instructions those products use. Named, it must be there: else a usage_error.
  bf16_products products = bf16_products::by_processor;

  /// Whether AMX computes gradients of weights, too. What is not `floats` must be there: else a usage_error.
  weight_gradients gradients = weight_gradients::floats;

  /// Forward products with the blocks of a quantised file round activations to 8 bits, 32 at a time, and multiply whole
  /// numbers, as llama.cpp does; gradients and panels of floats are computed as without (cpu/int8_groups.hpp,
  /// docs/performance.md). The bit rule holds, but log-probabilities are no longer those of the decoded model.
  bool int8_products = false;

  /// Which instructions compute these; the bits are the same. Named, it must be there: else a usage_error.
  byte_products int8_instructions = byte_products::by_processor;

  /// Nothing is computed: the backend counts the memory that it would take, its kernels' scratch included, and keeps a
  /// book of what for (backend/memory_ledger.hpp). Its arrays are addresses, and numbers read from them have no
  /// meaning.
  bool only_counts = false;
};

/// The part of `cpu_backend` that its kernels use. One host thread at a time may call into it.
class cpu_threads : public host_memory {
 public:
  using options_type = cpu_options;

  explicit cpu_threads(cpu_options options = {})
      : host_memory(options.only_counts),
        threads_(checked(options.threads)),
        products_(cpu::chosen_products(options.products, options.exact_activations)),
        gradients_(cpu::checked_gradients(options.gradients, products_)),
        int8_products_(options.int8_products),
        int8_instructions_(cpu::chosen_byte_products(options.int8_instructions, options.int8_products)),
        pool_(options.only_counts ? 1 : threads_) {
    scratch_.resize(std::size_t(threads_) + 1);
  }
  ~cpu_threads() {
    for (buffer& b : scratch_)
      if (b.data) deallocate(b.data, b.bytes);
  }

  int threads() const { return threads_; }
  /// How products with bf16 weights are computed, never `by_processor`.
  bf16_products products() const { return products_; }
  weight_gradients gradients() const { return gradients_; }
  /// Whether products with packed weights round activations to 8 bits.
  bool int8_products() const { return int8_products_; }
  /// How those are computed, never `by_processor`.
  byte_products int8_instructions() const { return int8_instructions_; }

  /// Scratch that all threads share during one kernel; undefined contents, valid until the kernel ends.
  float* shared_scratch(index_t floats) { return grown(scratch_.back(), floats); }

  /// Calls f(first, last) for contiguous parts of [0, items), one per thread, with at least `grain` items for each.
  template <class F>
  void split(index_t items, index_t grain, F const& f) {
    split_with_scratch(items, grain, 0, [&](index_t first, index_t last, float*) { f(first, last); });
  }

  /// The same with `floats` floats of scratch of its own for each thread: f(first, last, scratch).
  template <class F>
  void split_with_scratch(index_t items, index_t grain, index_t floats, F const& f) {
    if (items <= 0) return;
    int const team = int(std::clamp(items / std::max(grain, index_t{1}), index_t{1}, index_t(threads_)));
    reserve(team, floats);
    on_team(team, [&](int i) {
      index_t const first = items * i / team, last = items * (i + 1) / team;
      if (first < last) f(first, last, scratch_[std::size_t(i)].data);
    });
  }

  /// Calls f(item, scratch) for every item of [0, items), the next one by whichever thread is free: for items of
  /// unequal cost that write to different places.
  template <class F>
  void share_out(index_t items, bool worth_threads, index_t floats, F const& f) {
    take_turns(items, worth_threads ? items : 1, floats, [&](auto const& next, float* scratch) {
      for (index_t i; (i = next()) < items;) f(i, scratch);
    });
  }

  /// Calls f(next, scratch) on up to `team` threads; next() is the first item of [0, items) that nobody has taken, and
  /// `items` or more when there is none left. A thread that the system puts aside leaves its share to the others.
  template <class F>
  void take_turns(index_t items, index_t team, index_t floats, F const& f) {
    if (items <= 0) return;
    int const members = int(std::clamp(std::min(team, items), index_t{1}, index_t(threads_)));
    reserve(members, floats);
    struct alignas(128) {
      std::atomic<index_t> item{0};
    } shared;
    on_team(members, [&](int t) {
      f([&] { return shared.item.fetch_add(1, std::memory_order_relaxed); }, scratch_[std::size_t(t)].data);
    });
  }

 private:
  struct buffer {
    float* data = nullptr;
    std::size_t bytes = 0;
  };

  /// A team of one may throw.
  template <class F>
  void on_team(int team, F const& f) {
    if (ledger()) return;
    if (team == 1) return f(0);
    pool_.run(team, f);
  }

  static int checked(int threads) {
    expects<usage_error>(threads >= 0 && threads <= 4096, "threads is {}, but it must lie in 0 ... 4096", threads);
    return threads ? threads : cpu::default_threads();
  }

  // Before the threads begin, where running out of memory can still be thrown.
  void reserve(int team, index_t floats) {
    for (int i = 0; i < team; ++i) grown(scratch_[std::size_t(i)], floats);
  }
  float* grown(buffer& b, index_t floats) {
    std::size_t const wanted = std::size_t(floats) * sizeof(float);
    if (wanted > b.bytes) {
      memory_use_scope const named(*this, memory_use::workspace);
      if (b.data) deallocate(b.data, b.bytes);
      b = {};
      b.data = static_cast<float*>(allocate(wanted));
      b.bytes = wanted;
    }
    return b.data;
  }

  int threads_;
  bf16_products products_;
  weight_gradients gradients_;
  bool int8_products_;
  byte_products int8_instructions_;
  cpu::thread_pool pool_;
  std::vector<buffer> scratch_;  // one for each thread, then the shared one
};

class cpu_backend;  // complete only in cpu/cpu_backend.hpp, which brings all its kernels

}  // namespace ATMANRL_CPU_BUILD

namespace detail {
/// Elements per thread below which a parallel region costs more than it saves.
inline constexpr index_t worth_a_thread = 1 << 14;

/// Rows of `width` elements that are worth a thread.
constexpr index_t row_grain(index_t width) { return worth_a_thread / std::max(width, index_t{1}) + 1; }

template <class T>
consteval void computes_in_float() {
  static_assert(std::is_same_v<T, float>,
                "atmanrl: cpu_backend computes in float; use reference_backend for other scalars");
}
}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
