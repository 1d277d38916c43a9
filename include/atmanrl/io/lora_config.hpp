#pragma once

/// \file
/// Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): rank, alpha, the matrices that get one, and the names and
/// shapes of their tensors, which are those of the PEFT library. An adapted matrix acts as W + (alpha / rank) B A.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/architecture.hpp>
#include <atmanrl/io/dtype.hpp>
#include <atmanrl/io/model_config.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A matrix of a layer that can have an adapter; all matrices of a block can.
struct lora_matrix {
  std::string path;  ///< its name inside the layer without ".weight": "self_attn.q_proj"
  linear_slot linear;
  index_t first;  ///< first of its outputs in the linear layer
  index_t outputs, inputs;
  int number;  ///< among the layer's matrices, which random numbers depend on

  /// What options and PEFT call it: "q_proj".
  std::string_view name() const { return std::string_view(path).substr(path.rfind('.') + 1); }
};

/// The matrices of one layer, in the order of the forward pass.
std::vector<lora_matrix> lora_matrices(model_config const& c, architecture const& a, index_t layer = 0);

struct lora_config {
  index_t rank = 8;
  double alpha = 16;
  std::vector<std::string> targets{};  ///< names of matrices, each once; empty: all that the model's block has
  double dropout = 0;  ///< only carried along: training here has none and refuses an adapter that asks for it

  double scaling() const { return alpha / double(rank); }
  bool has(std::string_view name) const {
    return targets.empty() || std::find(targets.begin(), targets.end(), name) != targets.end();
  }

  friend bool operator==(lora_config const&, lora_config const&) = default;
};

/// \throws usage_error that names `where` and the field
void validate(lora_config const& l, std::string_view where);

/// The same configuration with its targets in the order of the block's matrices, and none where all are meant.
/// \throws usage_error that names `where` and a target that the block does not have
lora_config resolved(lora_config l, std::vector<lora_matrix> const& matrices, std::string_view where);

/// "q_proj,v_proj", or "all".
std::vector<std::string> parse_lora_targets(std::string_view text, std::string_view where);

inline std::string lora_targets_text(std::vector<std::string> const& targets) {
  return targets.empty() ? "all" : fmt::format("{}", fmt::join(targets, ","));
}

/// One factor of one adapter.
struct lora_tensor {
  std::string name;  ///< as in PEFT's adapter_model.safetensors
  index_t layer;
  bool is_b;  ///< A (rank, inputs), B (outputs, rank)
  index_t rows, columns;
};

/// All factors, layer by layer. Matrices that share their input stand together, the A of all of them before the B, so
/// that the A's gradients are one contiguous matrix.
std::vector<lora_tensor> lora_tensors(model_config const& c, architecture const& a, lora_config const& l);

#if ATMANRL_BODIES

ATMANRL_INLINE std::vector<lora_matrix> lora_matrices(model_config const& c, architecture const& a, index_t layer) {
  std::vector<lora_matrix> all;
  for (parameter_spec const& p : a.layer_parameters(c, layer)) {
    if (p.role != parameter_role::matrix) continue;
    std::string path = p.hugging_face;
    if (path.ends_with(".weight")) path.resize(path.size() - 7);
    all.push_back({std::move(path), p.linear, p.first, p.rows, p.columns, int(all.size())});
  }
  return all;
}

ATMANRL_INLINE void validate(lora_config const& l, std::string_view where) {
  expects<usage_error>(l.rank >= 1 && l.rank <= 65536, "{}: the rank is {} but must lie between 1 and 65536", where,
                       l.rank);
  expects<usage_error>(std::isfinite(l.alpha) && l.alpha > 0, "{}: alpha is {} but must be above 0", where, l.alpha);
  for (std::string const& t : l.targets)
    expects<usage_error>(std::count(l.targets.begin(), l.targets.end(), t) == 1, "{}: {} is named twice", where,
                         detail::printable(t));
  expects<usage_error>(l.dropout >= 0 && l.dropout < 1, "{}: the dropout is {} but must lie in [0, 1)", where,
                       l.dropout);
}

ATMANRL_INLINE lora_config resolved(lora_config l, std::vector<lora_matrix> const& matrices, std::string_view where) {
  validate(l, where);
  std::vector<std::string> names, ordered;
  for (lora_matrix const& m : matrices) names.emplace_back(m.name());
  for (std::string const& t : l.targets)
    expects<usage_error>(std::find(names.begin(), names.end(), t) != names.end(),
                         "{}: \"{}\" is no matrix that can be adapted ({} are, or all)", where, detail::printable(t),
                         fmt::join(names, ", "));
  for (std::string const& name : names)
    if (l.has(name)) ordered.push_back(name);
  l.targets = ordered == names ? std::vector<std::string>{} : ordered;
  return l;
}

ATMANRL_INLINE std::vector<std::string> parse_lora_targets(std::string_view text, std::string_view where) {
  if (text == "all") return {};
  std::vector<std::string> targets;
  for (std::size_t first = 0; first <= text.size();) {
    std::size_t const end = std::min(text.find(',', first), text.size());
    targets.emplace_back(text.substr(first, end - first));
    expects<usage_error>(!targets.back().empty(), "{}: a name is empty in \"{}\"", where, text);
    first = end + 1;
  }
  std::sort(targets.begin(), targets.end());
  lora_config l;
  l.targets = targets;
  validate(l, where);
  return targets;
}

ATMANRL_INLINE std::vector<lora_tensor> lora_tensors(model_config const& c, architecture const& a,
                                                     lora_config const& l) {
  std::vector<lora_tensor> all;
  for (index_t layer = 0; layer < c.layers; ++layer) {
    auto const matrices = lora_matrices(c, a, layer);
    for (int slot = 0; slot < linear_slots; ++slot) {
      for (bool const is_b : {false, true}) {
        for (lora_matrix const& m : matrices) {
          if (int(m.linear) != slot || !l.has(m.name())) continue;
          all.push_back(
              {fmt::format("base_model.model.model.layers.{}.{}.lora_{}.weight", layer, m.path, is_b ? 'B' : 'A'),
               layer, is_b, is_b ? m.outputs : l.rank, is_b ? l.rank : m.inputs});
        }
      }
    }
  }
  return all;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
