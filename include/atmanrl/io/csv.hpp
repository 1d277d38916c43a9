#pragma once

/// \file
/// Comma-separated values as RFC 4180 has them: fields in quotes may hold commas, line breaks and doubled quotes; lines
/// end with LF or CRLF. Beyond the RFC: a byte-order mark and blank lines are passed over, and a quote inside a field
/// that does not begin with one is text.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/file.hpp>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

struct csv_record {
  index_t line = 1;  ///< on which it begins, counted from 1
  std::vector<std::string> fields;
};

/// \param what         name for the errors' text, usually the file
/// \param most_fields  of a record; a field takes 32 bytes in memory, its comma one byte in the file
/// \throws file_error "WHAT:LINE: ..." for a quote that is never closed, text after a closing quote, or more fields
inline std::vector<csv_record> parse_csv(std::string_view text, std::string_view what,
                                         std::size_t most_fields = 65536) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  std::vector<csv_record> out;
  index_t line = 1;
  std::size_t at = 0;
  auto const line_end = [&](std::size_t i) {
    return text.substr(i).starts_with("\r\n") ? std::size_t{2} : std::size_t(i < text.size() && text[i] == '\n');
  };
  while (at < text.size()) {
    if (std::size_t const blank = line_end(at); blank > 0) {
      at += blank;
      ++line;
      continue;
    }
    csv_record record{line, {}};
    for (bool more = true; more;) {
      expects<file_error>(record.fields.size() < most_fields, "{}:{}: has more than {} fields", what, record.line,
                          most_fields);
      std::string field;
      if (at < text.size() && text[at] == '"') {
        index_t const opened = line;
        for (++at;; ++at) {
          expects<file_error>(at < text.size(), "{}:{}: a quote is opened here and never closed", what, opened);
          if (text[at] == '"') {
            if (at + 1 >= text.size() || text[at + 1] != '"') break;
            ++at;
          }
          line += text[at] == '\n';
          field += text[at];
        }
        ++at;
        expects<file_error>(at == text.size() || text[at] == ',' || line_end(at) > 0,
                            "{}:{}: there is text after a closing quote", what, line);
      } else {
        for (; at < text.size() && text[at] != ',' && line_end(at) == 0; ++at) field += text[at];
      }
      record.fields.push_back(std::move(field));
      more = at < text.size() && text[at] == ',';
      if (more) ++at;
    }
    if (std::size_t const end = line_end(at); end > 0) {
      at += end;
      ++line;
    }
    out.push_back(std::move(record));
  }
  return out;
}

/// All records of a file.
/// \param columns  how many fields each must have
/// \throws file_error "FILE:LINE: ..."
inline std::vector<csv_record> read_csv(std::filesystem::path const& path, std::size_t columns) {
  std::vector<csv_record> records = parse_csv(read_text_file(path), path.string(), columns);
  for (csv_record const& r : records)
    expects<file_error>(r.fields.size() == columns, "{}:{}: has {} fields where {} are needed", path.string(), r.line,
                        r.fields.size(), columns);
  return records;
}

}  // namespace atmanrl::inline ATMANRL_ABI
