#pragma once

/// \file
/// What can be known of paths before the work begins: whether the system shows what is there, and whether a result can
/// be written where it is asked for.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/file.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// What stands at a path; file_type::not_found is an answer, too. Links are followed.
/// \throws file_error when the system does not say: a folder that may not be searched, a name that is too long
std::filesystem::file_status status_of(std::filesystem::path const& path);

inline bool is_there(std::filesystem::path const& path) { return std::filesystem::exists(status_of(path)); }
inline bool is_folder(std::filesystem::path const& path) { return std::filesystem::is_directory(status_of(path)); }

/// A path that is going to be read. Whether anything is there is left to the reader, who knows what is needed.
/// \param option  "--model", for the sentence
/// \throws usage_error when the system refuses to look at it
void check_input_path(std::string_view option, std::filesystem::path const& path);

/// A file that is going to be written by `write_file_atomically` or `jsonl_writer`: its folder must be there. What it
/// holds stays.
/// \throws usage_error when it cannot be written
void check_output_file(std::string_view option, std::filesystem::path const& path);

/// How a folder is going to be written.
enum class folder_use {
  replaced,  ///< made beside its place and renamed, so that it appears complete
  filled     ///< files are put into it
};

/// A folder that is going to be written, with the folders above it that are missing. It is tried, and nothing is left
/// after. One that is going to be replaced must not be the working directory: who works there would be left in a folder
/// without a name, and not see the new one.
/// \throws usage_error when it cannot be made
void check_output_folder(std::string_view option, std::filesystem::path const& path,
                         folder_use use = folder_use::replaced);

#if ATMANRL_BODIES

ATMANRL_INLINE std::filesystem::file_status status_of(std::filesystem::path const& path) {
  std::error_code problem;
  auto const status = std::filesystem::status(path, problem);
  // A path through a file is one where nothing is.
  if (status.type() == std::filesystem::file_type::not_found) return status;
  if (problem) fail<file_error>("{}: {}", path.string(), problem.message());
  return status;
}

ATMANRL_INLINE void check_input_path(std::string_view option, std::filesystem::path const& path) {
  try {
    status_of(path);
  } catch (file_error const& e) {
    fail<usage_error>("{} {}", option, e.what());
  }
}

ATMANRL_INLINE void check_output_file(std::string_view option, std::filesystem::path const& path) {
  try {
    auto const folder = path.parent_path();
    expects<usage_error>(path.has_filename(), "{}: \"{}\" is not a file's name", option, path.string());
    expects<usage_error>(folder.empty() || is_folder(folder), "{} {}: there is no folder {}", option, path.string(),
                         folder.string());
    auto const status = status_of(path);
    expects<usage_error>(!std::filesystem::exists(status) || std::filesystem::is_regular_file(status),
                         "{} {}: is there and not a regular file", option, path.string());
    atomic_file const written_beside(path);
  } catch (file_error const& e) {
    fail<usage_error>("{} {}", option, e.what());
  }
}

ATMANRL_INLINE void check_output_folder(std::string_view option, std::filesystem::path const& path, folder_use use) {
  std::filesystem::path target = path.has_filename() ? path : path.parent_path();
  expects<usage_error>(!target.empty(), "{}: \"{}\" is not a folder's name", option, path.string());
  std::vector<std::filesystem::path> made;  // outermost first
  int problem = 0;
  std::filesystem::path refused;
  try {
    auto const status = status_of(target);
    expects<usage_error>(!std::filesystem::exists(status) || std::filesystem::is_directory(status),
                         "{} {}: exists and is not a folder", option, target.string());
    std::error_code unknown;
    expects<usage_error>(use == folder_use::filled || !std::filesystem::equivalent(target, ".", unknown),
                         "{} {}: is the working directory, which cannot be replaced by a new folder: name one in it",
                         option, path.string());
    std::filesystem::path beside = target;
    beside += fmt::format(".partial-{}", ::getpid());
    std::vector<std::filesystem::path> missing;  // innermost first
    for (auto at = beside; !at.empty() && !is_folder(at); at = at.parent_path()) missing.push_back(at);
    for (; problem == 0 && !missing.empty(); missing.pop_back()) {
      if (::mkdir(missing.back().c_str(), 0777) == 0) {
        made.push_back(missing.back());
      } else if (errno != EEXIST) {  // another program may have made it meanwhile
        problem = errno;
        refused = missing.back();
      }
    }
  } catch (file_error const& e) {
    fail<usage_error>("{} {}", option, e.what());
  }
  for (; !made.empty(); made.pop_back()) ::rmdir(made.back().c_str());
  expects<usage_error>(problem == 0, "{} {}: {} cannot be made: {}", option, path.string(), refused.string(),
                       detail::system_reason(problem));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
