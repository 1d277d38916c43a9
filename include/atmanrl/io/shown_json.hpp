#pragma once

/// \file
/// A JSON value as it stands in an error.

#include <atmanrl/core/printable.hpp>
#include <atmanrl/io/json.hpp>

#include <fmt/format.h>

namespace atmanrl::inline ATMANRL_ABI::detail {

/// An argument of `expects` that becomes text only when the check fails: a list of a million ids costs nothing as long
/// as it is right.
struct shown_json {
  json const& value;
};

}  // namespace atmanrl::inline ATMANRL_ABI::detail

template <>
struct fmt::formatter<atmanrl::detail::shown_json> : fmt::formatter<fmt::string_view> {
  template <class Context>
  auto format(atmanrl::detail::shown_json const& s, Context& context) const {
    std::string const text =
        atmanrl::detail::one_line(s.value.dump(-1, ' ', false, atmanrl::json::error_handler_t::replace), 80);
    return fmt::formatter<fmt::string_view>::format(text, context);
  }
};
