#pragma once

/// \file
/// Writes a model as a Hugging Face folder that transformers loads: config.json, generation_config.json and
/// safetensors.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/hugging_face_config.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/io/safetensors.hpp>

#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Gives rows [first, first + count) of the tensor `hf_name` as floats; the rows of a 1-D tensor are its elements.
/// `model_file::read_rows` has this form.
using row_source = std::function<void(std::string_view hf_name, index_t first, index_t count, std::span<float> out)>;

struct hugging_face_options {
  dtype type = dtype::bf16;                     ///< f32, bf16 or f16
  std::uint64_t max_shard_bytes = 5000000000u;  ///< more goes into several files with an index, as transformers has it
  std::vector<std::filesystem::path> copy_files{};  ///< copied under their own names: tokenizer.json and its companions
  std::map<std::string, std::string> text_files{};  ///< further files: name and content
  /// config.json of the model that this one comes from, or null: fields that say nothing of the model's make-up stay
  /// (dropout, pad_token_id, fields that this library does not know).
  json config{};
  /// generation_config.json of the model that this one comes from, or null: what it says beside the ids that begin and
  /// end a text stays, and ids that end a text are added to the config's.
  json generation_config{};
  /// Values of the edit that the model holds, stored as F32 in a file of their own; empty: none.
  std::vector<float> attention_edit{};
};

/// config.json and generation_config.json of a model's folder, for `hugging_face_options`; null where there is none.
json config_of(std::filesystem::path const& folder);
json generation_config_of(std::filesystem::path const& folder);

/// The tokenizer's files that exist in a model folder, for `hugging_face_options::copy_files`.
std::vector<std::filesystem::path> tokenizer_files(std::filesystem::path const& folder);

namespace detail {

/// A folder that appears under its name only when it is complete; it replaces an older one in one step where the system
/// can.
class atomic_folder {
 public:
  explicit atomic_folder(std::filesystem::path const& target) : target_(target) {
    if (!target_.has_filename()) target_ = target_.parent_path();  // "folder/"
    temporary_ = target_;
    temporary_ += fmt::format(".partial-{}", ::getpid());
    std::error_code problem;
    std::filesystem::remove_all(temporary_, problem);
    std::filesystem::create_directories(temporary_, problem);
    if (problem) fail<file_error>("{}: cannot be created: {}", temporary_.string(), problem.message());
  }
  atomic_folder(atomic_folder const&) = delete;
  atomic_folder& operator=(atomic_folder const&) = delete;
  ~atomic_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(temporary_, ignored);
  }

  std::filesystem::path const& path() const { return temporary_; }

  void commit() {
    sync_directory(temporary_);
    std::error_code problem;
    if (!is_there(target_)) {
      std::filesystem::rename(temporary_, target_, problem);
    } else if (!exchange()) {
      std::filesystem::path old = target_;
      old += fmt::format(".old-{}", ::getpid());
      std::filesystem::rename(target_, old, problem);
      if (!problem) std::filesystem::rename(temporary_, target_, problem);
      std::error_code ignored;
      if (!problem) std::filesystem::remove_all(old, ignored);
    }
    if (problem) {
      fail<file_error>("{}: cannot be renamed to {}: {}", temporary_.string(), target_.string(), problem.message());
    }
    sync_directory(target_.parent_path());
  }

  /// As commit, but what is there already stays.
  /// \returns false when the target is there and not empty
  bool commit_new() {
    sync_directory(temporary_);
    std::error_code problem;
    std::filesystem::rename(temporary_, target_, problem);  // an empty folder is replaced
    if (problem == std::errc::directory_not_empty || problem == std::errc::file_exists) return false;
    if (problem) {
      fail<file_error>("{}: cannot be renamed to {}: {}", temporary_.string(), target_.string(), problem.message());
    }
    sync_directory(target_.parent_path());
    return true;
  }

 private:
  bool exchange() const {
#ifdef RENAME_EXCHANGE
    return ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0;
#else
    return false;
#endif
  }

  std::filesystem::path target_, temporary_;
};

/// A folder that is about to be replaced may hold nothing but what is written again: somebody else's files are never
/// deleted.
/// \param what  what is going to be written, for the error
/// \param ours  whether a file of that name belongs to it
template <class Ours>
void check_replaceable(std::filesystem::path const& folder, std::string_view what, Ours const& ours) {
  auto const status = status_of(folder);
  if (!std::filesystem::exists(status)) return;
  expects<file_error>(std::filesystem::is_directory(status), "{}: exists and is not a folder", folder.string());
  std::error_code problem;
  for (std::filesystem::directory_iterator at(folder, problem), end; !problem && at != end; at.increment(problem)) {
    std::string const name = at->path().filename().string();
    expects<file_error>(ours(name) && std::filesystem::is_regular_file(status_of(at->path())),
                        "{}: cannot be replaced by {} because it also holds {}", folder.string(), what, name);
  }
  if (problem) fail<file_error>("{}: the folder cannot be read: {}", folder.string(), problem.message());
}

/// The files that a model's folder may have.
[[gnu::cold]] inline bool is_model_file(std::string const& name, hugging_face_options const& options) {
  static constexpr std::array<std::string_view, 12> known{"config.json",
                                                          "generation_config.json",
                                                          "tokenizer.json",
                                                          "tokenizer_config.json",
                                                          "vocab.json",
                                                          "merges.txt",
                                                          "special_tokens_map.json",
                                                          "added_tokens.json",
                                                          "model.safetensors.index.json",
                                                          "chat_template.jinja",
                                                          "chat_template.json",
                                                          attention_edit_file};
  return std::find(known.begin(), known.end(), name) != known.end() || options.text_files.contains(name) ||
         (name.starts_with("model") && name.ends_with(".safetensors")) ||
         std::any_of(options.copy_files.begin(), options.copy_files.end(),
                     [&](auto const& f) { return f.filename() == name; });
}

[[gnu::cold]] inline void write_tensors(std::filesystem::path const& file, std::span<tensor_shape const> tensors,
                                        dtype type, row_source const& rows) {
  std::vector<tensor_declaration> declarations;
  for (tensor_shape const& t : tensors) declarations.push_back({t.name, type, t.shape});
  safetensors_writer writer(file, std::move(declarations));
  std::vector<float> piece;
  for (tensor_shape const& t : tensors) {
    index_t const columns = t.shape.size() == 1 ? 1 : t.shape[1];
    index_t const most = std::max<index_t>(1, (index_t(1) << 20) / columns);
    for (index_t first = 0; first < t.shape[0]; first += most) {
      index_t const count = std::min(most, t.shape[0] - first);
      piece.resize(std::size_t(count * columns));
      rows(t.name, first, count, piece);
      writer.append(t.name, piece);
    }
  }
  writer.finish();
}

}  // namespace detail

/// Looks before the work whether `save_hugging_face_folder` may write there, so that no training is lost to it.
/// \param option  "--out", for the sentence
/// \throws usage_error when the folder cannot be made, or exists and holds other things than a model
void check_model_output(std::string_view option, std::filesystem::path const& folder,
                        hugging_face_options const& options = {});

/// Writes a model's folder: beside its place first, then renamed, so that it is there completely or not at all. An
/// older model folder of that name is replaced.
/// \param rows  gives the tensors of model_tensors(config, kind)
/// \throws file_error when something cannot be written, or the folder exists and holds other things than a model
void save_hugging_face_folder(std::filesystem::path const& folder, model_config const& config, architecture const& kind,
                              row_source const& rows, hugging_face_options const& options = {});

#if ATMANRL_BODIES

namespace detail {

[[gnu::cold]] inline json object_in(std::filesystem::path const& path) {
  if (!is_there(path)) return nullptr;
  json found = read_json_file(path);
  expects<file_error>(found.is_object(), "{}: its content is not a JSON object", path.string());
  return found;
}

}  // namespace detail

ATMANRL_INLINE json config_of(std::filesystem::path const& folder) { return detail::object_in(folder / "config.json"); }
ATMANRL_INLINE json generation_config_of(std::filesystem::path const& folder) {
  return detail::object_in(folder / "generation_config.json");
}

ATMANRL_INLINE void check_model_output(std::string_view option, std::filesystem::path const& folder,
                                       hugging_face_options const& options) {
  try {
    detail::check_replaceable(folder, "a model",
                              [&](std::string const& name) { return detail::is_model_file(name, options); });
  } catch (file_error const& e) {
    fail<usage_error>("{} {}", option, e.what());
  }
  check_output_folder(option, folder);
}

namespace detail {

/// The description of the model that is written, with what the source's config.json says of other things.
[[gnu::cold]] inline json merged_config(json const& source, json description) {
  static constexpr std::array<std::string_view, 3> not_read{"attention_dropout", "initializer_range", "use_cache"};
  // Newer spellings of what the description says in the older one, and code whose files are not copied.
  static constexpr std::array<std::string_view, 4> left_out{"dtype", "rope_parameters", "hidden_activation",
                                                            "auto_map"};
  auto const holds = [](auto const& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (!source.is_object()) return description;
  for (auto const& [name, value] : source.items())
    if (holds(not_read, name) || (!description.contains(name) && !holds(left_out, name))) description[name] = value;
  return description;
}

/// What the source's generation_config.json says, with the ids of the model that is written.
[[gnu::cold]] inline json merged_generation_config(json const& source, json const& description) {
  json merged = source.is_object() ? source : json::object();
  if (description.contains("bos_token_id")) merged["bos_token_id"] = description["bos_token_id"];
  json ends = json::array();
  for (json const* const from : {&description, &source}) {
    if (!from->is_object() || !from->contains("eos_token_id")) continue;
    json const& ids = (*from)["eos_token_id"];
    for (json const& id : ids.is_array() ? ids : json::array({ids}))
      if (!id.is_null() && std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  }
  if (ends.size() == 1) merged["eos_token_id"] = ends.front();
  if (ends.size() > 1) merged["eos_token_id"] = ends;
  return merged;
}

}  // namespace detail

ATMANRL_INLINE std::vector<std::filesystem::path> tokenizer_files(std::filesystem::path const& folder) {
  std::vector<std::filesystem::path> found;
  for (char const* const name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                 "chat_template.jinja", "chat_template.json"}) {
    if (std::filesystem::is_regular_file(folder / name)) found.push_back(folder / name);
  }
  return found;
}

ATMANRL_INLINE void save_hugging_face_folder(std::filesystem::path const& folder, model_config const& config,
                                             architecture const& kind, row_source const& rows,
                                             hugging_face_options const& options) {
  validate(config, folder.string());
  expects<usage_error>(options.type == dtype::f32 || options.type == dtype::bf16 || options.type == dtype::f16,
                       "a model is stored as F32, BF16 or F16, not as {}", dtype_name(options.type));
  json const description = to_hugging_face_config(config, kind, torch_dtype_name(options.type));
  detail::check_replaceable(folder, "a model",
                            [&](std::string const& name) { return detail::is_model_file(name, options); });
  detail::atomic_folder out(folder);

  write_file_atomically(out.path() / "config.json", detail::merged_config(options.config, description).dump(2) + "\n");
  write_file_atomically(out.path() / "generation_config.json",
                        detail::merged_generation_config(options.generation_config, description).dump(2) + "\n");
  for (auto const& from : options.copy_files) {
    mapped_file const content(from);
    atomic_file to(out.path() / from.filename());
    to.write(content.bytes());
    to.commit();
  }
  for (auto const& [name, text] : options.text_files) write_file_atomically(out.path() / name, text);

  std::vector<tensor_shape> const tensors = model_tensors(config, kind);
  auto bytes_of = [&](tensor_shape const& t) {
    std::uint64_t bytes = std::uint64_t(dtype_bytes(options.type));
    for (index_t const e : t.shape) bytes *= std::uint64_t(e);
    return bytes;
  };
  std::vector<std::size_t> begins{0};  // first tensor of each shard
  std::uint64_t total = 0, in_shard = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    std::uint64_t const bytes = bytes_of(tensors[i]);
    if (i > begins.back() && in_shard + bytes > options.max_shard_bytes) {
      begins.push_back(i);
      in_shard = 0;
    }
    in_shard += bytes;
    total += bytes;
  }
  if (begins.size() == 1) {
    detail::write_tensors(out.path() / "model.safetensors", tensors, options.type, rows);
  } else {
    json index = {{"metadata", {{"total_size", total}}}, {"weight_map", json::object()}};
    for (std::size_t s = 0; s < begins.size(); ++s) {
      std::size_t const end = s + 1 < begins.size() ? begins[s + 1] : tensors.size();
      std::span<tensor_shape const> const part(tensors.data() + begins[s], end - begins[s]);
      std::string const name = fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, begins.size());
      detail::write_tensors(out.path() / name, part, options.type, rows);
      for (tensor_shape const& t : part) index["weight_map"][t.name] = name;
    }
    write_file_atomically(out.path() / "model.safetensors.index.json", index.dump(2) + "\n");
  }
  if (!options.attention_edit.empty()) {
    index_t const count = index_t(options.attention_edit.size());
    std::array<tensor_shape, 1> const values{{{std::string(attention_edit_name), {count}}}};
    detail::write_tensors(out.path() / attention_edit_file, values, dtype::f32,
                          [&](std::string_view, index_t first, index_t, std::span<float> rows_out) {
                            std::copy_n(options.attention_edit.begin() + first, rows_out.size(), rows_out.begin());
                          });
  }
  out.commit();
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
