#pragma once

/// \file
/// Work that is done again and again with the same arguments. A backend on which a launch costs may record it once and
/// replay it then as one launch; on all others it is called.

#include <atmanrl/backend/backend.hpp>

#include <concepts>
#include <optional>
#include <type_traits>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
struct some_work {
  void operator()() const {}
};
}  // namespace detail

/// `record(f)` calls f and keeps what it launches, without doing it; `replay` does that. The kept work refers to memory
/// by address, so it is of no use once `is_current` says that memory has been given back. `records()` is false where
/// the user wants none of it.
template <class B>
concept RecordingBackend = Backend<B> && requires(B& backend, B const& c, detail::some_work work) {
  { c.records() } -> std::convertible_to<bool>;
  requires !std::is_void_v<decltype(backend.record(work))>;
  backend.replay(backend.record(work));
  { c.is_current(backend.record(work)) } -> std::convertible_to<bool>;
};

/// One piece of such work: called the first time, which makes what memory it takes grow, recorded the second time, and
/// replayed from then on. A replay runs no code of the host, so whatever the work reads must lie in the backend's
/// memory or stay as it is, and what it leaves behind on the host is that of the call before.
template <Backend B>
class repeated {
 public:
  explicit repeated(B& backend) : backend_(&backend) {}

  template <class F>
  void operator()(F const& work) {
    if constexpr (RecordingBackend<B>) {
      if (backend_->records()) {
        if (recorded_ && !backend_->is_current(*recorded_)) forget();
        if (recorded_ || done_before_) {
          if (!recorded_) recorded_.emplace(backend_->record(work));
          return backend_->replay(*recorded_);
        }
        done_before_ = true;
      }
    }
    work();
  }

  /// The same has been done in another way: the next call records.
  void was_done() { done_before_ = true; }

  /// The work is another from now on. Whoever changes its arguments, or what it leaves behind on the host, says so.
  void forget() {
    done_before_ = false;
    if constexpr (RecordingBackend<B>) recorded_.reset();
  }

 private:
  struct nothing {};
  template <class Any>
  struct recorded_by {
    using type = nothing;
  };
  template <RecordingBackend Any>
  struct recorded_by<Any> {
    using type = std::optional<decltype(std::declval<Any&>().record(detail::some_work{}))>;
  };

  B* backend_;
  bool done_before_ = false;
  [[no_unique_address]] typename recorded_by<B>::type recorded_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
