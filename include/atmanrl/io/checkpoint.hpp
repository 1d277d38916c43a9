#pragma once

/// \file
/// Checkpoints of a training run that survive a crash at any moment. Each is one file `step-000012.checkpoint`:
/// 8 bytes "ATMANRL1", file size (u64), header length (u64), header (JSON: step, arrays, state_bytes), zero bytes up to
/// a multiple of 8, the arrays (float32, each padded to 8), the state's text, XXH64 of everything before (u64).

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/dtype.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/io/xxh64.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// An array of a checkpoint: values in memory, or where they lie in its file. Copies share them.
class checkpoint_values {
 public:
  checkpoint_values(std::vector<float> values = {})
      : memory_(std::make_shared<std::vector<float> const>(std::move(values))), values_(*memory_) {}
  checkpoint_values(std::initializer_list<float> values) : checkpoint_values(std::vector<float>(values)) {}
  checkpoint_values(std::shared_ptr<mapped_file const> file, std::span<float const> values)
      : file_(std::move(file)), values_(values) {}

  std::size_t size() const { return values_.size(); }
  float operator[](std::size_t i) const { return values_[i]; }
  auto begin() const { return values_.begin(); }
  auto end() const { return values_.end(); }
  operator std::span<float const>() const { return values_; }
  friend bool operator==(checkpoint_values const& a, checkpoint_values const& b) {
    return std::ranges::equal(a.values_, b.values_);
  }

  /// `f(piece)` for values [first, first + count) in their order. Of a file no more than a piece is in memory at once.
  template <class F>
  void in_pieces(std::size_t first, std::size_t count, F&& f) const {
    static constexpr std::size_t most = std::size_t(1) << 20;
    for (std::size_t const end = first + count; first < end; first += most) {
      auto const piece = values_.subspan(first, std::min(most, end - first));
      f(piece);
      if (file_) file_->forget(std::as_bytes(piece));
    }
  }

 private:
  std::shared_ptr<std::vector<float> const> memory_;
  std::shared_ptr<mapped_file const> file_;
  std::span<float const> values_;
};

/// The state of a run after `step` steps.
struct checkpoint {
  std::uint64_t step = 0;
  std::map<std::string, checkpoint_values> arrays{};  ///< weights and optimiser moments
  std::string state_json{};                           ///< everything small: counters, options, positions in files
};

/// An array that is written: values that stay where they are, or a function that calls its argument with pieces of them
/// in their order.
struct checkpoint_array {
  std::string name;
  std::size_t count = 0;
  std::span<float const> values = {};
  std::function<void(std::function<void(std::span<float const>)> const&)> in_pieces = {};
};

/// The same over memory that stays where it is.
struct checkpoint_view {
  std::uint64_t step = 0;
  std::vector<checkpoint_array> arrays{};
  std::string_view state_json{};
};

/// Name of a checkpoint's file inside its folder.
inline std::string checkpoint_name(std::uint64_t step) { return fmt::format("step-{:06}.checkpoint", step); }

namespace detail {

inline constexpr std::string_view checkpoint_magic = "ATMANRL1";

inline std::uint64_t padded_to_8(std::uint64_t bytes) { return (bytes + 7) / 8 * 8; }

/// Step in a checkpoint's file name, if it is one.
[[gnu::cold]] inline std::optional<std::uint64_t> step_of_name(std::string const& name) {
  std::string_view const prefix = "step-", suffix = ".checkpoint";
  if (!name.starts_with(prefix) || !name.ends_with(suffix)) return std::nullopt;
  std::string const digits = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) {
    return std::nullopt;
  }
  return std::stoull(digits);
}

/// A killed process leaves what it was writing; large models would fill the disk with it. A run's folder has one
/// writer.
[[gnu::cold]] inline void remove_half_written_checkpoints(std::filesystem::path const& folder) {
  std::vector<std::filesystem::path> left_over;
  std::error_code problem;
  for (std::filesystem::directory_iterator at(folder, problem), end; !problem && at != end; at.increment(problem)) {
    std::string const name = at->path().filename().string();
    std::size_t const suffix = name.find(".partial-");
    if (suffix != std::string::npos && step_of_name(name.substr(0, suffix))) left_over.push_back(at->path());
  }
  for (auto const& path : left_over) std::filesystem::remove(path, problem);
}

}  // namespace detail

/// The checkpoints of a folder, newest first, whether they are intact or not; none where there is no such folder.
/// \throws file_error when the folder cannot be read
std::vector<std::filesystem::path> list_checkpoints(std::filesystem::path const& folder);

/// Writes a checkpoint beside its place, flushes it and renames it; only then are older ones removed, down to `keep` in
/// all. Checkpoints of later steps belong to a course of the run that was given up, and are removed too.
/// \throws file_error when it cannot be written; the older ones are untouched then
void save_checkpoint(std::filesystem::path const& folder, checkpoint_view const& c, int keep = 2);

/// As above, for a checkpoint that owns its arrays.
void save_checkpoint(std::filesystem::path const& folder, checkpoint const& c, int keep = 2);

/// Reads one checkpoint's file. Its arrays stay in the file, which need not keep its name but must not be changed.
/// \throws file_error when it is cut off, damaged or no checkpoint
checkpoint load_checkpoint(std::filesystem::path const& path);

/// The newest checkpoint of a folder that is intact and fits; nothing when none is intact.
/// \param on_bad   called with one sentence for each newer one that had to be passed over
/// \param fits     throws file_error for one that cannot be used, and the one before it is looked at; other exceptions
///                 pass; may be empty
/// \throws file_error when the folder cannot be read, or there are intact ones of which none fits: to begin anew would
///         throw away what they belong to
std::optional<checkpoint> load_latest_checkpoint(
    std::filesystem::path const& folder, std::function<void(std::string const&)> const& on_bad,
    std::function<void(checkpoint const&, std::filesystem::path const&)> const& fits = {});

#if ATMANRL_BODIES

ATMANRL_INLINE std::vector<std::filesystem::path> list_checkpoints(std::filesystem::path const& folder) {
  std::vector<std::pair<std::uint64_t, std::filesystem::path>> found;
  if (!is_there(folder)) return {};
  std::error_code problem;
  for (std::filesystem::directory_iterator at(folder, problem), end; !problem && at != end; at.increment(problem)) {
    if (auto const step = detail::step_of_name(at->path().filename().string())) found.emplace_back(*step, at->path());
  }
  // A folder that cannot be read is not one without checkpoints.
  if (problem) fail<file_error>("{}: the folder cannot be read: {}", folder.string(), problem.message());
  std::sort(found.begin(), found.end(), [](auto const& a, auto const& b) { return a.first > b.first; });
  std::vector<std::filesystem::path> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

ATMANRL_INLINE void save_checkpoint(std::filesystem::path const& folder, checkpoint_view const& c, int keep) {
  expects<usage_error>(keep >= 1, "{} checkpoints to keep: at least one is needed", keep);
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem) fail<file_error>("{}: the folder cannot be created: {}", folder.string(), problem.message());

  json header = {{"step", c.step}, {"state_bytes", c.state_json.size()}, {"arrays", json::array()}};
  std::uint64_t size = detail::padded_to_8(c.state_json.size()) + 8;
  for (checkpoint_array const& a : c.arrays) {
    header["arrays"].push_back({{"name", a.name}, {"count", a.count}});
    size += detail::padded_to_8(a.count * sizeof(float));
  }
  std::string text = header.dump();
  text.resize(detail::padded_to_8(text.size()), ' ');
  std::uint64_t const length = text.size();
  size += 24 + length;

  atomic_file file(folder / checkpoint_name(c.step));
  xxh64 hash;
  auto put = [&](std::span<std::byte const> bytes) {
    hash.update(bytes);
    file.write(bytes);
  };
  auto pad = [&](std::size_t bytes) {
    static constexpr std::byte zeros[8]{};
    put({zeros, std::size_t(detail::padded_to_8(bytes) - bytes)});
  };
  put(std::as_bytes(std::span(detail::checkpoint_magic)));
  put(std::as_bytes(std::span(&size, 1)));
  put(std::as_bytes(std::span(&length, 1)));
  put(std::as_bytes(std::span(text)));
  for (checkpoint_array const& a : c.arrays) {
    std::size_t count = 0;
    auto const put_values = [&](std::span<float const> values) {
      count += values.size();
      put(std::as_bytes(values));
    };
    if (a.in_pieces)
      a.in_pieces(put_values);
    else
      put_values(a.values);
    expects<shape_error>(count == a.count, "the array {} of a checkpoint has {} values, not {}", a.name, count,
                         a.count);
    pad(count * sizeof(float));
  }
  put(std::as_bytes(std::span(c.state_json)));
  pad(c.state_json.size());
  std::uint64_t const digest = hash.digest();
  file.write(std::as_bytes(std::span(&digest, 1)));
  file.commit();

  int kept = 0;
  for (auto const& path : list_checkpoints(folder)) {
    auto const step = *detail::step_of_name(path.filename().string());
    if (step > c.step || ++kept > keep) std::filesystem::remove(path, problem);
  }
  detail::remove_half_written_checkpoints(folder);
}

ATMANRL_INLINE void save_checkpoint(std::filesystem::path const& folder, checkpoint const& c, int keep) {
  checkpoint_view v{.step = c.step, .state_json = c.state_json};
  for (auto const& [name, values] : c.arrays) v.arrays.push_back({name, values.size(), values, {}});
  save_checkpoint(folder, v, keep);
}

ATMANRL_INLINE checkpoint load_checkpoint(std::filesystem::path const& path) {
  auto const file = std::make_shared<mapped_file const>(path);
  std::string const name = path.string();
  std::span<std::byte const> const all = file->bytes();
  expects<file_error>(all.size() >= 32 && std::memcmp(all.data(), detail::checkpoint_magic.data(), 8) == 0,
                      "{}: is not a checkpoint", name);
  auto const size = detail::load_unaligned<std::uint64_t>(all.data() + 8);
  expects<file_error>(size == all.size(), "{}: has {} bytes but was written with {}", name, all.size(), size);
  xxh64 hash;
  for (auto rest = all.first(all.size() - 8); !rest.empty();) {
    auto const piece = rest.first(std::min(rest.size(), std::size_t(1) << 22));
    hash.update(piece);
    file->forget(piece);
    rest = rest.subspan(piece.size());
  }
  expects<file_error>(hash.digest() == detail::load_unaligned<std::uint64_t>(all.data() + all.size() - 8),
                      "{}: its content does not match its hash", name);

  // The hash is right, so what follows can only fail for a file that somebody made by hand.
  auto const length = detail::load_unaligned<std::uint64_t>(all.data() + 16);
  expects<file_error>(length <= all.size() - 32, "{}: the header length {} is too large", name, length);
  std::span<std::byte const> left = all.subspan(24, all.size() - 32);
  auto take = [&](std::uint64_t bytes, std::string_view what) {
    expects<file_error>(bytes <= left.size(), "{}: {} needs {} bytes but {} are left", name, what, bytes, left.size());
    auto const part = left.first(std::size_t(bytes));
    left = left.subspan(std::size_t(std::min<std::uint64_t>(detail::padded_to_8(bytes), left.size())));
    return part;
  };
  auto const text = take(length, "the header");
  json const header = parse_json({reinterpret_cast<char const*>(text.data()), text.size()}, name + " (header)");
  auto whole_number = [&](json const& object, char const* field) {
    expects<file_error>(object.is_object() && object.contains(field) && object[field].is_number_unsigned(),
                        "{}: the header's {} is no whole number", name, field);
    return object[field].get<std::uint64_t>();
  };
  checkpoint c;
  c.step = whole_number(header, "step");
  expects<file_error>(header.contains("arrays") && header["arrays"].is_array(), "{}: the header's arrays are no list",
                      name);
  for (json const& array : header["arrays"]) {
    auto const count = whole_number(array, "count");
    expects<file_error>(array.contains("name") && array["name"].is_string(), "{}: an array's name is no text", name);
    auto const& array_name = array["name"].get_ref<std::string const&>();
    expects<file_error>(count <= left.size() / 4, "{}: {} has {} values but {} bytes are left", name, array_name, count,
                        left.size());
    auto const bytes = take(count * 4, array_name);
    // Everything before is padded to 8 bytes, so that the floats are aligned in the file.
    c.arrays[array_name] = {file, {reinterpret_cast<float const*>(bytes.data()), std::size_t(count)}};
  }
  auto const state = take(whole_number(header, "state_bytes"), "the state");
  c.state_json.assign(reinterpret_cast<char const*>(state.data()), state.size());
  return c;
}

ATMANRL_INLINE std::optional<checkpoint> load_latest_checkpoint(
    std::filesystem::path const& folder, std::function<void(std::string const&)> const& on_bad,
    std::function<void(checkpoint const&, std::filesystem::path const&)> const& fits) {
  std::optional<std::string> unfit;  // why the newest intact one cannot be used
  auto const all = list_checkpoints(folder);
  for (std::size_t i = 0; i < all.size(); ++i) {
    bool intact = false;
    try {
      checkpoint c = load_checkpoint(all[i]);
      auto const step = *detail::step_of_name(all[i].filename().string());
      expects<file_error>(c.step == step, "{}: holds step {}", all[i].string(), c.step);
      intact = true;
      if (fits) fits(c, all[i]);
      return c;
    } catch (file_error const& e) {
      if (intact && !unfit) unfit = e.what();
      if (on_bad)
        on_bad(fmt::format(
            "{}; {}", e.what(),
            i + 1 < all.size() ? "the checkpoint before it is looked at" : "there is no checkpoint before it"));
    }
  }
  if (unfit) throw file_error(*unfit);
  return std::nullopt;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
