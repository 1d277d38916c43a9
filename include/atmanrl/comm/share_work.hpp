#pragma once

/// \file
/// Work on a list of independent items, each rank its share, and what came of it on every rank.

#include <atmanrl/comm/agreement.hpp>
#include <atmanrl/comm/packed.hpp>
#include <atmanrl/comm/shares.hpp>

#include <cstddef>
#include <exception>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::comm {

namespace detail {
/// Another rank's error of kind E.
template <class E>
struct heard : E, known_failure {
  heard(std::string const& sentence, int speaker) : E(sentence), known_failure(speaker) {}
};
}  // namespace detail

/// Calls f on every rank; a call of all ranks. Where it throws on one, it throws on all: that rank its own exception,
/// the others one of the same kind with the same sentence where it is a numeric_error, file_error or usage_error, so
/// that everybody can end in the same way, else a communication_error. Of several ranks that fail the first is heard.
template <class C, class F>
void all_or_none(C& c, F&& f) {
  if (c.size() == 1) return f();
  std::exception_ptr mine;
  char kind = ' ';
  std::string sentence;
  try {
    f();
  } catch (communication_error const&) {
    throw;  // everybody knows
  } catch (std::exception const& e) {
    mine = std::current_exception();
    if (dynamic_cast<numeric_error const*>(&e)) kind = 'n';
    if (dynamic_cast<usage_error const*>(&e)) kind = 'u';
    if (dynamic_cast<file_error const*>(&e)) kind = 'f';
    sentence = kind + std::string(e.what());
  }
  auto const failed = status(c, sentence);
  if (!failed) return;
  if (mine && failed->rank == c.rank()) std::rethrow_exception(mine);
  std::string const text = failed->sentence.substr(1);
  switch (failed->sentence[0]) {
    case 'n':
      throw detail::heard<numeric_error>(text, failed->rank);
    case 'u':
      throw detail::heard<usage_error>(text, failed->rank);
    case 'f':
      throw detail::heard<file_error>(text, failed->rank);
  }
  throw communication_error(atmanrl::detail::one_line(fmt::format("rank {}: {}", failed->rank, text)), failed->rank);
}

/// Vectors of the ranks, one after the other, on every rank.
template <class R, class C>
std::vector<R> gather_in_order(C& c, std::vector<R> mine) {
  if (c.size() == 1) return mine;
  auto const all = all_gather<std::byte>(c, packed(mine));
  std::vector<R> out;
  for (int r = 0; r < c.size(); ++r) {
    auto part = unpacked<std::vector<R>>(all.of(r));
    out.insert(out.end(), std::make_move_iterator(part.begin()), std::make_move_iterator(part.end()));
  }
  return out;
}

/// The value of rank 0, on every rank.
template <class R, class C>
R of_first_rank(C& c, R const& mine) {
  if (c.size() == 1) return mine;
  auto const all = all_gather<std::byte>(c, c.rank() == 0 ? packed(mine) : std::vector<std::byte>());
  return unpacked<R>(all.of(0));
}

/// What f makes of items 0 to `items` - 1, on every rank; each rank has computed a part of it (share_of). A call of all
/// ranks. R is what comm/packed.hpp can pack.
/// \param f  `std::vector<R> f(std::size_t first, std::size_t count)`, one value for each of these items; not called
///           where a rank has none
/// \throws as all_or_none
template <class R, class C, class F>
std::vector<R> share_work(C& c, std::size_t items, F&& f) {
  range const mine = share_of(items, c.size(), c.rank());
  std::vector<R> out;
  all_or_none(c, [&] {
    if (mine.count > 0) out = f(mine.first, mine.count);
    expects<shape_error>(out.size() == mine.count, "{} values for {} items of shared work", out.size(), mine.count);
  });
  return gather_in_order(c, std::move(out));
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm
