#pragma once
// Builds GGUF files byte by byte and remembers where the lengths, counts and offsets lie.
#include <atmanrl/io/gguf.hpp>

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl_test {

class gguf_bytes {
 public:
  struct place {
    std::size_t at, width;
  };

  gguf_bytes(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) : bytes("GGUF") {
    number(version);
    length(tensors);
    length(keys);
  }

  template <class T>
  void number(T value) {
    bytes.append(reinterpret_cast<char const*>(&value), sizeof value);
  }
  /// A number whose every lie must be found.
  void length(std::uint64_t value) {
    lengths.push_back({bytes.size(), 8});
    number(value);
  }
  void text(std::string_view value) {
    length(value.size());
    bytes += value;
  }
  void key(std::string_view name, std::uint32_t kind) {
    text(name);
    number(kind);
  }
  void u32(std::string_view name, std::uint32_t value) { key(name, 4), number(value); }
  void f32(std::string_view name, float value) { key(name, 6), number(value); }
  void string(std::string_view name, std::string_view value) { key(name, 8), text(value); }
  void array(std::string_view name, std::uint32_t kind, std::uint64_t count) {
    key(name, 9);
    number(kind);
    length(count);
  }
  /// Dimensions innermost first.
  void tensor(std::string_view name, std::vector<std::uint64_t> const& dims, std::uint32_t type, std::uint64_t offset) {
    text(name);
    number(std::uint32_t(dims.size()));
    for (auto const d : dims) length(d);
    number(type);
    length(offset);
  }
  void pad(std::size_t alignment = 32) { bytes.resize((bytes.size() + alignment - 1) / alignment * alignment); }

  std::string bytes;
  std::vector<place> lengths;
};

}  // namespace atmanrl_test
