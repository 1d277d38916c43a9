#pragma once

/// \file
/// The GGUF format, versions 2 and 3 (docs/gguf.md of github.com/ggml-org/ggml): typed metadata and tensors in one
/// file. Every length is checked against what is left of the file, in 64 bits, before memory is touched or allocated.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/dtype.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/gguf_dequantize.hpp>
#include <atmanrl/io/gguf_value.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A tensor inside a mapped GGUF file.
struct gguf_tensor {
  std::string name;
  gguf_type type;
  std::vector<index_t> shape;  ///< outermost first, as Hugging Face has it (the file stores it innermost first)
  std::span<std::byte const> bytes;
};

/// An open GGUF file.
class gguf_file {
 public:
  /// \throws file_error that names the file and the field that is wrong
  explicit gguf_file(std::filesystem::path const& path)
      : file_(std::make_shared<mapped_file const>(path)), name_(path.string()) {
    parse();
  }

  std::span<gguf_tensor const> tensors() const& { return tensors_; }
  std::span<gguf_tensor const> tensors() const&& =
      delete;  // they would outlive the file in a range-for over a temporary
  /// nullptr when there is no tensor of that name.
  gguf_tensor const* find_tensor(std::string_view name) const {
    auto const at = by_name_.find(name);
    return at == by_name_.end() ? nullptr : &tensors_[at->second];
  }

  bool has(std::string_view key) const { return metadata_.contains(key); }
  /// All keys in ascending order.
  std::vector<std::string> keys() const {
    std::vector<std::string> all;
    for (auto const& [key, value] : metadata_) all.push_back(key);
    return all;
  }

  /// A metadata value; nothing when the key is missing. `T` is bool, an integer, float, double, std::string,
  /// std::string_view (valid while this file is open) or a std::vector of these.
  /// \throws file_error when the value is of another kind or does not fit into `T`
  template <class T>
  std::optional<T> find(std::string_view key) const {
    auto const at = metadata_.find(key);
    if (at == metadata_.end()) return std::nullopt;
    return detail::gguf_conversion{name_, key}.to<T>(at->second);
  }
  /// As find, but a missing key is a file_error.
  template <class T>
  T get(std::string_view key) const {
    auto value = find<T>(key);
    expects<file_error>(value.has_value(), "{}: the metadata key {} is missing", name_, key);
    return std::move(*value);
  }

  std::filesystem::path const& path() const { return file_->path(); }
  /// Keeps the tensors' bytes alive without this object.
  std::shared_ptr<mapped_file const> const& storage() const { return file_; }

 private:
  using kind = detail::gguf_kind;
  using value = detail::gguf_value;

  std::span<std::byte const> all() const { return file_->bytes(); }
  std::uint64_t left() const { return all().size() - at_; }

  template <class T>
  T take(std::string_view field) {
    expects<file_error>(sizeof(T) <= left(), "{}: the file ends in {} at byte {}", name_, field, at_);
    T const v = detail::load_unaligned<T>(all().data() + at_);
    at_ += sizeof(T);
    return v;
  }
  std::string_view take_string(std::string_view field) {
    auto const length = take<std::uint64_t>(field);
    expects<file_error>(length <= left(), "{}: {} is a text of {} bytes but {} are left of the file", name_, field,
                        length, left());
    std::string_view const text(reinterpret_cast<char const*>(all().data()) + at_, std::size_t(length));
    at_ += length;
    return text;
  }
  kind take_kind(std::string_view field) {
    auto const number = take<std::uint32_t>(field);
    expects<file_error>(number <= std::uint32_t(kind::f64), "{}: {} has the unknown value type {}", name_, field,
                        number);
    return kind(number);
  }

  value take_value(kind k, std::string_view field, int depth) {
    switch (k) {
      case kind::u8:
        return {std::uint64_t(take<std::uint8_t>(field))};
      case kind::u16:
        return {std::uint64_t(take<std::uint16_t>(field))};
      case kind::u32:
        return {std::uint64_t(take<std::uint32_t>(field))};
      case kind::u64:
        return {take<std::uint64_t>(field)};
      case kind::i8:
        return {std::int64_t(take<std::int8_t>(field))};
      case kind::i16:
        return {std::int64_t(take<std::int16_t>(field))};
      case kind::i32:
        return {std::int64_t(take<std::int32_t>(field))};
      case kind::i64:
        return {take<std::int64_t>(field)};
      case kind::f32:
        return {double(take<float>(field))};
      case kind::f64:
        return {take<double>(field)};
      case kind::boolean:
        return {take<std::uint8_t>(field) != 0};
      case kind::string:
        return {take_string(field)};
      case kind::array:
        return take_array(field, depth);
    }
    fail<file_error>("{}: {} has an unknown value type", name_, field);
  }

  value take_array(std::string_view field, int depth) {
    expects<file_error>(depth < 4, "{}: {} holds arrays nested deeper than 4", name_, field);
    kind const k = take_kind(field);
    auto const count = take<std::uint64_t>(field);
    expects<file_error>(count <= left() / detail::gguf_kind_bytes(k),
                        "{}: {} is an array of {} values but {} bytes are left of the file", name_, field, count,
                        left());
    if (k == kind::string) {
      detail::gguf_strings items;
      items.reserve(std::size_t(count));
      for (std::uint64_t i = 0; i < count; ++i) items.push_back(take_string(field));
      return {std::move(items)};
    }
    if (k == kind::array) {
      detail::gguf_nested nested;
      for (std::uint64_t i = 0; i < count; ++i) nested.items.push_back(take_array(field, depth + 1));
      return {std::move(nested)};
    }
    std::size_t const bytes = std::size_t(count * detail::gguf_kind_bytes(k));
    detail::gguf_numbers const numbers{k, all().subspan(std::size_t(at_), bytes)};
    at_ += bytes;
    return {numbers};
  }

  void parse() {
    expects<file_error>(all().size() >= 4 && std::memcmp(all().data(), "GGUF", 4) == 0, "{}: does not begin with GGUF",
                        name_);
    at_ = 4;
    auto const version = take<std::uint32_t>("version");
    expects<file_error>(version == 2 || version == 3, "{}: GGUF version {} is not supported (2 and 3 are)", name_,
                        version);
    auto const tensor_count = take<std::uint64_t>("tensor_count");
    auto const metadata_count = take<std::uint64_t>("metadata_kv_count");
    expects<file_error>(metadata_count <= left() / 13, "{}: metadata_kv_count is {} but {} bytes are left of the file",
                        name_, metadata_count, left());
    for (std::uint64_t i = 0; i < metadata_count; ++i) {
      std::string const key(take_string("a metadata key"));
      std::string const field = detail::printable(key);
      value v = take_value(take_kind(field), field, 0);
      expects<file_error>(metadata_.emplace(key, std::move(v)).second, "{}: the metadata key {} is there twice", name_,
                          field);
    }
    expects<file_error>(tensor_count <= left() / 32, "{}: tensor_count is {} but {} bytes are left of the file", name_,
                        tensor_count, left());
    parse_tensors(tensor_count);
  }

  void parse_tensors(std::uint64_t count) {
    auto const alignment = find<std::uint32_t>("general.alignment").value_or(32);
    expects<file_error>(alignment > 0 && (alignment & (alignment - 1)) == 0 && alignment <= (1u << 24),
                        "{}: general.alignment is {} but must be a power of two", name_, alignment);
    std::vector<std::uint64_t> offsets, sizes;
    for (std::uint64_t i = 0; i < count; ++i) {
      gguf_tensor t;
      t.name = take_string("a tensor's name");
      std::string const field = detail::printable(t.name);
      auto const axes = take<std::uint32_t>(field);
      expects<file_error>(axes >= 1 && axes <= 4, "{}: {} has {} dimensions, not 1 to 4", name_, field, axes);
      std::uint64_t elements = 1;
      for (std::uint32_t a = 0; a < axes; ++a) {
        auto const extent = take<std::uint64_t>(field);
        bool const overflow = __builtin_mul_overflow(elements, extent, &elements);
        expects<file_error>(extent > 0 && !overflow && elements <= (std::uint64_t(1) << 56),
                            "{}: dimension {} of {} is {}, which cannot be", name_, a, field, extent);
        t.shape.insert(t.shape.begin(), index_t(extent));
      }
      auto const number = take<std::uint32_t>(field);
      gguf_type_info const* const info = find_gguf_type(number);
      expects<file_error>(info, "{}: {} has the tensor type {}, which is not supported", name_, field, number);
      t.type = info->type;
      expects<file_error>(t.shape.back() % info->block_elements == 0,
                          "{}: {} has rows of {} elements, not a multiple of {}'s block of {}", name_, field,
                          t.shape.back(), info->name, info->block_elements);
      offsets.push_back(take<std::uint64_t>(field));
      sizes.push_back(elements / std::uint64_t(info->block_elements) * std::uint64_t(info->block_bytes));
      expects<file_error>(by_name_.emplace(t.name, tensors_.size()).second, "{}: the tensor {} is there twice", name_,
                          field);
      tensors_.push_back(std::move(t));
    }
    std::uint64_t const begin = (at_ + alignment - 1) / alignment * alignment;
    expects<file_error>(tensors_.empty() || begin <= all().size(), "{}: the file ends before its tensors", name_);
    auto const data = all().subspan(std::size_t(std::min<std::uint64_t>(begin, all().size())));

    std::vector<std::size_t> order(tensors_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return offsets[a] < offsets[b]; });
    std::uint64_t end = 0;
    for (std::size_t const i : order) {
      std::string const field = detail::printable(tensors_[i].name);
      expects<file_error>(offsets[i] % alignment == 0, "{}: the offset {} of {} is not a multiple of {}", name_,
                          offsets[i], field, alignment);
      expects<file_error>(offsets[i] <= data.size() && sizes[i] <= data.size() - offsets[i],
                          "{}: {} has {} bytes at offset {} but the file has {} bytes of tensors", name_, field,
                          sizes[i], offsets[i], data.size());
      expects<file_error>(offsets[i] >= end, "{}: {} at offset {} overlaps the tensor before, which ends at {}", name_,
                          field, offsets[i], end);
      expects<file_error>(offsets[i] - end < alignment, "{}: there is a hole of {} bytes before {}", name_,
                          offsets[i] - end, field);
      tensors_[i].bytes = data.subspan(std::size_t(offsets[i]), std::size_t(sizes[i]));
      end = offsets[i] + sizes[i];
    }
    expects<file_error>(data.size() - end < alignment, "{}: {} bytes follow the last tensor", name_, data.size() - end);
  }

  std::shared_ptr<mapped_file const> file_;
  std::string name_;
  std::uint64_t at_ = 0;
  std::map<std::string, value, std::less<>> metadata_;
  std::vector<gguf_tensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
