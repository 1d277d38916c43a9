#pragma once

/// \file
/// Ranks as processes that MPI has started: Open MPI, MPICH, or another implementation of MPI 3. Targets that link
/// atmanrl::mpi may include this header; nothing else in the library does, so nobody needs MPI who does not ask for it.

#if !defined(ATMANRL_MPI)
#  error "atmanrl: <atmanrl/comm/mpi.hpp> is for targets that link atmanrl::mpi (docs/distributed.md)"
#endif

#include <atmanrl/comm/calls.hpp>
#include <atmanrl/core/printable.hpp>

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::comm {

/// Says the sentence, one line, that a run of several ranks ends with. It is called on the rank that speaks, once, and
/// `MPI_Abort` comes right after it: what is to be seen must be out when it returns, the sentence in one piece, so that
/// it does not mix with other ranks' lines, and what the program has buffered before. It must not throw.
using last_words = std::function<void(std::string_view sentence)>;

/// MPI is there from its constructor to its destructor. One that is destroyed by an exception ends the whole run: what
/// the other ranks wait for would not come.
class mpi_session {
 public:
  mpi_session(int& argc, char**& argv, last_words say) : say_(std::move(say)) {
    int provided = 0;
    // Kernels have threads of their own, which do not communicate.
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    if (provided < MPI_THREAD_FUNNELED) abort("this MPI does not work in programs that have threads", rank_);
  }
  ~mpi_session() {
    if (std::uncaught_exceptions() > exceptions_) abort("ended by an exception", rank_);
    MPI_Finalize();
  }
  mpi_session(mpi_session const&) = delete;
  mpi_session& operator=(mpi_session const&) = delete;

  /// Says the sentence, if this rank is the one that speaks, and ends all ranks.
  [[noreturn]] void abort(std::string_view sentence, int speaker) const noexcept {
    // Everybody is about to end the run, and whoever comes first cuts the others short: so the speaker gets some time.
    if (speaker != rank_) std::this_thread::sleep_for(std::chrono::seconds(3));
    say_(atmanrl::detail::one_line(sentence));
    MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    std::_Exit(EXIT_FAILURE);
  }

  int rank() const { return rank_; }

 private:
  last_words say_;
  int rank_ = 0;
  int exceptions_ = std::uncaught_exceptions();
};

/// The ranks of an MPI communicator, a copy of it, so that messages do not meet those of others. Called by the thread
/// that began the session.
class mpi {
 public:
  /// `rank_main(mpi&)` between the beginning and the end of MPI, on every rank; what it returns, or 0, is the program's
  /// exit status: `int main(int argc, char** argv) { return comm::mpi::run(argc, argv, [](auto& c) { .. }, say); }`.
  ///
  /// An exception that leaves it is given to `say`, on one rank where several know of it, and ends all ranks, whatever
  /// they are doing, with an exit status that is not 0. So does a rank that returns while another waits for it.
  template <class F>
  static int run(int& argc, char**& argv, F&& rank_main, last_words say) {
    expects<usage_error>(say != nullptr, "a run of several ranks has nothing to say its last words with");
    mpi_session const session(argc, argv, std::move(say));
    auto const from_here = [&](std::string_view what) {
      session.abort(fmt::format("rank {}: {}", session.rank(), what), session.rank());
    };
    try {
      mpi world;
      int status = 0;
      if constexpr (std::is_void_v<std::invoke_result_t<F&, mpi&>>)
        rank_main(world);
      else
        status = rank_main(world);
      world.announce(detail::call::end, std::vector<std::size_t>(std::size_t(world.size())));
      return status;
    } catch (std::exception const& e) {
      if (auto const* const known = dynamic_cast<known_failure const*>(&e)) session.abort(e.what(), known->speaker);
      from_here(e.what());
    } catch (...) {
      from_here("an exception that is none of std::exception");
    }
    return EXIT_FAILURE;
  }

  /// \param of     whose ranks these are; a call of all of them
  /// \param piece  bytes of one message, below 2^31; longer parts are sent in several
  explicit mpi(MPI_Comm of = MPI_COMM_WORLD, std::size_t piece = std::size_t(1) << 30) : piece_(piece) {
    expects<usage_error>(piece > 0 && piece < std::size_t(1) << 31, "messages of {} bytes", piece);
    check(MPI_Comm_dup(of, &comm_), "MPI_Comm_dup");
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  }
  ~mpi() {
    // A call of all ranks, which do not come where one leaves by an exception.
    if (std::uncaught_exceptions() == exceptions_) MPI_Comm_free(&comm_);
  }
  mpi(mpi const&) = delete;
  mpi& operator=(mpi const&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  traffic volume() const { return volume_; }

  void exchange(std::span<std::byte const> sent, std::span<std::size_t const> sent_bytes, std::span<std::byte> received,
                std::span<std::size_t const> received_bytes) {
    exchange_parts(detail::parts_of(sent, sent_bytes), detail::parts_of(received, received_bytes));
  }
  void exchange_parts(sent_parts sent, received_parts received) {
    auto const sent_bytes = bytes_of_parts(sent), received_bytes = bytes_of_parts(received);
    announce(detail::call::exchange, sent_bytes, received_bytes);
    messages all(*this);
    for (int step = 1; step < size_; ++step) {  // each rank begins with another one
      int const r = (rank_ + size_ - step) % size_;
      all.receive(r, received[std::size_t(r)]);
    }
    for (int step = 1; step < size_; ++step) {
      int const r = (rank_ + step) % size_;
      all.send(r, sent[std::size_t(r)]);
    }
    copy(sent[std::size_t(rank_)], received[std::size_t(rank_)]);
    all.wait();
    volume_.count_exchange(rank_, sent_bytes, received_bytes);
  }

  void all_gather(std::span<std::byte const> mine, std::span<std::byte> all, std::span<std::size_t const> bytes) {
    announce(detail::call::all_gather, std::vector<std::size_t>(bytes.size(), mine.size()), bytes);
    auto const to = offsets(bytes);
    auto const place = [&](int r) { return all.subspan(to[std::size_t(r)], bytes[std::size_t(r)]); };
    copy(mine, place(rank_));
    if (all.size() <= piece_) {
      std::vector<int> const counts(bytes.begin(), bytes.end()), firsts(to.begin(), to.end());
      check(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_BYTE, all.data(), counts.data(), firsts.data(), MPI_BYTE, comm_),
            "MPI_Allgatherv");
    } else {  // its counts and places are ints
      messages each(*this);
      for (int step = 1; step < size_; ++step) {
        int const r = (rank_ + size_ - step) % size_;
        each.receive(r, place(r));
      }
      for (int step = 1; step < size_; ++step) each.send((rank_ + step) % size_, place(rank_));
      each.wait();
    }
    volume_.count_all_gather(rank_, bytes);
  }

  /// The announcement is one already: it needs a word from every rank.
  void barrier() { announce(detail::call::barrier, std::vector<std::size_t>(std::size_t(size_))); }

 private:
  /// Messages that are under way.
  class messages {
   public:
    explicit messages(mpi const& owner) : owner_(owner) {}

    void send(int to, std::span<std::byte const> part) {
      in_pieces(part, [&](auto piece, MPI_Request* request) {
        return MPI_Isend(piece.data(), int(piece.size()), MPI_BYTE, to, tag, owner_.comm_, request);
      });
    }
    void receive(int from, std::span<std::byte> part) {
      in_pieces(part, [&](auto piece, MPI_Request* request) {
        return MPI_Irecv(piece.data(), int(piece.size()), MPI_BYTE, from, tag, owner_.comm_, request);
      });
    }
    void wait() {
      std::vector<MPI_Status> ends(requests_.size());
      int const code = MPI_Waitall(int(requests_.size()), requests_.data(), ends.data());
      if (code == MPI_ERR_IN_STATUS)
        for (auto const& end : ends) owner_.check(end.MPI_ERROR, "MPI_Waitall");
      owner_.check(code, "MPI_Waitall");
    }

   private:
    static constexpr int tag = 0;  // messages between two ranks stay in order, and calls do not overlap

    template <class Byte, class Start>
    void in_pieces(std::span<Byte> part, Start&& start) {
      for (std::size_t at = 0; at < part.size(); at += owner_.piece_) {
        requests_.emplace_back();
        owner_.check(start(part.subspan(at, std::min(owner_.piece_, part.size() - at)), &requests_.back()),
                     "a message");
      }
    }

    mpi const& owner_;
    std::vector<MPI_Request> requests_;
  };

  /// Tells every rank which call this one makes and how many bytes it gets, and checks what they tell.
  void announce(detail::call kind, std::span<std::size_t const> sent, std::span<std::size_t const> expected = {}) {
    std::vector<std::uint64_t> out, in(2 * std::size_t(size_));
    for (std::size_t const bytes : sent) {
      out.push_back(std::uint64_t(kind));
      out.push_back(bytes);
    }
    check(MPI_Alltoall(out.data(), 2, MPI_UINT64_T, in.data(), 2, MPI_UINT64_T, comm_), "MPI_Alltoall");
    std::vector<detail::call> calls;
    for (std::size_t r = 0; r < std::size_t(size_); ++r) calls.push_back(detail::call(in[2 * r]));
    detail::expects_same_call(calls);
    for (std::size_t r = 0; r < expected.size(); ++r)
      detail::expects_same_bytes(kind, int(r), rank_, in[2 * r + 1], expected[r]);
  }

  void check(int code, std::string_view call) const {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw communication_error(fmt::format("rank {}: {}: {}", rank_, call, std::string_view(text, std::size_t(length))),
                              rank_);
  }

  static std::vector<std::size_t> offsets(std::span<std::size_t const> bytes) {
    std::vector<std::size_t> first(bytes.size());
    for (std::size_t r = 1; r < bytes.size(); ++r) first[r] = first[r - 1] + bytes[r - 1];
    return first;
  }
  static void copy(std::span<std::byte const> from, std::span<std::byte> to) {
    if (!from.empty() && from.data() != to.data()) std::memcpy(to.data(), from.data(), from.size());
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  std::size_t piece_;
  traffic volume_;
  int exceptions_ = std::uncaught_exceptions();
};
static_assert(Communicator<mpi>);

}  // namespace atmanrl::inline ATMANRL_ABI::comm
