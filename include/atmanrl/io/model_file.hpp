#pragma once

/// \file
/// A model on disk, whatever its format: Hugging Face folder, GGUF or llama2.c. One set of names (Hugging Face's), one
/// layout (rows for the half-split rotation), values as float.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/architecture.hpp>
#include <atmanrl/io/gguf_model.hpp>
#include <atmanrl/io/hugging_face_config.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/io/llama2c.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/io/safetensors.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// An open model. All tensors that the config promises are there with the right shapes; values are read on demand.
/// May be read by several threads at once.
class model_file {
 public:
  /// Opens a folder with config.json and model.safetensors (or model.safetensors.index.json and its shards), a .gguf
  /// file, or a llama2.c .bin file.
  /// \param known  the kinds of models that the program is built for; those of a model class are its architectures()
  /// \throws file_error that names the file and the field
  static model_file open(std::filesystem::path const& path, architectures const& known);

  model_config const& config() const { return config_; }
  architecture const& kind() const { return kind_; }
  std::filesystem::path const& path() const { return path_; }
  /// The tensors of the config, in the order of model_tensors().
  std::vector<tensor_shape> tensors() const { return model_tensors(config_, kind_); }

  /// Values of the model's own attention edit; empty where the model was saved without one. Whoever makes a model of
  /// the file must use them or refuse the file: without them it is another model.
  std::span<float const> attention_edit() const { return attention_edit_; }

  bool has(std::string_view hf_name) const { return sources_.find(hf_name) != sources_.end(); }
  std::vector<index_t> shape(std::string_view hf_name) const { return source_of(hf_name).shape; }
  /// Type in the file, "BF16" or "Q4_1" for instance.
  std::string_view storage_type(std::string_view hf_name) const { return source_of(hf_name).type_name; }

  /// Rows [first, first + count) of a tensor; the rows of a 1-D tensor are its elements.
  /// \param out  (count, columns), overwritten
  /// \throws shape_error when the tensor or the rows do not exist or `out` has another size
  void read_rows(std::string_view hf_name, index_t first, index_t count, std::span<float> out) const;

  /// The type of a matrix whose rows are blocks of numbers that share a scale, as they are in the file; nothing for
  /// others, and where what the file holds is not yet the matrix.
  std::optional<gguf_type> quantised_type(std::string_view hf_name) const { return source_of(hf_name).blocks; }
  /// Rows [first, first + count) of such a matrix as the file has them.
  /// \param out  whole rows, overwritten
  /// \throws shape_error as `read_rows`, and for a tensor without quantised_type
  void read_blocks(std::string_view hf_name, index_t first, index_t count, std::span<std::byte> out) const;

  /// Gives the memory back through which a tensor's bytes were read; what reads them again finds them in the file.
  void forget(std::string_view hf_name) const { mapped_file::forget(source_of(hf_name).bytes); }

  /// A whole tensor, row-major.
  void read(std::string_view hf_name, std::span<float> out) const {
    read_rows(hf_name, 0, source_of(hf_name).shape.front(), out);
  }

 private:
  /// Where a tensor's bytes lie and how a run of them becomes floats.
  struct source {
    std::vector<index_t> shape;
    std::span<std::byte const> bytes;
    std::string_view type_name;
    index_t row_bytes = 0;          // bytes of one row; of everything for a 1-D tensor
    index_t block = 1;              // elements that are stored together
    index_t interleaved_heads = 0;  // > 0: this many heads whose rotated pairs are neighbouring rows
    std::function<void(std::byte const*, index_t, float*)> decode;
    std::string file;
    std::optional<gguf_type> blocks{};  // of a matrix of blocks that stand for its values

    /// Where row `r` of the matrix lies in the file.
    index_t row_in_file(index_t r) const {
      if (interleaved_heads == 0) return r;
      // Half-split row j of a head is row 2j of the interleaved head for the first half and 2j - dim + 1 for the
      // second.
      index_t const dim = shape.front() / interleaved_heads, j = r % dim;
      return r - j + (j < dim / 2 ? 2 * j : 2 * j - dim + 1);
    }
  };

  model_file() = default;

  source const& source_of(std::string_view name) const {
    auto const at = sources_.find(name);
    expects<shape_error>(at != sources_.end(), "{}: there is no tensor {}", path_.string(), name);
    return at->second;
  }

  void add(std::string const& name, source s) {
    index_t const rows = s.shape.size() < 2 ? 1 : s.shape.front();
    s.row_bytes = rows > 0 ? index_t(s.bytes.size()) / rows : 0;
    sources_.insert_or_assign(name, std::move(s));
  }

  static source from_safetensors(tensor_entry const& t, std::string const& file);

  void add_safetensors(std::filesystem::path const& path, std::map<std::string, std::string> const* weight_map);

  void open_hugging_face(architectures const& known);

  void open_shards();

  void read_attention_edit();

  /// A stored head wins over tie_word_embeddings unless it is the embedding once more.
  void settle_head();

  void open_gguf(architectures const& known);

  void open_llama2c();

  void check_complete() const;

  std::filesystem::path path_;
  model_config config_;
  architecture kind_;
  std::map<std::string, source, std::less<>> sources_;
  std::vector<std::shared_ptr<mapped_file const>> storage_;
  std::vector<float> attention_edit_;
};

/// Whether a file is a .gguf with matrices in blocks. False for what is not there.
/// \throws file_error for a .gguf that cannot be read
bool has_quantised_matrices(std::filesystem::path const& path);

#if ATMANRL_BODIES

ATMANRL_INLINE bool has_quantised_matrices(std::filesystem::path const& path) {
  if (path.extension() != ".gguf" || !is_there(path)) return false;
  gguf_file const file(path);
  auto const tensors = file.tensors();
  return std::any_of(tensors.begin(), tensors.end(), [](gguf_tensor const& t) {
    return t.shape.size() == 2 && find_gguf_type(std::uint32_t(t.type))->block_elements > 1;
  });
}

ATMANRL_INLINE model_file model_file::open(std::filesystem::path const& path, architectures const& known) {
  model_file m;
  m.path_ = path;
  auto const status = status_of(path);
  expects<file_error>(std::filesystem::exists(status), "{}: there is no such file or folder", path.string());
  if (std::filesystem::is_directory(status)) {
    m.open_hugging_face(known);
  } else if (path.extension() == ".gguf") {
    m.open_gguf(known);
  } else if (path.extension() == ".bin") {
    m.open_llama2c();
    m.kind_ = find_architecture(known, m.config_.architecture);
  } else {
    fail<file_error>("{}: is no model: a Hugging Face folder, a .gguf file or a llama2.c .bin file is needed",
                     path.string());
  }
  m.check_complete();
  return m;
}

ATMANRL_INLINE void model_file::read_rows(std::string_view hf_name, index_t first, index_t count,
                                          std::span<float> out) const {
  source const& s = source_of(hf_name);
  bool const vector = s.shape.size() == 1;
  index_t const rows = s.shape.front(), columns = vector ? 1 : s.shape.back();
  expects<shape_error>(first >= 0 && count >= 0 && first <= rows && count <= rows - first,
                       "rows {} to {} of {}, which has {}", first, first + count, hf_name, rows);
  expects<shape_error>(index_t(out.size()) == count * columns, "{} rows of {} are {} floats but there is room for {}",
                       count, hf_name, count * columns, out.size());
  if (count == 0) return;
  if (s.interleaved_heads > 0) {
    auto all = std::vector<float>(std::size_t(vector ? rows : 0));
    if (vector) s.decode(s.bytes.data(), rows, all.data());
    for (index_t r = 0; r < count; ++r) {
      index_t const row = s.row_in_file(first + r);
      if (vector)
        out[std::size_t(r)] = all[std::size_t(row)];
      else
        s.decode(s.bytes.data() + row * s.row_bytes, columns, out.data() + r * columns);
    }
  } else if (vector && s.block > 1) {
    auto all = std::vector<float>(std::size_t(rows));
    s.decode(s.bytes.data(), rows, all.data());
    std::copy_n(all.begin() + first, count, out.begin());
  } else if (vector) {
    s.decode(s.bytes.data() + first * (s.row_bytes / rows), count, out.data());
  } else {
    s.decode(s.bytes.data() + first * s.row_bytes, count * columns, out.data());
  }
}

ATMANRL_INLINE void model_file::read_blocks(std::string_view hf_name, index_t first, index_t count,
                                            std::span<std::byte> out) const {
  source const& s = source_of(hf_name);
  expects<shape_error>(s.blocks.has_value() && first >= 0 && count >= 0 && first <= s.shape.front() &&
                           count <= s.shape.front() - first && index_t(out.size()) == count * s.row_bytes,
                       "rows {} to {} of {} are no blocks that fill {} bytes", first, first + count, hf_name,
                       out.size());
  for (index_t r = 0; r < count; ++r)
    std::memcpy(out.data() + r * s.row_bytes, s.bytes.data() + s.row_in_file(first + r) * s.row_bytes,
                std::size_t(s.row_bytes));
}

ATMANRL_INLINE model_file::source model_file::from_safetensors(tensor_entry const& t, std::string const& file) {
  expects<file_error>(is_floating(t.type), "{}: {} is of type {}, not floating point", file, t.name,
                      dtype_name(t.type));
  dtype const type = t.type;
  return {.shape = t.shape,
          .bytes = t.bytes,
          .type_name = dtype_name(type),
          .decode = [type](std::byte const* from, index_t n, float* to) { detail::widen(type, from, n, to); },
          .file = file};
}

ATMANRL_INLINE void model_file::add_safetensors(std::filesystem::path const& path,
                                                std::map<std::string, std::string> const* weight_map) {
  safetensors_file const file(path);
  storage_.push_back(file.storage());
  for (tensor_entry const& t : file.tensors()) {
    if (weight_map) {
      auto const at = weight_map->find(t.name);
      if (at == weight_map->end() || at->second != path.filename()) continue;
    }
    if (t.name.ends_with("rotary_emb.inv_freq")) continue;  // old checkpoints store what follows from rope_theta
    add(t.name, from_safetensors(t, path.string()));
  }
}

ATMANRL_INLINE void model_file::open_hugging_face(architectures const& known) {
  std::filesystem::path const config_path = path_ / "config.json";
  json const config = read_json_file(config_path);
  std::optional<json> generation;
  if (is_there(path_ / "generation_config.json")) {
    generation = read_json_file(path_ / "generation_config.json");
  }
  config_ = parse_hugging_face_config(config, generation ? &*generation : nullptr, known, config_path.string());
  kind_ = find_architecture(known, config_.architecture);

  if (is_there(path_ / "model.safetensors")) {
    add_safetensors(path_ / "model.safetensors", nullptr);
  } else {
    open_shards();
  }
  settle_head();
  if (is_there(path_ / attention_edit_file)) read_attention_edit();
}

ATMANRL_INLINE void model_file::read_attention_edit() {
  safetensors_file const file(path_ / attention_edit_file);
  std::string const name = file.path().string();
  tensor_entry const* const t = file.find(attention_edit_name);
  expects<file_error>(t && file.tensors().size() == 1 && t->shape.size() == 1,
                      "{}: must hold the tensor {}, of one dimension, and no other", name, attention_edit_name);
  source const values = from_safetensors(*t, name);
  attention_edit_.resize(std::size_t(t->shape.front()));
  values.decode(values.bytes.data(), t->shape.front(), attention_edit_.data());
}

ATMANRL_INLINE void model_file::open_shards() {
  std::filesystem::path const index_path = path_ / "model.safetensors.index.json";
  expects<file_error>(is_there(index_path), "{}: holds neither model.safetensors nor model.safetensors.index.json",
                      path_.string());
  json const index = read_json_file(index_path);
  std::string const name = index_path.string();
  expects<file_error>(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(),
                      "{}: weight_map is missing", name);
  std::map<std::string, std::string> weight_map;
  std::set<std::string> shards;
  for (auto const& [tensor, shard] : index["weight_map"].items()) {
    expects<file_error>(shard.is_string(), "{}: weight_map.{} is not a file's name", name, detail::printable(tensor));
    auto const file = shard.template get<std::string>();
    // A name with folders in it could leave the model's folder.
    expects<file_error>(!file.empty() && file.find_first_of("/\\") == std::string::npos && file[0] != '.' &&
                            file.find('\0') == std::string::npos,
                        "{}: weight_map.{} is \"{}\", not a plain file name", name, detail::printable(tensor),
                        detail::printable(file));
    weight_map.emplace(tensor, file);
    shards.insert(file);
  }
  for (std::string const& shard : shards) add_safetensors(path_ / shard, &weight_map);
  for (auto const& [tensor, shard] : weight_map) {
    expects<file_error>(has(tensor) || tensor.ends_with("rotary_emb.inv_freq"),
                        "{}: weight_map promises {} in {}, which does not hold it", name, detail::printable(tensor),
                        shard);
  }
}

ATMANRL_INLINE void model_file::settle_head() {
  if (!config_.tied_head) return;
  auto const head = sources_.find("lm_head.weight"), embedding = sources_.find("model.embed_tokens.weight");
  if (head == sources_.end() || embedding == sources_.end()) return;
  auto const a = head->second.bytes, b = embedding->second.bytes;
  bool const same = head->second.type_name == embedding->second.type_name && a.size() == b.size() &&
                    std::memcmp(a.data(), b.data(), a.size()) == 0;
  if (same) {
    sources_.erase(head);
  } else {
    config_.tied_head = false;
  }
}

ATMANRL_INLINE void model_file::open_gguf(architectures const& known) {
  gguf_file const file(path_);
  if (auto const parts = file.find<std::uint64_t>("split.count").value_or(1); parts > 1)
    fail<file_error>(
        "{}: is part {} of {} of a model; `llama-gguf-split --merge` makes one file of them, which can be read",
        path_.string(), file.find<std::uint64_t>("split.no").value_or(0) + 1, parts);
  storage_.push_back(file.storage());
  config_ = parse_gguf_config(file, known);
  kind_ = find_architecture(known, config_.architecture);
  for (gguf_tensor const& t : file.tensors()) {
    if (t.name == "rope_freqs.weight") continue;
    auto const place = place_of_gguf_tensor(t.name, config_, kind_);
    expects<file_error>(place.has_value(), "{}: the tensor {} is not known in this architecture", path_.string(),
                        detail::printable(t.name));
    gguf_type const type = t.type;
    auto const* const info = find_gguf_type(std::uint32_t(type));
    source s{.shape = t.shape,
             .bytes = t.bytes,
             .type_name = info->name,
             .block = info->block_elements,
             .decode =
                 [type, shift = place->shift](std::byte const* from, index_t n, float* to) {
                   detail::dequantize(type, from, n, to);
                   for (index_t i = 0; shift != 0 && i < n; ++i) to[i] -= shift;
                 },
             .file = path_.string()};
    if (info->block_elements > 1 && t.shape.size() == 2 && place->shift == 0) s.blocks = type;
    // Some converters interleave the rotated pairs, others store rows for the half-split rotation.
    if (kind_.gguf_interleaves && place->rotated) s.interleaved_heads = t.shape.front() / config_.head_dim;
    add(place->hugging_face, std::move(s));
  }
}

ATMANRL_INLINE void model_file::open_llama2c() {
  llama2c_file const file(path_);
  storage_.push_back(file.storage());
  config_ = file.config();
  for (auto const& [name, t] : file.tensors()) {
    add(name, {.shape = t.shape,
               .bytes = t.bytes,
               .type_name = "F32",
               .interleaved_heads = t.rotated ? t.shape.front() / config_.head_dim : 0,
               .decode = [](std::byte const* from, index_t n, float* to) { detail::widen(dtype::f32, from, n, to); },
               .file = path_.string()});
  }
}

ATMANRL_INLINE void model_file::check_complete() const {
  std::set<std::string, std::less<>> known;
  for (tensor_shape const& t : model_tensors(config_, kind_)) {
    known.insert(t.name);
    auto const at = sources_.find(t.name);
    expects<file_error>(at != sources_.end(), "{}: the tensor {} is missing", path_.string(), t.name);
    expects<file_error>(at->second.shape == t.shape, "{}: {} has shape [{}] but the config asks for [{}]",
                        at->second.file, t.name, fmt::join(at->second.shape, ", "), fmt::join(t.shape, ", "));
  }
  // A tensor that nobody reads, a bias for instance, would silently make another model of it.
  for (auto const& [name, s] : sources_) {
    expects<file_error>(known.contains(name), "{}: the tensor {} does not belong to the config's architecture", s.file,
                        detail::printable(name));
  }
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
