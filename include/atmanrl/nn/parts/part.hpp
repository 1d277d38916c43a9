#pragma once

/// \file
/// What the parts of a block are handed. A part is a type without state: it names its parameters once, says what it
/// saves of a forward pass, and has a forward/backward pair of static functions (docs/extending.md#blocks).

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/io/architecture.hpp>
#include <atmanrl/nn/linear.hpp>

#include <span>

namespace atmanrl::inline ATMANRL_ABI::nn {

/// A call of one part of one layer.
template <Backend B, class T>
struct part_call {
  pass_context<B, T> const& pass;
  model_config const& config;
  index_t layer;
  view_on<B, int const, 1> positions;           ///< (rows)
  view_on<B, real_t<T> const, 2> cosine, sine;  ///< (positions, head_dim / 2) rotation tables
  std::span<tensor<B, T, 1> const> gains;       ///< this part's, in the order in which it names them
  std::span<index_t const> gain_offsets;        ///< where their gradients lie in the flat array
  tensor<B, T, 2>& scratch;                     ///< shared by all parts: holds nothing between two calls

  B& backend() const { return pass.backend; }
  view_on<B, T const, 1> gain(std::size_t i) const { return gains[i].cview(); }
  /// Where the gradient of a gain is added; empty when it is not wanted.
  view_on<B, T, 1> gain_gradient(std::size_t i) const {
    if (pass.gradient.empty()) return {};
    return {pass.gradient.at(gain_offsets[i]), {gains[i].size()}};
  }
};

/// y += x, element by element.
template <Backend B, class T>
void add_to(B& backend, view_on<B, T const, 2> x, view_on<B, T, 2> y) {
  add_bias<B, T>(backend, {x.data(), {x.size()}}, view_on<B, T, 2>(y.data(), {1, y.size()}));
}

/// Hugging Face's and GGUF's name of a part's parameter inside a layer.
struct parameter_names {
  char const* hugging_face = nullptr;
  char const* gguf = "";

  explicit constexpr operator bool() const { return hugging_face != nullptr; }
};

}  // namespace atmanrl::inline ATMANRL_ABI::nn
