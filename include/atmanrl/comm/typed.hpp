#pragma once

/// \file
/// What callers use of a communicator: checked calls with numbers of elements in place of bytes, and calls for sizes
/// that the receiver does not know. T is named by the caller, `comm::all_gather<float>(c, values)`, and is trivially
/// copyable; bytes are `std::byte`.

#include <atmanrl/comm/communicator.hpp>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::comm {

namespace detail {
template <class T>
std::vector<std::size_t> bytes_of(std::span<std::size_t const> counts) {
  std::vector<std::size_t> bytes(counts.begin(), counts.end());
  for (std::size_t& b : bytes) b *= sizeof(T);
  return bytes;
}

inline std::size_t total(std::span<std::size_t const> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::size_t(0));
}
}  // namespace detail

/// `sent_counts[r]` elements go to rank r, `received_counts[r]` come from it; parts lie in the order of ranks.
/// \throws shape_error where the counts do not fit the spans, communication_error where ranks mean different sizes
template <class T, class C>
void exchange(C& c, std::span<T const> sent, std::span<std::size_t const> sent_counts, std::span<T> received,
              std::span<std::size_t const> received_counts) {
  static_assert(atmanrl::detail::explain_communicator<C>());
  static_assert(std::is_trivially_copyable_v<T>);
  auto const ranks = std::size_t(c.size());
  expects<shape_error>(sent_counts.size() == ranks && received_counts.size() == ranks,
                       "exchange among {} ranks has {} counts to send and {} to receive", ranks, sent_counts.size(),
                       received_counts.size());
  expects<shape_error>(detail::total(sent_counts) == sent.size() && detail::total(received_counts) == received.size(),
                       "exchange: the counts add up to {} and {} elements, the spans have {} and {}",
                       detail::total(sent_counts), detail::total(received_counts), sent.size(), received.size());
  c.exchange(std::as_bytes(sent), detail::bytes_of<T>(sent_counts), std::as_writable_bytes(received),
             detail::bytes_of<T>(received_counts));
}

/// The same where the receiver does not know the sizes: part r goes to rank r, what is returned came from each rank.
/// The sizes, 8 bytes for each other rank, are counted as data.
template <class T, class C>
std::vector<std::vector<T>> exchange(C& c, std::vector<std::vector<T>> const& parts) {
  static_assert(atmanrl::detail::explain_communicator<C>());
  auto const ranks = std::size_t(c.size());
  expects<shape_error>(parts.size() == ranks, "exchange among {} ranks has {} parts", ranks, parts.size());
  std::vector<std::size_t> const ones(ranks, 1);
  std::vector<std::uint64_t> sizes, sizes_there(ranks);
  std::vector<T> sent;
  for (auto const& part : parts) {
    sizes.push_back(part.size());
    sent.insert(sent.end(), part.begin(), part.end());
  }
  exchange<std::uint64_t>(c, sizes, ones, sizes_there, ones);
  std::vector<std::size_t> const here(sizes.begin(), sizes.end()), there(sizes_there.begin(), sizes_there.end());
  std::vector<T> received(detail::total(there));
  exchange<T>(c, sent, here, received, there);
  std::vector<std::vector<T>> result;
  for (auto at = received.begin(); std::size_t const count : there) {
    result.emplace_back(at, at + std::ptrdiff_t(count));
    at += std::ptrdiff_t(count);
  }
  return result;
}

/// `all` becomes every rank's part, `counts[r]` elements from rank r, the same counts on every rank. `mine` may be its
/// own place in `all`, which spares a copy.
template <class T, class C>
void all_gather(C& c, std::span<T const> mine, std::span<T> all, std::span<std::size_t const> counts) {
  static_assert(atmanrl::detail::explain_communicator<C>());
  static_assert(std::is_trivially_copyable_v<T>);
  expects<shape_error>(counts.size() == std::size_t(c.size()), "all_gather among {} ranks has {} counts", c.size(),
                       counts.size());
  expects<shape_error>(counts[std::size_t(c.rank())] == mine.size() && detail::total(counts) == all.size(),
                       "all_gather: the counts are {} of rank {} and {} in all, the spans have {} and {} elements",
                       counts[std::size_t(c.rank())], c.rank(), detail::total(counts), mine.size(), all.size());
  c.all_gather(std::as_bytes(mine), std::as_writable_bytes(all), detail::bytes_of<T>(counts));
}

/// What every rank had, in the order of ranks.
template <class T>
struct gathered {
  std::vector<T> values;
  std::vector<std::size_t> counts;  ///< of each rank

  /// The part of one rank.
  std::span<T const> of(int rank) const {
    std::size_t const first = detail::total(std::span(counts).first(std::size_t(rank)));
    return std::span(values).subspan(first, counts[std::size_t(rank)]);
  }
};

/// One value from each rank.
template <class T, class C>
std::vector<T> all_gather_value(C& c, T const& mine) {
  std::vector<std::size_t> const ones(std::size_t(c.size()), 1);
  std::vector<T> all(ones.size());
  all_gather<T>(c, std::span(&mine, 1), all, ones);
  return all;
}

/// The same for parts of any sizes. The sizes, 8 bytes for each other rank, are counted as data.
template <class T, class C>
gathered<T> all_gather(C& c, std::type_identity_t<std::span<T const>> mine) {
  auto const sizes = all_gather_value<std::uint64_t>(c, mine.size());
  gathered<T> result{{}, {sizes.begin(), sizes.end()}};
  result.values.resize(detail::total(result.counts));
  all_gather<T>(c, mine, result.values, result.counts);
  return result;
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm
