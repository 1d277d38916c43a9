#pragma once

/// \file
/// Low-rank adapter (Hu et al. 2021, arXiv:2106.09685) of a linear layer:  y = x Wᵀ + s (x Aᵀ) Bᵀ  with s = alpha /
/// rank. W stays as it is and wants no gradient, so it may be bf16 and is there once. A and B are stored as the
/// products with W take their other factor (factor_t), and so is what they are multiplied with: bf16 on a device under
/// a model in bf16, scalars else. What is trained are masters in computing precision (rl/trainable_weights.hpp).

#include <atmanrl/core/random.hpp>
#include <atmanrl/io/lora_config.hpp>
#include <atmanrl/nn/factor_copy.hpp>
#include <atmanrl/ops/elementwise.hpp>
#include <atmanrl/ops/matmul.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Whether a forward pass goes through the adapters; a model without any computes the same either way.
enum class adapters { on, off };

/// Buffers of the adapters' products, shared by all layers.
template <Backend B, class T>
struct lora_workspace {
  /// As products take them.
  template <class F>
  struct factors {
    tensor<B, F, 2> low, dlow;          // (rows, adapters * rank) s x Aᵀ, and the gradient of x Aᵀ
    tensor<B, F, 2> part_low, part_dy;  // columns of one adapter
  };
  std::tuple<factors<T>, factors<bf16>> all_factors;

  template <class F>
  factors<F>& as() {
    return std::get<factors<F>>(all_factors);
  }
};

/// The adapters of one linear layer. A layer that fuses several matrices (q, k, v) has one adapter per matrix: their A
/// are stacked, their B stand in the rows of their matrix and the columns of their A, with zeros beside them, so that
/// one product each serves all of them.
/// \tparam F  what the linear layer's products take
template <Backend B, class T, class F>
class lora_linear {
 public:
  /// No adapter: the functions below do nothing.
  lora_linear() = default;
  explicit operator bool() const { return !parts_.empty(); }

  /// \param matrices  of one decoder layer; those of `linear` are fused, in this order
  /// \param offset    where the factors begin in the flat array of all adapters; moved after them
  lora_linear(B& backend, std::vector<lora_matrix> const& matrices, lora_config const& l, index_t layer,
              linear_slot linear, index_t& offset)
      : rank_(l.rank), scaling_(real_t<T>(l.scaling())) {
    index_t outputs = 0, inputs = 0;
    for (lora_matrix const& m : matrices) {
      if (m.linear != linear) continue;
      if (l.has(m.name())) parts_.push_back({m.number, layer, m.first, m.outputs, 0});
      outputs += m.outputs;
      inputs = m.inputs;
    }
    if (parts_.empty()) return;
    index_t const low = index_t(parts_.size()) * rank_;
    a_ = weight<B, F>(backend, low, inputs);
    b_ = weight<B, F>(backend, outputs, low);
    a_offset_ = offset;
    offset += low * inputs;
    for (part& p : parts_) {
      p.b_offset = offset;
      offset += p.outputs * rank_;
    }
  }

  /// y += s (x Aᵀ) Bᵀ.
  void forward(B& backend, view_on<B, F const, 2> x, view_on<B, T, 2> y, lora_workspace<B, T>& w) const {
    if (parts_.empty()) return;
    matmul(backend, down(backend, x, w), b_.view(), y, store::add);
  }

  /// dx += s (dy B) A; with a gradient also  dA += s (dy B)ᵀ x,  dB += dyᵀ s (x Aᵀ).
  /// \param x         (rows, inputs); not read when `gradient` is empty
  /// \param gradient  flat, of all adapters; empty when it is not wanted
  void backward(B& backend, view_on<B, F const, 2> dy, view_on<B, F const, 2> x, view_on<B, T, 2> dx,
                view_on<B, T, 1> gradient, lora_workspace<B, T>& w) const {
    if (parts_.empty()) return;
    index_t const rows = dy.extent(0);
    auto& factors = w.template as<F>();
    factors.dlow.resize(backend, {rows, a_.outputs()});
    if constexpr (factor_copy<B, T, F>::is_needed) {
      matmul_backward_input_into_factor(backend, dy, b_.view(), scaling_, factors.dlow.view());
    } else {
      matmul_backward_input(backend, dy, b_.view(), factors.dlow.view());
      scale<B, T>(backend, flat(factors.dlow), scaling_);
    }
    auto const dlow = factors.dlow.cview();
    matmul_backward_input(backend, dlow, a_.view(), dx, store::add);
    if (gradient.empty()) return;
    matmul_backward_weight<B, T>(backend, dlow, x, a_of(gradient));
    auto const low = down(backend, x, w);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      part const& p = parts_[i];
      auto part_dy = dy;
      auto part_low = low;
      if (p.outputs < b_.outputs()) part_dy = columns(backend, dy, p.first, p.outputs, factors.part_dy);
      if (parts_.size() > 1) part_low = columns(backend, low, index_t(i) * rank_, rank_, factors.part_low);
      matmul_backward_weight<B, T>(backend, part_dy, part_low, b_of(gradient, p));
    }
  }

  /// rows += s B A for rows [first, first + rows.extent(0)) of the fused matrix: what merging adds to them.
  void add_product(B& backend, index_t first, view_on<B, T, 2> rows) const {
    if (parts_.empty()) return;
    tensor<B, T, 2> b(backend, {rows.extent(0), b_.inputs()});
    b_.read_rows(backend, first, b.view());
    scale<B, T>(backend, flat(b), scaling_);
    matmul_backward_input(backend, b.cview(), a_.view(), rows, store::add);
  }

  /// \param rows  scratch
  void assign(B& backend, view_on<B, T const, 1> values, tensor<B, T, 2>& rows) {
    if (parts_.empty()) return;
    a_.assign_rows(backend, 0, a_of(values));
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      rows.resize(backend, {parts_[i].outputs, b_.inputs()});
      rows.fill_zero();
      copy_columns<B, T>(backend, b_of(values, parts_[i]), 0, rows.view(), index_t(i) * rank_, rank_);
      b_.assign_rows(backend, parts_[i].first, rows.cview());
    }
  }
  void read(B& backend, view_on<B, T, 1> values) const {
    if (parts_.empty()) return;
    a_.read_rows(backend, 0, a_of(values));
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      tensor<B, T, 2> rows(backend, {parts_[i].outputs, b_.inputs()});
      b_.read_rows(backend, parts_[i].first, rows.view());
      copy_columns<B, T>(backend, rows.cview(), index_t(i) * rank_, b_of(values, parts_[i]), 0, rank_);
    }
  }

  /// A uniform in ±1 / sqrt(inputs) (Kaiming's rule with a = sqrt(5), as PEFT has it), B zero: the adapters begin by
  /// doing nothing.
  void draw(std::uint64_t seed, std::span<T> values) const {
    static constexpr std::uint32_t stream = 0x4c6f5241;  // of no training step
    double const bound = parts_.empty() ? 0 : 1 / std::sqrt(double(a_.inputs()));
    auto const key = [&](std::size_t i, index_t k) -> random_key {
      return {.seed = seed,
              .step = stream,
              .prompt = std::uint32_t(parts_[i].layer),
              .rollout = std::uint32_t(parts_[i].number),
              .position = std::uint32_t(k)};
    };
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      index_t const size = rank_ * a_.inputs();
      for (index_t k = 0; k < size; ++k)
        values[std::size_t(a_offset_ + index_t(i) * size + k)] = T(bound * (2 * uniform(key(i, k)) - 1));
      std::fill_n(values.begin() + parts_[i].b_offset, parts_[i].outputs * rank_, T{});
    }
  }

 private:
  struct part {
    int number;  // lora_matrix::number
    index_t layer;
    index_t first, outputs;  // its rows in the fused matrix
    index_t b_offset;        // its B in the flat array
  };

  /// s x Aᵀ, as a factor.
  view_on<B, F const, 2> down(B& backend, view_on<B, F const, 2> x, lora_workspace<B, T>& w) const {
    tensor<B, F, 2>& low = w.template as<F>().low;
    low.resize(backend, {x.extent(0), a_.outputs()});
    if constexpr (factor_copy<B, T, F>::is_needed) {
      matmul_into_factor(backend, x, a_.view(), scaling_, low.view());
    } else {
      matmul(backend, x, a_.view(), low.view());
      scale<B, T>(backend, flat(low), scaling_);
    }
    return std::as_const(low).cview();
  }
  static view_on<B, T, 1> flat(tensor<B, T, 2>& t) { return t.view().template reshaped<1>({t.size()}); }
  static view_on<B, F const, 2> columns(B& backend, view_on<B, F const, 2> from, index_t first, index_t count,
                                        tensor<B, F, 2>& to) {
    to.resize(backend, {from.extent(0), count});
    copy_columns<B, F>(backend, from, first, to.view(), 0, count);
    return to.cview();
  }
  template <class U>
  view_on<B, U, 2> a_of(view_on<B, U, 1> values) const {
    return {values.data() + a_offset_, {a_.outputs(), a_.inputs()}};
  }
  template <class U>
  view_on<B, U, 2> b_of(view_on<B, U, 1> values, part const& p) const {
    return {values.data() + p.b_offset, {p.outputs, rank_}};
  }

  std::vector<part> parts_;
  index_t rank_ = 0, a_offset_ = 0;
  real_t<T> scaling_{};
  weight<B, F> a_;  // (parts * rank, inputs)
  weight<B, F> b_;  // (outputs, parts * rank), block-diagonal
};

}  // namespace atmanrl::inline ATMANRL_ABI
