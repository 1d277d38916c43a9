#pragma once

/// \file
/// What a sentence about an option calls it. A check of options stands once, beside the options, and is read by whoever
/// sets members in code, `group size is 1`, and by whoever wrote a command line, `--group-size is 1`.

#include <atmanrl/core/error.hpp>

#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// From the words of a member's name to the name in the sentence.
using option_naming = std::string (*)(std::string_view words);

/// The words as they are.
inline std::string name_in_code(std::string_view words) { return std::string(words); }

/// \throws usage_error; NaN is not at least anything
template <class T>
void expects_at_least(option_naming name, std::string_view words, T value, T least) {
  expects<usage_error>(value >= least, "{} is {}, it must be at least {}", name(words), value, least);
}

}  // namespace atmanrl::inline ATMANRL_ABI
