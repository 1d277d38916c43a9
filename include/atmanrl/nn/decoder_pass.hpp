#pragma once

/// \file
/// What a decoder keeps of a forward pass.

#include <atmanrl/backend/uploaded.hpp>
#include <atmanrl/nn/decoder_layer.hpp>
#include <atmanrl/ops/log_prob.hpp>

#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// The state of a forward_pass that went through a decoder.
/// \tparam F  what products take
template <Backend B, class T, class F, class Block>
struct decoder_pass {
  bool inputs_only = false;  ///< what the latest forward pass kept
  bool adapted = false;      ///< whether it went through the model's adapters
  tensor<B, T, 2> x, dx;     ///< (rows, hidden) residual stream and, in the backward pass, its gradient
  std::vector<layer_activations<B, T, Block>> layers;  ///< one where no or only inputs are kept
  std::vector<tensor<B, T, 2>> inputs;                 ///< (rows, hidden) x_in of every layer, where only they are kept
  layer_workspace<B, T, F> workspace;

  // Head: rows gathered for the scored tokens.
  double temperature = 1;
  uploaded<B, int> scored_rows, targets;
  tensor<B, T, 2> gathered, dnormed, dgathered;  ///< (scored, hidden)
  tensor<B, F, 2> normed;                        ///< (scored, hidden)
  typename Block::norm::template saved<B, T> norm;
  tensor<B, T, 1> lse;              ///< (scored)
  uploaded<B, T> dlog_p, dentropy;  ///< (scored)
  log_prob_scratch<B, T, F> head_scratch;
  factor_copy<B, T, F> dlogits;  ///< (scored, vocabulary) a gradient of logits that a caller gave
  tensor<B, T, 2> dedit;         ///< (kv_heads, parameters) of an edit that the model trains
};

}  // namespace atmanrl::inline ATMANRL_ABI
