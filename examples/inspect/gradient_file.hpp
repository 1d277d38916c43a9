#pragma once

/// \file
/// A model's gradient as safetensors under Hugging Face's names; a tied head is part of model.embed_tokens.weight.

#include <atmanrl/core/error.hpp>
#include <atmanrl/io/safetensors.hpp>
#include <atmanrl/nn/parameter_layout.hpp>

#include <cmath>
#include <filesystem>
#include <span>
#include <utility>
#include <vector>

namespace inspect {

/// \throws numeric_error naming the tensor whose gradient is not finite
inline void check_gradient(atmanrl::parameter_layout const& layout, std::span<float const> gradient) {
  for (atmanrl::parameter_info const& p : layout.all())
    for (float const x : gradient.subspan(std::size_t(p.offset), std::size_t(p.size())))
      atmanrl::expects<atmanrl::numeric_error>(std::isfinite(x), "the gradient of {} is not finite", p.name);
}

inline void write_gradient(std::filesystem::path const& path, atmanrl::parameter_layout const& layout,
                           std::span<float const> gradient) {
  std::vector<atmanrl::named_tensor> tensors;
  for (atmanrl::parameter_info const& p : layout.all()) {
    std::vector<atmanrl::index_t> shape{p.columns};
    if (!p.is_vector()) shape.insert(shape.begin(), p.rows);
    tensors.push_back({p.name, std::move(shape), gradient.subspan(std::size_t(p.offset), std::size_t(p.size()))});
  }
  atmanrl::save_safetensors(path, tensors);
}

}  // namespace inspect
