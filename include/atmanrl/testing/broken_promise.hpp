#pragma once

/// \file
/// What the checks of testing/ throw, whatever test framework calls them: one sentence that names the part, the
/// promise, the place and the numbers. A check that finds nothing returns quietly.

#include <atmanrl/core/error.hpp>

#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// A part of a method does not keep what its slot promises (docs/extending.md). What the part itself throws is passed
/// on as it is.
struct broken_promise : error {
  using error::error;
};

/// The type of a part as its author wrote it: what every sentence begins with.
template <class Part>
std::string name_of() {
  std::string_view text = __PRETTY_FUNCTION__;  // ".. [with Part = my_loss; std::string = ..]" or ".. [Part = my_loss]"
  text.remove_prefix(text.find("Part = ") + 7);
  auto const alias = text.rfind("; std::string = ");
  return std::string(text.substr(0, alias != text.npos ? alias : text.rfind(']')));
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
