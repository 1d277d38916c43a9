#pragma once

/// \file
/// The safetensors format (github.com/huggingface/safetensors): a 64-bit header length, a JSON header, the tensors'
/// bytes. Everything that the header says is checked against the file's size in 64 bits before a tensor can be touched.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/dtype.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/json.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// One tensor inside a mapped file.
struct tensor_entry {
  std::string name;
  dtype type;
  std::vector<index_t> shape;
  std::span<std::byte const> bytes;  ///< lives as long as the safetensors_file; may be unaligned

  index_t size() const {
    index_t all = 1;
    for (index_t const e : shape) all *= e;
    return all;
  }
};

/// Elements [first, first + out.size()) of a tensor of floating type, as float.
inline void to_float(tensor_entry const& t, index_t first, std::span<float> out) {
  expects<shape_error>(first >= 0 && index_t(out.size()) <= t.size() - first, "elements {} to {} of {}, which has {}",
                       first, first + index_t(out.size()), t.name, t.size());
  detail::widen(t.type, t.bytes.data() + first * dtype_bytes(t.type), index_t(out.size()), out.data());
}

/// An open file of tensors.
class safetensors_file {
 public:
  /// \throws file_error that names the file and the field that is wrong
  explicit safetensors_file(std::filesystem::path const& path)
      : file_(std::make_shared<mapped_file const>(path)), name_(path.string()) {
    parse_header();
  }

  /// In the order of their bytes in the file.
  std::span<tensor_entry const> tensors() const& { return tensors_; }
  std::span<tensor_entry const> tensors() const&& =
      delete;  // they would outlive the file in a range-for over a temporary
  /// nullptr when there is no tensor of that name.
  tensor_entry const* find(std::string_view name) const {
    auto const at = by_name_.find(name);
    return at == by_name_.end() ? nullptr : &tensors_[at->second];
  }
  /// The texts under `__metadata__`.
  std::map<std::string, std::string> const& metadata() const { return metadata_; }
  std::filesystem::path const& path() const { return file_->path(); }
  /// Keeps the tensors' bytes alive without this object.
  std::shared_ptr<mapped_file const> const& storage() const { return file_; }

 private:
  static constexpr std::uint64_t max_header = 100'000'000;  // the reference implementation's bound

  void parse_header() {
    std::span<std::byte const> const all = file_->bytes();
    expects<file_error>(all.size() >= 8, "{}: has {} bytes, too short for safetensors' header length", name_,
                        all.size());
    auto const length = detail::load_unaligned<std::uint64_t>(all.data());
    expects<file_error>(length <= max_header && length <= all.size() - 8,
                        "{}: the header length is {} but the file has {} bytes", name_, length, all.size());
    expects<file_error>(length > 0 && char(all[8]) == '{', "{}: the header does not begin with {{", name_);
    std::string_view const text(reinterpret_cast<char const*>(all.data()) + 8, std::size_t(length));

    std::set<std::string> seen;
    json const header =
        detail::parse_json_with(text, name_ + " (header)", [&](int depth, json::parse_event_t event, json& value) {
          if (depth == 1 && event == json::parse_event_t::key) {
            auto const& key = value.get_ref<std::string const&>();
            expects<file_error>(seen.insert(key).second, "{}: the tensor {} is there twice", name_,
                                detail::printable(key));
          }
          return true;
        });
    expects<file_error>(header.is_object(), "{}: the header is not a JSON object", name_);

    std::span<std::byte const> const data = all.subspan(8 + std::size_t(length));
    for (auto const& [key, value] : header.items()) {
      if (key == "__metadata__") {
        parse_metadata(value);
      } else {
        tensors_.push_back(parse_tensor(key, value, data));
      }
    }
    std::sort(tensors_.begin(), tensors_.end(), [](tensor_entry const& a, tensor_entry const& b) {
      // An empty tensor lies before the one that begins at the same byte.
      return a.bytes.data() != b.bytes.data() ? a.bytes.data() < b.bytes.data() : a.bytes.size() < b.bytes.size();
    });
    // The format leaves no holes: each tensor begins where the one before ends, and the last one ends the file.
    std::size_t end = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      tensor_entry const& t = tensors_[i];
      auto const begin = std::size_t(t.bytes.data() - data.data());
      expects<file_error>(begin == end, "{}: {}: data_offsets begin at {} but the tensor before ends at {}", name_,
                          detail::printable(t.name), begin, end);
      end = begin + t.bytes.size();
      by_name_.emplace(t.name, i);
    }
    expects<file_error>(end == data.size(), "{}: the tensors end at byte {} of {} bytes of data", name_, end,
                        data.size());
  }

  void parse_metadata(json const& value) {
    expects<file_error>(value.is_object(), "{}: __metadata__ is not a JSON object", name_);
    for (auto const& [key, text] : value.items()) {
      expects<file_error>(text.is_string(), "{}: __metadata__.{} is not a string", name_, detail::printable(key));
      metadata_.emplace(key, text.template get<std::string>());
    }
  }

  tensor_entry parse_tensor(std::string const& key, json const& value, std::span<std::byte const> data) const {
    std::string const who = fmt::format("{}: {}", name_, detail::printable(key));
    expects<file_error>(value.is_object(), "{}: is not a JSON object", who);
    for (auto const& [field, unused] : value.items()) {
      expects<file_error>(field == "dtype" || field == "shape" || field == "data_offsets", "{}: unknown field {}", who,
                          detail::printable(field));
    }
    for (char const* const field : {"dtype", "shape", "data_offsets"}) {
      expects<file_error>(value.contains(field), "{}: {} is missing", who, field);
    }
    json const& type_name = value["dtype"];
    expects<file_error>(type_name.is_string(), "{}: dtype is not a string", who);
    auto const type = dtype_from_name(type_name.get_ref<std::string const&>());
    expects<file_error>(type.has_value(), "{}: dtype \"{}\" is not known", who,
                        detail::printable(type_name.get_ref<std::string const&>()));

    auto whole_numbers = [&](char const* field) {
      json const& list = value[field];
      bool good = list.is_array();
      for (json const& item : list) good = good && item.is_number_unsigned();
      expects<file_error>(good, "{}: {} is not a list of whole numbers", who, field);
      return list.get<std::vector<std::uint64_t>>();
    };
    auto const shape = whole_numbers("shape");
    auto const offsets = whole_numbers("data_offsets");
    expects<file_error>(shape.size() <= 8, "{}: shape has {} axes, more than 8", who, shape.size());
    expects<file_error>(offsets.size() == 2, "{}: data_offsets has {} numbers, not 2", who, offsets.size());
    expects<file_error>(offsets[0] <= offsets[1] && offsets[1] <= data.size(),
                        "{}: data_offsets [{}, {}] do not lie in the file's {} bytes of data", who, offsets[0],
                        offsets[1], data.size());
    // An extent of 0 must not hide that the others are too large together: the product of those that are not 0 has a
    // bound, so that every product of some of them fits 63 bits.
    std::uint64_t const width = std::uint64_t(dtype_bytes(*type));
    std::uint64_t bytes = width, bounded = width;
    for (std::uint64_t const extent : shape) {
      bool const overflow = __builtin_mul_overflow(bounded, std::max<std::uint64_t>(extent, 1), &bounded) ||
                            bounded > (std::uint64_t(1) << 62);
      expects<file_error>(!overflow, "{}: shape [{}] is too large", who, fmt::join(shape, ", "));
      bytes *= extent;
    }
    expects<file_error>(bytes == offsets[1] - offsets[0],
                        "{}: shape [{}] of {} needs {} bytes but data_offsets hold {}", who, fmt::join(shape, ", "),
                        dtype_name(*type), bytes, offsets[1] - offsets[0]);
    return {key, *type, {shape.begin(), shape.end()}, data.subspan(std::size_t(offsets[0]), std::size_t(bytes))};
  }

  std::shared_ptr<mapped_file const> file_;
  std::string name_;
  std::vector<tensor_entry> tensors_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
  std::map<std::string, std::string> metadata_;
};

/// Name, type and shape of a tensor that is going to be written.
struct tensor_declaration {
  std::string name;
  dtype type;
  std::vector<index_t> shape;
};

/// Writes tensors one after the other without holding them in memory. The file appears under its name on finish().
class safetensors_writer {
 public:
  /// \param tensors   in the order in which their values will come
  /// \param metadata  texts for `__metadata__`; transformers asks for {"format": "pt"}
  safetensors_writer(std::filesystem::path const& path, std::vector<tensor_declaration> tensors,
                     std::map<std::string, std::string> const& metadata = {{"format", "pt"}})
      : file_(path), tensors_(std::move(tensors)) {
    json header = json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::uint64_t at = 0;
    for (tensor_declaration const& t : tensors_) {
      expects<usage_error>(!header.contains(t.name) && t.name != "__metadata__", "the tensor {} is declared twice",
                           t.name);
      std::uint64_t bytes = std::uint64_t(dtype_bytes(t.type)), bounded = bytes;
      for (index_t const extent : t.shape) {
        bool const overflow =
            extent < 0 ||
            __builtin_mul_overflow(bounded, std::max(std::uint64_t(extent), std::uint64_t{1}), &bounded) ||
            bounded > (std::uint64_t(1) << 62);
        expects<usage_error>(!overflow, "the tensor {} has the impossible shape [{}]", t.name,
                             fmt::join(t.shape, ", "));
        bytes *= std::uint64_t(extent);
      }
      header[t.name] = {{"dtype", dtype_name(t.type)}, {"shape", t.shape}, {"data_offsets", {at, at + bytes}}};
      sizes_.push_back(bytes);
      at += bytes;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the tensors are aligned in the file
    std::uint64_t const length = text.size();
    file_.write(std::as_bytes(std::span(&length, 1)));
    file_.write(text);
  }

  /// The next values of the tensor whose turn it is, rounded to its type; a tensor may come in any number of pieces.
  /// \throws usage_error when it is another tensor's turn or there are too many values
  void append(std::string_view name, std::span<float const> values) {
    tensor_declaration const& t = turn(name, values.size() * std::size_t(dtype_bytes(open_tensor(name).type)));
    index_t const piece = index_t(1) << 18;
    for (index_t i = 0; i < index_t(values.size()); i += piece) {
      index_t const n = std::min(piece, index_t(values.size()) - i);
      buffer_.resize(std::size_t(n * dtype_bytes(t.type)));
      detail::narrow(t.type, values.data() + i, n, buffer_.data());
      file_.write(buffer_);
    }
  }

  /// The next bytes of the tensor whose turn it is, as they are to lie in the file.
  void append_bytes(std::string_view name, std::span<std::byte const> bytes) {
    turn(name, bytes.size());
    file_.write(bytes);
  }

  /// Flushes and gives the file its name.
  /// \throws usage_error when values are missing
  void finish() {
    skip_complete();
    if (current_ < tensors_.size()) {
      fail<usage_error>("{}: the tensor {} has {} of {} bytes", file_.path().string(), tensors_[current_].name,
                        written_, sizes_[current_]);
    }
    file_.commit();
  }

 private:
  void skip_complete() {
    while (current_ < tensors_.size() && written_ == sizes_[current_]) {
      ++current_;
      written_ = 0;
    }
  }
  tensor_declaration const& open_tensor(std::string_view name) {
    // An empty piece of an empty or complete tensor is nobody's turn and harmless.
    skip_complete();
    expects<usage_error>(current_ < tensors_.size() && tensors_[current_].name == name,
                         "{}: values for {} come where {} is expected", file_.path().string(), name,
                         current_ < tensors_.size() ? tensors_[current_].name : "the end");
    return tensors_[current_];
  }
  tensor_declaration const& turn(std::string_view name, std::uint64_t bytes) {
    tensor_declaration const& t = open_tensor(name);
    expects<usage_error>(bytes <= sizes_[current_] - written_, "{}: too many values for {}", file_.path().string(),
                         name);
    written_ += bytes;
    return t;
  }

  atomic_file file_;
  std::vector<tensor_declaration> tensors_;
  std::vector<std::uint64_t> sizes_;
  std::vector<std::byte> buffer_;
  std::size_t current_ = 0;
  std::uint64_t written_ = 0;
};

/// A tensor in memory, row-major.
struct named_tensor {
  std::string name;
  std::vector<index_t> shape;
  std::span<float const> values;
};

/// Writes tensors in memory to a file, rounded to `type`.
[[gnu::cold]] inline void save_safetensors(std::filesystem::path const& path, std::span<named_tensor const> tensors,
                                           dtype type = dtype::f32,
                                           std::map<std::string, std::string> const& metadata = {{"format", "pt"}}) {
  std::vector<tensor_declaration> declarations;
  for (named_tensor const& t : tensors) {
    index_t size = 1;
    for (index_t const e : t.shape) size *= e;
    expects<shape_error>(size == index_t(t.values.size()), "{} has {} values but shape [{}]", t.name, t.values.size(),
                         fmt::join(t.shape, ", "));
    declarations.push_back({t.name, type, t.shape});
  }
  safetensors_writer writer(path, std::move(declarations), metadata);
  for (named_tensor const& t : tensors) {
    if (!t.values.empty()) writer.append(t.name, t.values);
  }
  writer.finish();
}

}  // namespace atmanrl::inline ATMANRL_ABI
