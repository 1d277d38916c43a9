#pragma once

/// \file
/// All parameters of a model, or of its adapters, in one flat array: gradients, moments and master weights share the
/// layout, an all-reduce or a checkpoint is one copy. Names and row order are Hugging Face's.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/architecture.hpp>
#include <atmanrl/io/lora_config.hpp>
#include <atmanrl/io/model_config.hpp>

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// One named parameter; vectors have one row.
struct parameter_info {
  std::string name;  ///< Hugging Face name
  parameter_role role;
  index_t layer;  ///< -1 outside the layers
  int number;     ///< its place in the list of its layer's parameters; 0 outside the layers
  index_t rows, columns;
  index_t offset;  ///< first element in the flat array

  index_t size() const { return rows * columns; }
  bool is_vector() const {
    return role == parameter_role::gain || role == parameter_role::bias || role == parameter_role::edit;
  }
};

/// Where each parameter lies. Matrices of one linear layer stand together where its block names them so, and a fused
/// weight's gradient is then one contiguous matrix.
class parameter_layout {
 public:
  parameter_layout() = default;
  parameter_layout(model_config const& c, architecture const& a);
  /// The parameters of a model's adapters alone.
  parameter_layout(model_config const& c, architecture const& a, lora_config const& l);

  std::span<parameter_info const> all() const { return parameters_; }
  index_t size() const { return size_; }

  /// The parameter of this Hugging Face name, or null.
  parameter_info const* find(std::string_view name) const {
    for (parameter_info const& p : parameters_)
      if (p.name == name) return &p;
    return nullptr;
  }
  /// Offsets of a layer's parameters, in the order of its list.
  std::vector<index_t> offsets_of(index_t layer) const {
    std::vector<index_t> offsets;
    for (parameter_info const& p : parameters_)
      if (p.layer == layer) offsets.push_back(p.offset);
    return offsets;
  }

  void add(std::string name, parameter_role role, index_t layer, int number, index_t rows, index_t columns) {
    parameters_.push_back({std::move(name), role, layer, number, rows, columns, size_});
    size_ += rows * columns;
  }

 private:
  std::vector<parameter_info> parameters_;
  index_t size_ = 0;
};

#if ATMANRL_BODIES

ATMANRL_INLINE parameter_layout::parameter_layout(model_config const& c, architecture const& a) {
  add(std::string(embedding_name), parameter_role::embedding, -1, 0, c.vocab, c.hidden);
  for (index_t l = 0; l < c.layers; ++l) {
    int number = 0;
    for (parameter_spec const& p : a.layer_parameters(c, l))
      add(layer_parameter_name(l, p), p.role, l, number++, p.rows, p.columns);
  }
  add(std::string(final_gain_name), parameter_role::gain, -1, 0, 1, c.hidden);
  if (!c.tied_head) add(std::string(head_name), parameter_role::head, -1, 0, c.vocab, c.hidden);
}

ATMANRL_INLINE parameter_layout::parameter_layout(model_config const& c, architecture const& a, lora_config const& l) {
  for (lora_tensor& t : lora_tensors(c, a, l))
    add(std::move(t.name), t.is_b ? parameter_role::lora_b : parameter_role::lora_a, t.layer, 0, t.rows, t.columns);
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
