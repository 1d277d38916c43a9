#pragma once

/// \file
/// Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): rank, alpha, the matrices that get one, and the names and
/// shapes of their tensors, which are those of the PEFT library. An adapted matrix acts as W + (alpha / rank) B A.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
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

namespace atmanrl {

/// A matrix of every layer that can have an adapter.
enum class lora_target { q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj };

inline constexpr std::array<std::string_view, 7> lora_target_names{"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                                   "gate_proj", "up_proj", "down_proj"};

inline std::vector<lora_target> all_lora_targets() {
  using enum lora_target;
  return {q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj};
}

struct lora_config {
  index_t rank = 8;
  double alpha = 16;
  std::vector<lora_target> targets = all_lora_targets();  ///< each once, ascending
  double dropout = 0;  ///< only carried along: training here has none and refuses an adapter that asks for it

  double scaling() const { return alpha / double(rank); }
  bool has(lora_target t) const { return std::find(targets.begin(), targets.end(), t) != targets.end(); }

  friend bool operator==(lora_config const&, lora_config const&) = default;
};

/// \returns nothing for a name that is none
inline std::optional<lora_target> lora_target_of(std::string_view name) {
  auto const at = std::find(lora_target_names.begin(), lora_target_names.end(), name);
  if (at == lora_target_names.end()) return std::nullopt;
  return lora_target(at - lora_target_names.begin());
}

/// \throws usage_error that names `where` and the field
void validate(lora_config const& l, std::string_view where);

/// "q_proj,v_proj", or "all".
std::vector<lora_target> parse_lora_targets(std::string_view text, std::string_view where);

std::string lora_targets_text(std::vector<lora_target> const& targets);

/// Extents of an adapted matrix.
struct lora_matrix {
  index_t outputs, inputs;
};

lora_matrix lora_matrix_of(model_config const& c, lora_target t);

/// One factor of one adapter.
struct lora_tensor {
  std::string name;  ///< as in PEFT's adapter_model.safetensors
  index_t layer;
  lora_target target;
  bool is_b;  ///< A (rank, inputs), B (outputs, rank)
  index_t rows, columns;
};

/// All factors, layer by layer. Matrices that share their input stand together, the A of all of them before the B, so
/// that the A's gradients are one contiguous matrix.
std::vector<lora_tensor> lora_tensors(model_config const& c, lora_config const& l);

#if ATMANRL_BODIES

ATMANRL_INLINE void validate(lora_config const& l, std::string_view where) {
  expects<usage_error>(l.rank >= 1 && l.rank <= 65536, "{}: the rank is {} but must lie between 1 and 65536", where,
                       l.rank);
  expects<usage_error>(std::isfinite(l.alpha) && l.alpha > 0, "{}: alpha is {} but must be above 0", where, l.alpha);
  expects<usage_error>(!l.targets.empty(), "{}: no matrix is to be adapted", where);
  bool const ascending =
      std::adjacent_find(l.targets.begin(), l.targets.end(), std::greater_equal<>()) == l.targets.end();
  expects<usage_error>(ascending, "{}: the targets must be ascending and each be there once", where);
  expects<usage_error>(l.dropout >= 0 && l.dropout < 1, "{}: the dropout is {} but must lie in [0, 1)", where,
                       l.dropout);
}

ATMANRL_INLINE std::vector<lora_target> parse_lora_targets(std::string_view text, std::string_view where) {
  if (text == "all") return all_lora_targets();
  std::vector<lora_target> targets;
  for (std::size_t first = 0; first <= text.size();) {
    std::size_t const end = std::min(text.find(',', first), text.size());
    std::string_view const name = text.substr(first, end - first);
    auto const target = lora_target_of(name);
    expects<usage_error>(target.has_value(), "{}: \"{}\" is no matrix that can be adapted ({} are, or all)", where,
                         name, fmt::join(lora_target_names, ", "));
    bool const fresh = std::find(targets.begin(), targets.end(), *target) == targets.end();
    expects<usage_error>(fresh, "{}: {} is named twice", where, name);
    targets.push_back(*target);
    first = end + 1;
  }
  std::sort(targets.begin(), targets.end());
  return targets;
}

ATMANRL_INLINE std::string lora_targets_text(std::vector<lora_target> const& targets) {
  if (targets == all_lora_targets()) return "all";
  std::string text;
  for (lora_target const t : targets)
    text += (text.empty() ? "" : ",") + std::string(lora_target_names[std::size_t(t)]);
  return text;
}

ATMANRL_INLINE std::vector<lora_tensor> lora_tensors(model_config const& c, lora_config const& l) {
  using enum lora_target;
  static constexpr std::array groups{std::pair{q_proj, v_proj}, std::pair{o_proj, o_proj},
                                     std::pair{gate_proj, up_proj}, std::pair{down_proj, down_proj}};
  std::vector<lora_tensor> all;
  for (index_t layer = 0; layer < c.layers; ++layer) {
    for (auto const& [first, last] : groups) {
      for (bool const is_b : {false, true}) {
        for (lora_target const t : l.targets) {
          if (t < first || t > last) continue;
          auto const [outputs, inputs] = lora_matrix_of(c, t);
          all.push_back(
              {fmt::format("base_model.model.model.layers.{}.{}.{}.lora_{}.weight", layer,
                           t <= o_proj ? "self_attn" : "mlp", lora_target_names[std::size_t(t)], is_b ? 'B' : 'A'),
               layer, t, is_b, is_b ? outputs : l.rank, is_b ? l.rank : inputs});
        }
      }
    }
  }
  return all;
}

ATMANRL_INLINE lora_matrix lora_matrix_of(model_config const& c, lora_target t) {
  using enum lora_target;
  switch (t) {
    case q_proj:
      return {c.heads * c.head_dim, c.hidden};
    case k_proj:
    case v_proj:
      return {c.kv_heads * c.head_dim, c.hidden};
    case o_proj:
      return {c.hidden, c.heads * c.head_dim};
    case gate_proj:
    case up_proj:
      return {c.ffn, c.hidden};
    case down_proj:
      return {c.hidden, c.ffn};
  }
  fail("target {} has no matrix", int(t));
}

#endif

}  // namespace atmanrl
