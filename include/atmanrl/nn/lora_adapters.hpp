#pragma once

/// \file
/// All adapters of a model: each lives in the linear layer whose matrices it adapts; their values are one flat array.

#include <atmanrl/nn/decoder_layer.hpp>
#include <atmanrl/nn/parameter_layout.hpp>

#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

template <Backend B, class W, class Block>
class lora_adapters {
 public:
  using T = compute_t<W>;
  using layers = std::vector<decoder_layer<B, W, Block>>;

  /// \param l  resolved for the model's matrices
  lora_adapters(B& backend, model_config const& c, architecture const& a, lora_config l)
      : backend_(&backend), config_(std::move(l)), layout_(c, a, config_) {}

  lora_config const& config() const { return config_; }
  /// Order of the flat array.
  parameter_layout const& layout() const { return layout_; }

  /// Gives every linear layer its adapters, all zero.
  void attach_to(layers& model, std::vector<lora_matrix> const& matrices) {
    index_t offset = 0;
    for (std::size_t l = 0; l < model.size(); ++l)
      for (int slot = 0; slot < linear_slots; ++slot)
        model[l].at(linear_slot(slot)).attach({*backend_, matrices, config_, index_t(l), linear_slot(slot), offset});
    expects<shape_error>(offset == layout_.size(), "adapters of {} values for a layout of {}", offset, layout_.size());
  }

  static void detach_from(layers& model) {
    for_each(model, [](auto& adapter) { adapter = {}; });
  }

  void assign(layers& model, view_on<B, T const, 1> values) {
    check(values.size());
    for_each(model, [&](auto& adapter) { adapter.assign(*backend_, values, rows_); });
  }
  void read(layers const& model, view_on<B, T, 1> values) const {
    check(values.size());
    for_each(model, [&](auto const& adapter) { adapter.read(*backend_, values); });
  }
  /// Fresh values: A drawn from the seed, B zero.
  void draw(layers& model, std::uint64_t seed) {
    std::vector<T> values(std::size_t(layout_.size()));
    for_each(model, [&](auto const& adapter) { adapter.draw(seed, values); });
    tensor<B, T, 1> on_backend(*backend_, {layout_.size()});
    on_backend.assign(values);
    assign(model, on_backend.cview());
  }

 private:
  template <class Layers, class F>
  static void for_each(Layers& model, F&& f) {
    for (auto& layer : model)
      for (int slot = 0; slot < linear_slots; ++slot) f(layer.at(linear_slot(slot)).adapter());
  }
  void check(index_t size) const {
    expects<shape_error>(size == layout_.size(), "{} values for adapters of {} parameters", size, layout_.size());
  }

  B* backend_;
  lora_config config_;
  parameter_layout layout_;
  tensor<B, T, 2> rows_;  // of one B with the zeros beside it, on their way into a weight
};

}  // namespace atmanrl::inline ATMANRL_ABI
