#pragma once

/// \file
/// Slices of a flat array from the ranks that have them to all others: as they are, or as bf16 where that is what their
/// receivers keep of them (the all-gather of weights in ZeRO-1, Rajbhandari et al., arXiv:1910.02054).

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/shares.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>
#include <atmanrl/ops/elementwise.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Bytes in which elements `part` of an array of floats are sent.
/// \param rounded  elements that are sent as bf16: ascending, without overlap
inline std::size_t gathered_bytes(comm::range part, std::span<comm::range const> rounded) {
  std::size_t bytes = part.count * sizeof(float);
  for (comm::range const& r : rounded) {
    std::size_t const first = std::max(part.first, r.first), end = std::min(part.end(), r.end());
    if (first < end) bytes -= (end - first) * (sizeof(float) - sizeof(bf16));
  }
  return bytes;
}

/// Gathers slices (comm/shares.hpp) of arrays of so many elements in the backend's memory, in pieces. Its functions are
/// calls of all ranks.
template <Backend B, class T>
class slice_gather {
 public:
  /// \param alignment  of slices, in elements
  slice_gather(B& backend, comm::any_on<B> ranks, index_t elements, std::size_t alignment = comm::slice_alignment)
      : backend_(&backend),
        ranks_(ranks),
        elements_(std::size_t(elements)),
        alignment_(alignment),
        sent_(std::size_t(ranks.size())),
        received_(std::size_t(ranks.size())),
        outgoing_(backend, {0}),
        incoming_(backend, {0}) {}

  /// Every rank gets the others' slices.
  /// \param values  elements [first, first + values.size()) of the array
  void operator()(view_on<B, T, 1> values, std::size_t first = 0) {
    in_rounds(std::size_t(1) << 20, {first, std::size_t(values.size())}, [&](auto const& part) {
      exchange([&](int r) { return bytes(values.data() + (part(r).first - first), part(r).count); });
    });
  }

  /// The same, where of the elements `rounded` others get what bf16 keeps. What this rank has itself stays as it is.
  /// Memory: `packed_bytes`.
  /// \param rounded  elements of the array: ascending, without overlap
  void operator()(view_on<B, T, 1> values, std::span<comm::range const> rounded,
                  std::size_t begin = 0) requires std::same_as<T, float> {
    auto const piece = [&](comm::range run) { return values.rows(index_t(run.first - begin), index_t(run.count)); };
    in_rounds(piece_of(ranks_.size()), {begin, std::size_t(values.size())}, [&](auto const& part) {
      auto const here = std::size_t(ranks_.rank());
      std::vector<std::size_t> first(received_.size()), size(received_.size());  // halves of floats
      std::size_t all = 0;
      for (std::size_t r = 0; r < size.size(); ++r) {
        size[r] = gathered_bytes(part(int(r)), rounded) / sizeof(bf16);
        first[r] = all;
        if (r != here) all += size[r];
      }
      outgoing_.resize({index_t(size[here])});
      incoming_.resize({index_t(all)});
      each_run(part(ranks_.rank()), rounded, outgoing_.data(), [&](comm::range run, bf16* packed, bool is_rounded) {
        if (is_rounded)
          convert(*backend_, piece(run), half(packed, run));
        else
          backend_->copy(packed, piece(run).data(), run.count * sizeof(T));
      });
      exchange([&](int r) {
        bool const mine = r == ranks_.rank();
        return bytes(mine ? outgoing_.data() : incoming_.data() + first[std::size_t(r)], size[std::size_t(r)]);
      });
      for (std::size_t r = 0; r < size.size(); ++r) {
        if (r == here) continue;
        each_run(part(int(r)), rounded, incoming_.data() + first[r],
                 [&](comm::range run, bf16* packed, bool is_rounded) {
                   if (is_rounded)
                     convert(*backend_, half(packed, run), piece(run));
                   else
                     backend_->copy(piece(run).data(), packed, run.count * sizeof(T));
                 });
      }
    });
  }

  /// What a rank holds beside the array while elements are gathered as bf16: at most so many bytes.
  static std::size_t packed_bytes(std::size_t elements, int ranks) {
    return sizeof(T) * std::size_t(ranks) * std::min(piece_of(ranks), comm::slice_of(elements, ranks, 0).count);
  }

 private:
  /// Elements of a slice in one round: fewer on many ranks, which all send some.
  static std::size_t piece_of(int ranks) {
    return std::clamp((std::size_t(1) << 22) / std::size_t(ranks), std::size_t(1) << 14, std::size_t(1) << 20);
  }

  template <class E>
  static auto bytes(E* first, std::size_t count) {
    return std::as_writable_bytes(std::span(first, count));
  }
  static view_on<B, bf16, 1> half(bf16* packed, comm::range run) { return {packed, {index_t(run.count)}}; }

  /// `round(part)` until all of `stretch` is sent; `part(r)` is what of rank r's slice is sent in this round.
  template <class F>
  void in_rounds(std::size_t piece, comm::range stretch, F&& round) {
    auto const sent_by = [&](int rank) {
      return comm::common(comm::slice_of(elements_, ranks_.size(), rank, alignment_), stretch);
    };
    std::size_t longest = 0;
    for (int r = 0; r < ranks_.size(); ++r) longest = std::max(longest, sent_by(r).count);
    for (std::size_t from = 0; from < longest; from += piece)
      round([&](int rank) {
        comm::range const s = sent_by(rank);
        std::size_t const first = std::min(from, s.count);
        return comm::range{s.first + first, std::min(piece, s.count - first)};
      });
  }

  /// \param place  `std::span<std::byte> place(int r)`: what comes from rank r, or what this one sends to all others
  template <class F>
  void exchange(F&& place) {
    for (std::size_t r = 0; r < sent_.size(); ++r) {
      bool const here = int(r) == ranks_.rank();
      received_[r] = here ? std::span<std::byte>() : place(int(r));
      sent_[r] = here ? std::span<std::byte>() : place(ranks_.rank());
    }
    ranks_.exchange_on(*backend_, sent_, received_);
  }

  /// `f(run, packed, is_rounded)` for each run of elements of `part` that are sent alike, and where it lies in what is
  /// sent.
  template <class F>
  static void each_run(comm::range part, std::span<comm::range const> rounded, bf16* packed, F&& f) {
    auto const put = [&](std::size_t first, std::size_t end, bool is_rounded) {
      if (first >= end) return;
      f(comm::range{first, end - first}, packed, is_rounded);
      packed += (end - first) * (is_rounded ? 1 : sizeof(T) / sizeof(bf16));
    };
    auto next = std::ranges::partition_point(rounded, [&](comm::range const& r) { return r.end() <= part.first; });
    std::size_t at = part.first;
    for (; next != rounded.end() && next->first < part.end(); ++next) {
      put(at, next->first, false);
      std::size_t const first = std::max(at, next->first), end = std::min(part.end(), next->end());
      put(first, end, true);
      at = end;
    }
    put(at, part.end(), false);
  }

  B* backend_;
  comm::any_on<B> ranks_;
  std::size_t elements_, alignment_;
  std::vector<std::span<std::byte const>> sent_;
  std::vector<std::span<std::byte>> received_;
  tensor<B, bf16, 1> outgoing_, incoming_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
