#pragma once

/// \file
/// `answer`: what completions answer, and whether it is the truth.

#include <atmanrl/core/error.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/text/answer.hpp>

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>

namespace inspect {

namespace detail {

/// The truth of a line in canonical form: a number, or a GSM8K solution that ends in `#### number`.
inline std::string number_truth(atmanrl::json const& truth, std::string const& where) {
  std::string const text = truth.is_number() ? truth.dump() : truth.is_string() ? truth.get<std::string>() : std::string();
  auto const number = text.find("####") == std::string::npos ? atmanrl::to_canonical_number(text) : atmanrl::gsm8k_truth(text);
  atmanrl::expects<atmanrl::file_error>(number.has_value(), "{}: truth is not a number", where);
  return *number;
}

/// A letter from A to D, or the number of the choice from 0 to 3.
inline std::string letter_truth(atmanrl::json const& truth, std::string const& where) {
  if (truth.is_number_integer() && truth >= 0 && truth <= 3) return std::string(1, char('A' + truth.get<int>()));
  std::string const text = truth.is_string() ? truth.get<std::string>() : std::string();
  bool const letter = text.size() == 1 && ((text[0] >= 'A' && text[0] <= 'D') || (text[0] >= 'a' && text[0] <= 'd'));
  atmanrl::expects<atmanrl::file_error>(letter, "{}: truth is not one of the letters A to D", where);
  return std::string(1, text[0] >= 'a' ? char(text[0] - 'a' + 'A') : text[0]);
}

}  // namespace detail

/// One line of JSON for each line of `input` that is not blank.
/// \param letters  multiple choice (MMLU) instead of numbers (GSM8K)
/// \throws file_error that names the line; nothing is returned then
inline std::string answer(std::string_view input, bool letters) {
  using atmanrl::file_error, atmanrl::json;
  std::string out;
  std::size_t number = 0;
  for (std::size_t at = 0; at < input.size();) {
    std::size_t const end = std::min(input.find('\n', at), input.size());
    std::string_view const line = input.substr(at, end - at);
    at = end + 1;
    auto const where = fmt::format("standard input:{}", ++number);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    json const item = atmanrl::parse_json(line, where);
    atmanrl::expects<file_error>(item.is_object(), "{}: an object with completion and truth is wanted, this is {}", where, item.type_name());
    for (char const* const key : {"completion", "truth"}) atmanrl::expects<file_error>(item.contains(key), "{}: {} is missing", where, key);
    atmanrl::expects<file_error>(item["completion"].is_string(), "{}: completion is {}, not a string", where, item["completion"].type_name());

    auto const completion = item["completion"].get<std::string>();
    auto const truth = letters ? detail::letter_truth(item["truth"], where) : detail::number_truth(item["truth"], where);
    auto const found = letters ? atmanrl::extract_letter(completion) : atmanrl::extract_number(completion);
    auto const as_json = [](std::optional<std::string> const& s) { return s ? json(*s) : json(nullptr); };
    auto const correct = [&](std::optional<std::string> const& s) { return s && (letters ? *s == truth : atmanrl::numbers_equal(*s, truth)); };
    if (!out.empty()) out += '\n';
    out += atmanrl::dump_json(atmanrl::ordered_json{{"extracted", as_json(found.strict)},
                                           {"extracted_flexible", as_json(found.flexible)},
                                           {"correct_strict", correct(found.strict)},
                                           {"correct_flexible", correct(found.flexible)}});
  }
  atmanrl::expects<file_error>(!out.empty(), "standard input: there are no lines");
  return out;
}

}  // namespace inspect
