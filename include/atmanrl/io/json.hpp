#pragma once

/// \file
/// JSON in and out: parsing with the file and line in the error, printing without NaN or Inf.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/json_object.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// A JSON value; its objects keep the order of their keys.
using json = nlohmann::basic_json<json_object>;

namespace detail {

/// Deepest nesting that is accepted: printing and copying a JSON value recurse, so the depth is the stack's.
inline constexpr int max_json_depth = 256;

/// Refuses deep nesting before a parser sees the text. Brackets inside strings do not count.
inline void check_json_depth(std::string_view text, std::string_view what) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char const c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      expects<file_error>(++depth <= max_json_depth, "{}: JSON is nested deeper than {} levels at byte {}", what,
                          max_json_depth, i);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

/// Reason of a parser's exception without its prefix "[json.exception...] ". It ends with what was read last, which may
/// be most of the file.
inline std::string json_reason(std::string_view text) {
  std::size_t const end = text.find("] ");
  return one_line(end == std::string_view::npos ? text : text.substr(end + 2), 200);
}

/// Parses `text`; `callback` is a parser callback of nlohmann-json or nullptr.
template <class Callback>
json parse_json_with(std::string_view text, std::string_view what, Callback callback) {
  check_json_depth(text, what);
  try {
    return json::parse(text.begin(), text.end(), callback);
  } catch (json::parse_error const& e) {
    std::size_t const at = std::min(e.byte, text.size());
    auto const line = 1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(at > 0 ? at - 1 : 0), '\n');
    fail<file_error>("{}: not valid JSON at line {}, byte {}: {}", what, line, e.byte, json_reason(e.what()));
  } catch (json::exception const& e) {
    fail<file_error>("{}: not valid JSON: {}", what, json_reason(e.what()));
  }
}

}  // namespace detail

/// Parses one JSON value.
/// \param what  name for the error's text, usually the file
/// \throws file_error with the line and byte of the first mistake
json parse_json(std::string_view text, std::string_view what);

/// Reads a file that holds one JSON value.
/// \throws file_error when it cannot be read or is not JSON
json read_json_file(std::filesystem::path const& path);

/// A number as JSON text with at most `digits` significant digits.
/// \throws numeric_error for NaN and Inf, which JSON cannot hold
std::string to_json_number(double x, int digits = 9);

/// One line of JSON with `digits` significant digits; bytes that are not UTF-8 become U+FFFD.
/// \throws numeric_error that names the place of a NaN or Inf
std::string dump_json(json const& value, int digits = 9);

#if ATMANRL_BODIES

namespace detail {

[[gnu::cold]] inline void print_json(json const& value, int digits, std::string const& where, std::string& out) {
  switch (value.type()) {
    case json::value_t::object: {
      out += '{';
      bool first = true;
      for (auto const& [key, item] : value.items()) {
        if (!first) out += ',';
        first = false;
        out += json(key).dump(-1, ' ', false, json::error_handler_t::replace);
        out += ':';
        print_json(item, digits, where + '/' + key, out);
      }
      out += '}';
      break;
    }
    case json::value_t::array: {
      out += '[';
      for (std::size_t i = 0; i < value.size(); ++i) {
        if (i > 0) out += ',';
        auto const& item = value[i];
        // Long arrays of numbers are the common case: the path is only built where it can be needed.
        if (item.is_structured() || (item.is_number_float() && !std::isfinite(item.get<double>()))) {
          print_json(item, digits, fmt::format("{}/{}", where, i), out);
        } else {
          print_json(item, digits, where, out);
        }
      }
      out += ']';
      break;
    }
    case json::value_t::number_float: {
      double const x = value.get<double>();
      expects<numeric_error>(std::isfinite(x), "{} is {}, which JSON cannot hold", where.empty() ? "/" : where, x);
      out += fmt::format("{:.{}g}", x, digits);
      break;
    }
    default:
      out += value.dump(-1, ' ', false, json::error_handler_t::replace);
  }
}

}  // namespace detail

ATMANRL_INLINE std::string dump_json(json const& value, int digits) {
  std::string out;
  detail::print_json(value, digits, "", out);
  return out;
}

ATMANRL_INLINE json parse_json(std::string_view text, std::string_view what) {
  return detail::parse_json_with(text, what, nullptr);
}

ATMANRL_INLINE json read_json_file(std::filesystem::path const& path) {
  return parse_json(read_text_file(path), path.string());
}

ATMANRL_INLINE std::string to_json_number(double x, int digits) {
  expects<numeric_error>(std::isfinite(x), "the number {} cannot be written as JSON", x);
  return fmt::format("{:.{}g}", x, digits);
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
