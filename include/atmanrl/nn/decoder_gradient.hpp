#pragma once

/// \file
/// Where a decoder's backward pass adds the gradients of its own parameters: in one flat array, or stretch by stretch
/// where a receiver says.

#include <atmanrl/io/hugging_face_config.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/nn/gradient_stretches.hpp>
#include <atmanrl/nn/model_calls.hpp>
#include <atmanrl/nn/parameter_layout.hpp>

#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Of one backward pass. Stretches stand in the order of gradient_stretches_of: the norm and the output layer, the
/// layers from the last one down, the model's edit where it has parameters, the embedding.
template <Backend B, class T>
class decoder_gradient {
 public:
  /// None is wanted.
  decoder_gradient() = default;
  /// \param layout     the model's own parameters
  /// \param stretches  gradient_stretches_of(layout); both outlive the pass
  decoder_gradient(model_config const& c, parameter_layout const& layout, std::vector<comm::range> const& stretches,
                   pass_gradients<B, T> const& wanted)
      : layout_(&layout),
        stretches_(&stretches),
        layers_(std::size_t(c.layers)),
        flat_(wanted.parameters),
        receiver_(wanted.stretches),
        tied_head_(c.tied_head) {
    if (tied_head_) embedding_ = open(stretches.back());
    top_ = open(stretches.front());
  }

  bool wanted() const { return receiver_ || !flat_.empty(); }

  /// Of the norm before the output layer.
  gradient_window<B, T> top() const { return top_; }
  /// (vocabulary, hidden) of the output layer; empty where it is not wanted.
  view_on<B, T, 2> head() const {
    if (!wanted()) return {};
    return tied_head_ ? matrix(embedding_, embedding_name) : matrix(top_, head_name);
  }
  void complete_top() const { complete(0); }

  gradient_window<B, T> layer(std::size_t l) const { return open(stretch(layers_ - l)); }
  void complete_layer(std::size_t l) const { complete(layers_ - l); }

  /// (1, parameters) of the model's edit.
  view_on<B, T, 2> edit() const { return matrix(open(stretch(stretches_->size() - 2)), attention_edit_name); }
  void complete_edit() const { complete(stretches_->size() - 2); }

  /// (vocabulary, hidden)
  view_on<B, T, 2> embedding() const {
    return matrix(tied_head_ ? embedding_ : open(stretches_->back()), embedding_name);
  }
  void complete_embedding() const { complete(stretches_->size() - 1); }

 private:
  comm::range stretch(std::size_t i) const { return (*stretches_)[i]; }
  gradient_window<B, T> open(comm::range stretch) const {
    if (!receiver_) return {flat_};
    return {receiver_->room(stretch), index_t(stretch.first)};
  }
  void complete(std::size_t i) const {
    if (receiver_) receiver_->complete(stretch(i));
  }
  view_on<B, T, 2> matrix(gradient_window<B, T> gradient, std::string_view name) const {
    parameter_info const& p = *layout_->find(name);
    return {gradient.at(p.offset), {p.rows, p.columns}};
  }

  parameter_layout const* layout_ = nullptr;
  std::vector<comm::range> const* stretches_ = nullptr;
  std::size_t layers_ = 0;
  view_on<B, T, 1> flat_{};
  gradient_receiver<B, T>* receiver_ = nullptr;
  bool tied_head_ = false;
  gradient_window<B, T> top_{}, embedding_{};  // the latter where it is the output layer as well, open all the time
};

}  // namespace atmanrl::inline ATMANRL_ABI
