#pragma once
// Reading everything of a safetensors file, for the formats that consist of one.
#include <atmanrl/io/safetensors.hpp>

#include "fuzz/harness.hpp"

namespace atmanrl_fuzz {

inline std::string small_safetensors(std::string_view header, std::size_t data_bytes) {
  std::uint64_t const length = header.size();
  std::string out(reinterpret_cast<char const*>(&length), 8);
  return out.append(header).append(data_bytes, '?');
}

/// Every tensor lies inside of the file and has the bytes that its shape asks for.
inline void read_everything(std::filesystem::path const& path) {
  using namespace atmanrl;
  safetensors_file const file(path);
  auto const all = file.storage()->bytes();
  std::vector<float> values;
  for (tensor_entry const& t : file.tensors()) {
    promise(t.size() >= 0 && std::uint64_t(t.size()) * std::uint64_t(dtype_bytes(t.type)) == t.bytes.size(),
            "a tensor has the bytes of its shape");
    promise(
        t.bytes.empty() || (t.bytes.data() >= all.data() && t.bytes.data() + t.bytes.size() <= all.data() + all.size()),
        "a tensor lies inside of the file");
    promise(file.find(t.name) == &t, "a tensor is found by its name");
    if (!is_floating(t.type)) continue;
    values.resize(std::size_t(t.size()));
    to_float(t, 0, values);
    if (t.size() > 1) to_float(t, t.size() / 2, std::span(values).first(1));
  }
}

}  // namespace atmanrl_fuzz
