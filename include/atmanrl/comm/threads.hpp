#pragma once

/// \file
/// Ranks as threads of one process: for tests, and for programs that want to see what several ranks do without MPI.

#include <atmanrl/comm/calls.hpp>
#include <atmanrl/core/printable.hpp>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::comm {

/// Made by `run` alone. A call is two meetings of all threads: everybody has said what it sends and expects; everybody
/// has copied what is for it out of the others' memory.
class threads {
 public:
  /// `rank_main(threads&)` in each of `ranks` threads; the function object is shared. Returns when all have returned.
  ///
  /// A rank that throws ends the others in the call that they wait in, or in their next one: that throws
  /// `communication_error` there, and `run` throws what the first rank to fail has thrown, of ranks that speak for
  /// themselves if there is one. A rank that returns while another waits for it is such a failure. Work between calls
  /// is not interrupted.
  template <class F>
  static void run(int ranks, F&& rank_main) {
    expects<usage_error>(ranks >= 1, "a run has at least one rank, not {}", ranks);
    meeting_place place(ranks);
    std::vector<std::thread> started;
    try {
      for (int r = 0; r < ranks; ++r)
        started.emplace_back([&place, &rank_main, r] {
          try {
            threads mine(place, r);
            rank_main(mine);
            place.has_returned(r);
          } catch (...) {
            place.has_failed(r);
          }
        });
    } catch (...) {  // a thread could not be started
      place.has_failed(int(started.size()));
    }
    for (auto& t : started) t.join();
    if (place.failure) std::rethrow_exception(place.failure);
  }

  threads(threads const&) = delete;
  threads& operator=(threads const&) = delete;

  int rank() const { return rank_; }
  int size() const { return int(place_.posts.size()); }
  traffic volume() const { return volume_; }

  void exchange(std::span<std::byte const> sent, std::span<std::size_t const> sent_bytes, std::span<std::byte> received,
                std::span<std::size_t const> received_bytes) {
    exchange_parts(detail::parts_of(sent, sent_bytes), detail::parts_of(received, received_bytes));
  }
  void exchange_parts(sent_parts sent, received_parts received) {
    together({.kind = detail::call::exchange, .parts = sent}, [&] {
      for (int r = 0; r < size(); ++r) {
        auto const part = place_.posts[std::size_t(r)].parts[std::size_t(rank_)];
        auto const to = received[std::size_t(r)];
        detail::expects_same_bytes(detail::call::exchange, r, rank_, part.size(), to.size());
        copy(part, to);
      }
    });
    volume_.count_exchange(rank_, bytes_of_parts(sent), bytes_of_parts(received));
  }

  void all_gather(std::span<std::byte const> mine, std::span<std::byte> all, std::span<std::size_t const> bytes) {
    together({.kind = detail::call::all_gather, .mine = mine}, [&] {
      std::size_t at = 0;
      for (int r = 0; r < size(); ++r) {
        auto const part = place_.posts[std::size_t(r)].mine;
        detail::expects_same_bytes(detail::call::all_gather, r, rank_, part.size(), bytes[std::size_t(r)]);
        copy(part, all.subspan(at, part.size()));
        at += part.size();
      }
    });
    volume_.count_all_gather(rank_, bytes);
  }

  void barrier() {
    together({.kind = detail::call::barrier}, [] {});
  }

 private:
  struct post {
    detail::call kind;
    std::span<std::byte const> mine{};  ///< for everybody
    sent_parts parts{};                 ///< for each rank
  };

  /// What the threads share.
  class meeting_place {
   public:
    explicit meeting_place(int ranks) : posts(std::size_t(ranks)) {}

    std::vector<post> posts;  ///< each rank writes its own before a call's first meeting, all read it before its second
    std::exception_ptr failure;  ///< of the first rank that failed

    /// The first meeting of a call. Returns when all ranks are here, throws when one will not come.
    void begin(int rank, detail::call in) {
      std::unique_lock lock(mutex_);
      if (!failure && returned_ < 0 && arrive(lock, [&] { return failure || returned_ >= 0; })) return;
      throw_failure();
      detail::fail_returned(returned_, rank, in, rank);
    }

    /// The second one. Everybody comes, because a rank that has failed meanwhile only says so: were it to leave, its
    /// memory would be gone while others read it. Throws after it, on all ranks or on none.
    void end() {
      std::unique_lock lock(mutex_);
      arrive(lock, [] { return false; });
      if (failed_at_meeting_) throw_failure();
    }

    /// Must be called while the exception is being handled.
    void has_failed(int rank) {
      std::string sentence = fmt::format("rank {} has failed", rank);
      bool for_another = false;
      try {
        throw;
      } catch (std::exception const& e) {
        sentence = atmanrl::detail::one_line(fmt::format("rank {} has failed: {}", rank, e.what()));
        if (auto const* const known = dynamic_cast<known_failure const*>(&e)) for_another = known->speaker != rank;
      } catch (...) {  // has no sentence
      }
      std::lock_guard lock(mutex_);
      if (failure && (!failed_for_another_ || for_another)) return;
      failure = std::current_exception();
      failed_ = rank;
      failed_for_another_ = for_another;
      sentence_ = std::move(sentence);
      changed_.notify_all();
    }

    void has_returned(int rank) {
      std::lock_guard lock(mutex_);
      if (returned_ < 0) returned_ = rank;
      changed_.notify_all();
    }

   private:
    /// \return whether all have come; otherwise `enough` is true
    template <class Enough>
    bool arrive(std::unique_lock<std::mutex>& lock, Enough&& enough) {
      std::uint64_t const before = meetings_;
      if (++here_ == posts.size()) {
        here_ = 0;
        ++meetings_;
        failed_at_meeting_ = failure != nullptr;
        changed_.notify_all();
        return true;
      }
      changed_.wait(lock, [&] { return meetings_ != before || enough(); });
      return meetings_ != before;
    }

    void throw_failure() const {
      if (failure) throw communication_error(sentence_, failed_);
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::size_t here_ = 0;
    std::uint64_t meetings_ = 0;
    bool failed_at_meeting_ = false;
    bool failed_for_another_ = false;  ///< `failure` is of a rank that leaves it to another one to speak
    int returned_ = -1, failed_ = -1;  ///< the first rank that did
    std::string sentence_;
  };

  threads(meeting_place& place, int rank) : place_(place), rank_(rank) {}

  /// What a rank throws here ends all others at once, whatever the rank's own function makes of it.
  template <class Take>
  void together(post const& mine, Take&& take) {
    try {
      place_.posts[std::size_t(rank_)] = mine;
      place_.begin(rank_, mine.kind);
    } catch (...) {
      place_.has_failed(rank_);
      throw;
    }
    std::exception_ptr own;
    try {
      std::vector<detail::call> calls;
      for (post const& p : place_.posts) calls.push_back(p.kind);
      detail::expects_same_call(calls);
      take();
    } catch (...) {
      place_.has_failed(rank_);
      own = std::current_exception();
    }
    try {
      place_.end();
    } catch (...) {
      if (!own) throw;
    }
    if (own) std::rethrow_exception(own);
  }

  static void copy(std::span<std::byte const> from, std::span<std::byte> to) {
    if (!from.empty() && from.data() != to.data()) std::memcpy(to.data(), from.data(), from.size());
  }

  meeting_place& place_;
  int rank_;
  traffic volume_;
};
static_assert(Communicator<threads>);

}  // namespace atmanrl::inline ATMANRL_ABI::comm
