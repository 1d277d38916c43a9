#pragma once

/// \file
/// What ranks must agree on before they go on: that all of them are well, and that they were given the same.

#include <atmanrl/comm/typed.hpp>
#include <atmanrl/core/printable.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::comm {

/// What is wrong with one rank.
struct rank_failure {
  int rank;
  std::string sentence;
  bool operator==(rank_failure const&) const = default;
};

/// Every rank says how it is. A rank that failed while the others work says so here instead of leaving them to wait.
/// \param sentence  what is wrong with this rank; empty: nothing is
/// \return on every rank the same: nothing, or the first rank that is not well
template <class C>
std::optional<rank_failure> status(C& c, std::string_view sentence) {
  auto const all = all_gather<char>(c, sentence);
  for (int r = 0; r < c.size(); ++r) {
    auto const said = all.of(r);
    if (!said.empty()) return rank_failure{r, std::string(said.begin(), said.end())};
  }
  return std::nullopt;
}

/// `status`, which throws on every rank where one is not well.
/// \throws communication_error `rank R: SENTENCE`, for which rank R speaks
template <class C>
void expects_all_well(C& c, std::string_view sentence) {
  if (auto const failed = status(c, sentence))
    throw communication_error(atmanrl::detail::one_line(fmt::format("rank {}: {}", failed->rank, failed->sentence)),
                              failed->rank);
}

namespace detail {
/// The text around the first difference.
inline std::string excerpt(std::span<char const> text, std::size_t difference) {
  std::size_t const first = difference < 24 ? 0 : difference - 24;
  auto const shown = text.subspan(first, std::min<std::size_t>(text.size() - first, 60));
  return fmt::format("{}\"{}\"", first == 0 ? "" : "..",
                     atmanrl::detail::printable(std::string_view(shown.data(), shown.size())));
}
}  // namespace detail

/// Ranks that were given different options, files or builds would compute parts of different runs.
/// \param name   of what is compared, for the sentence: "options", "hash of weights.gguf", "build"
/// \param bytes  each rank gets those of all others, so long things are passed as their hash
/// \throws communication_error on every rank where they differ; it names the first rank that differs from rank 0, and
///         shows both
template <class C>
void expects_same_everywhere(C& c, std::string_view name, std::string_view bytes) {
  auto const all = all_gather<char>(c, bytes);
  auto const wanted = all.of(0);
  for (int r = 1; r < c.size(); ++r) {
    auto const found = all.of(r);
    if (std::ranges::equal(found, wanted)) continue;
    auto const at = std::size_t(std::ranges::mismatch(found, wanted).in1 - found.begin());
    throw communication_error(fmt::format("{}: rank {} differs from rank 0 from byte {} on: it has {} instead of {}",
                                          name, r, at, detail::excerpt(found, at), detail::excerpt(wanted, at)),
                              0);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm
