#pragma once

/// \file
/// Who holds how much of a backend's memory: a book that a backend keeps when it only counts. Code that allocates names
/// what for (`memory_use_scope`), which costs backends without a book nothing.

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <numeric>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// What memory is for.
enum class memory_use { weights, gradient, optimizer, cache, activations, head, masks, workspace, other };
inline constexpr std::array<std::string_view, 9> memory_use_names{"weights",     "master weights and gradient",
                                                                  "optimizer",   "keys and values",
                                                                  "activations", "head",
                                                                  "masks",       "workspace",
                                                                  "other"};

/// Bytes by what they are for.
struct memory_by_use {
  std::array<std::size_t, memory_use_names.size()> bytes{};

  std::size_t& operator[](memory_use u) { return bytes[std::size_t(u)]; }
  std::size_t operator[](memory_use u) const { return bytes[std::size_t(u)]; }
  std::size_t all() const { return std::accumulate(bytes.begin(), bytes.end(), std::size_t{0}); }
};

class memory_ledger {
 public:
  void add(void const* p, std::size_t bytes) {
    use_of_.emplace(p, use_);
    now_[use_] += bytes;
    if (now_.all() > peak_.all()) peak_ = now_;
  }
  void remove(void const* p, std::size_t bytes) noexcept {
    auto const at = use_of_.find(p);
    if (at == use_of_.end()) return;
    now_[at->second] -= bytes;
    use_of_.erase(at);
  }

  /// What allocations from now on are for. \returns what they were for
  memory_use enter(memory_use u) { return std::exchange(use_, u); }

  memory_by_use const& now() const { return now_; }
  /// At the moment when all of them together were most.
  memory_by_use const& peak() const { return peak_; }

 private:
  memory_use use_ = memory_use::other;
  memory_by_use now_, peak_;
  std::unordered_map<void const*, memory_use> use_of_;
};

/// A backend that may keep a book: `memory_ledger* ledger()`, null where it keeps none.
template <class B>
concept KeepsLedger = requires(B& backend) {
  { backend.ledger() } -> std::same_as<memory_ledger*>;
};

/// Whether a backend only counts: nothing is computed, and its large arrays hold no numbers.
template <class B>
bool only_counts([[maybe_unused]] B& backend) {
  if constexpr (KeepsLedger<B>)
    return backend.ledger() != nullptr;
  else
    return false;
}

/// Whether it counts nothing but memory, so that of pieces of work which ask for the same one is enough. One that
/// counts work as well says so: `static constexpr bool counts_work = true`.
template <class B>
bool counts_memory_alone(B& backend) {
  if constexpr (requires { requires B::counts_work; })
    return false;
  else
    return only_counts(backend);
}

/// While it lives, the backend's memory is for `use`. The innermost scope counts.
class memory_use_scope {
 public:
  template <class B>
  memory_use_scope([[maybe_unused]] B& backend, [[maybe_unused]] memory_use use) {
    if constexpr (KeepsLedger<B>)
      if ((ledger_ = backend.ledger())) before_ = ledger_->enter(use);
  }
  memory_use_scope(memory_use_scope const&) = delete;
  memory_use_scope& operator=(memory_use_scope const&) = delete;
  ~memory_use_scope() {
    if (ledger_) ledger_->enter(before_);
  }

 private:
  memory_ledger* ledger_ = nullptr;
  memory_use before_{};
};

}  // namespace atmanrl::inline ATMANRL_ABI
