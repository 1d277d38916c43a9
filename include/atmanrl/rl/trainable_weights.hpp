#pragma once

/// \file
/// A model with the master weights of what is trained and their gradient: of all its parameters, or of its adapters
/// alone where it has some. Of several ranks each has the model, as much of the gradient as it is told
/// (optim/gradient_memory.hpp), and, if wanted, a slice of the master weights (ZeRO-1 and 2, Rajbhandari et al.,
/// arXiv:1910.02054).

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/optim/dealt_sum.hpp>
#include <atmanrl/optim/gradient_memory.hpp>
#include <atmanrl/optim/gradient_sum.hpp>
#include <atmanrl/optim/slice_gather.hpp>
#include <atmanrl/rl/gradient_hand_over.hpp>

#include <algorithm>
#include <cmath>
#include <exception>
#include <iterator>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// The elements of a model's trainable layout that it rounds to bf16, ascending.
template <class Model>
std::vector<comm::range> rounded_parameters(Model const& model) {
  std::vector<comm::range> all;
  if constexpr (detail::StoresBf16<Model>) {
    for (parameter_info const& p : model.trainable_layout().all()) {
      if (!model.stores_as_bf16(p)) continue;
      if (!all.empty() && all.back().end() == std::size_t(p.offset))
        all.back().count += std::size_t(p.size());
      else
        all.push_back({std::size_t(p.offset), std::size_t(p.size())});
    }
  }
  return all;
}

/// Master weights and gradient are flat arrays in the order of the model's trainable layout. Adapters are attached
/// before they are made.
template <class Model>
class trainable_weights {
  static_assert(detail::explain_trainable_model<Model>());

 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

  /// \param ranks   that train together; the model's weights are the same on all of them
  /// \param sliced  whether a rank has the master weights of its slice alone
  /// \param memory  what a rank keeps of a gradient; one rank keeps the whole
  /// \throws usage_error where gradients are to be handed over by a model that does not, or without slices
  explicit trainable_weights(Model& model, comm::any_on<B> ranks = {}, bool sliced = true,
                             gradient_memory_options memory = {})
      : model_(&model),
        kept_(ranks.size() > 1 ? memory.kept : gradient_memory::whole),
        ranks_(ranks),
        sum_(model.backend(), ranks, model.trainable_layout().size()),
        gather_(model.backend(), ranks, model.trainable_layout().size()),
        sliced_(sliced && ranks.size() > 1),
        slice_(sliced_ ? sum_.slice() : comm::range{0, std::size_t(model.trainable_layout().size())}),
        master_(model.backend(), {index_t(slice_.count)}),
        gradient_(model.backend(), {kept_ == gradient_memory::layers ? 0 : model.trainable_layout().size()}) {
    if constexpr (AdaptableModel<Model>) {
      lora_config const* const l = model.adapter_config();
      expects<usage_error>(!l || l->dropout == 0,
                           "the adapters were made for a dropout of {}; training here has none (set lora_dropout to 0)",
                           l ? l->dropout : 0);
    }
    if (kept_ != gradient_memory::whole)
      dealt_.emplace(model.backend(), ranks, model.trainable_layout().size(), memory.sums_on_host);
    if (kept_ == gradient_memory::layers) {
      begin_handing_over();
    } else if (!sliced_) {
      model.read_trainable(master_.view());
    } else {
      model.read_trainable(gradient_.view());
      copy(gradient_.view().rows(index_t(slice_.first), index_t(slice_.count)), master_.view());
    }
    gradient_.fill_zero();
  }
  trainable_weights(trainable_weights const&) = delete;
  trainable_weights& operator=(trainable_weights const&) = delete;

  Model& model() { return *model_; }
  comm::any_on<B>& ranks() { return ranks_; }
  /// Whether this rank has master weights of its slice alone.
  bool is_sliced() const { return sliced_; }
  /// The elements that this rank has master weights of: all of them where there is one rank.
  comm::range slice() const { return slice_; }
  /// What a rank keeps of a gradient.
  gradient_memory kept() const { return kept_; }
  /// Elements of such an array on all ranks together.
  index_t whole_size(tensor<B, T, 1> const& values) const { return sliced_ ? size() : values.size(); }
  /// Elements `slice()`.
  tensor<B, T, 1>& master() { return master_; }
  /// All elements; none where gradients are handed over in layers.
  tensor<B, T, 1>& gradient() { return gradient_; }
  /// Where a backward pass leaves the gradient of a leaf (`sum_gradient`).
  /// \param last  whether the leaf has no other pass after this one
  atmanrl::pass_gradients<B, T> pass_gradients(bool last = true) {
    if (kept_ != gradient_memory::layers) return {.parameters = gradient_.view()};
    hand_over_->begin_pass(last);
    return {.stretches = &*hand_over_};
  }

  void zero_gradient() { gradient_.fill_zero(); }

  /// The gradient becomes the sum of the gradients of `leaves` leaves in a tree that their number alone decides
  /// (optim/gradient_sum.hpp); a call of all ranks, each of which computes a part of the leaves. Afterwards a rank has
  /// the elements `slice()` of the sum, which is what `update` takes; the others are undefined.
  /// \param add_leaf  `void add_leaf(std::size_t leaf)`, whose passes leave that leaf's gradient in `pass_gradients()`
  /// \throws on every rank what add_leaf throws on one (comm::all_or_none)
  template <class F>
  void sum_gradient(std::size_t leaves, F&& add_leaf) {
    memory_use_scope const named(model_->backend(), memory_use::gradient);
    if (kept_ != gradient_memory::whole) return sum_in_rounds(leaves, add_leaf);
    if (leaves == 1 && ranks_.size() == 1) {
      zero_gradient();
      return add_leaf(std::size_t(0));
    }
    comm::range const mine = comm::share_of(leaves, ranks_.size(), ranks_.rank());
    sum_.begin(mine.count);
    comm::all_or_none(ranks_, [&] {
      for (std::size_t leaf = mine.first; leaf < mine.end(); ++leaf) {
        zero_gradient();
        add_leaf(leaf);
        sum_.add(gradient_);
      }
    });
    sum_.finish(gradient_);
    if (ranks_.size() > 1 && !sliced_) gather_(gradient_.view());
  }

  /// What ranks have found out about leaves in `sum_gradient`, in the leaves' order on every rank; a call of all ranks.
  /// \param mine  of this rank's leaves in the order in which it had them, as many of each
  template <class R>
  std::vector<R> gather_of_leaves(std::size_t leaves, std::vector<R> mine) {
    auto all = comm::gather_in_order(ranks_, std::move(mine));
    if (kept_ == gradient_memory::whole) return all;
    std::size_t const each = all.size() / leaves;
    std::vector<std::size_t> next(std::size_t(ranks_.size()));  // of each rank
    for (int r = 1; r < ranks_.size(); ++r)
      next[std::size_t(r)] = next[std::size_t(r) - 1] + dealt_leaves(leaves, ranks_.size(), r - 1);
    std::vector<R> out;
    for (std::size_t leaf = 0; leaf < leaves; ++leaf) {
      auto const first = all.begin() + std::ptrdiff_t(next[leaf % next.size()]++ * each);
      std::move(first, first + std::ptrdiff_t(each), std::back_inserter(out));
    }
    return out;
  }

  /// `f(first, values)` with all elements of an array of which each rank has its slice, in their order: in one piece,
  /// itself or in the place of the gradient, or where there is no such place in stretches. A call of all ranks.
  /// \param f  `void f(index_t first, view_on<B, T const, 1> values)`, which looks at elements from `first` on
  /// \throws usage_error when the array has no element for each of the slice
  template <class F>
  void each_piece(tensor<B, T, 1> const& values, F&& f) {
    if (!sliced_) return f(index_t(0), values.cview());
    expects<usage_error>(values.size() == index_t(slice_.count),
                         "an optimizer that is_elementwise has an array of {} for {} elements", values.size(),
                         slice_.count);
    if (kept_ == gradient_memory::layers) return each_stretch(values, {}, f);
    copy(values.cview(), whole_gradient_slice());
    gather_(gradient_.view());
    f(index_t(0), std::as_const(gradient_).cview());
  }
  /// All elements in the backend's memory, where that has room for them.
  /// \throws usage_error where gradients are handed over in layers
  view_on<B, T const, 1> whole(tensor<B, T, 1> const& values) {
    expects<usage_error>(kept_ != gradient_memory::layers,
                         "no rank has room for a whole array where gradients are handed over in layers");
    view_on<B, T const, 1> all;
    each_piece(values, [&](index_t, view_on<B, T const, 1> v) { all = v; });
    return all;
  }
  /// The other way round: this rank's elements of an array that lies somewhere on the host.
  /// \param read  `void read(std::size_t first, std::size_t count, put)`, which calls `put(std::span<T const>)` with
  ///              elements [first, first + count) of the whole array in one or more pieces
  template <class F>
  void assign_whole(tensor<B, T, 1>& values, F&& read) const {
    std::size_t at = 0, count = std::size_t(values.size());
    read(sliced_ ? slice_.first : 0, count, [&](std::span<T const> piece) {
      expects<shape_error>(piece.size() <= count - at, "{} values are put after {} of {}", piece.size(), at, count);
      model_->backend().copy_from_host(values.data() + at, piece.data(), piece.size_bytes());
      at += piece.size();
    });
    expects<shape_error>(at == count, "{} values for an array of {}", at, count);
  }

  /// Name of the first parameter with a value that is not finite; empty when there is none. A call of all ranks.
  /// \param values  elements `slice()` of an array of the layout
  std::string first_not_finite(view_on<B, T const, 1> values) {
    std::string found;
    for (parameter_info const& p : model_->trainable_layout().all()) {
      index_t const first = std::max(p.offset, index_t(slice_.first)),
                    end = std::min(p.offset + p.size(), index_t(slice_.end()));
      if (first >= end ||
          std::isfinite(sum_of_squares(model_->backend(), values.rows(first - index_t(slice_.first), end - first))))
        continue;
      found = p.name;
      break;
    }
    if (!sliced_) return found;
    for (std::string& name : comm::gather_in_order(ranks_, std::vector{found}))
      if (!name.empty()) return std::move(name);
    return {};
  }

 protected:
  /// Elements `slice()` of the latest sum.
  view_on<B, T, 1> gradient_slice() { return dealt_ && sliced_ ? sum_slice_ : whole_gradient_slice(); }

  /// Of the sum of the leaves.
  double gradient_norm() {
    std::vector<double> sums = sums_of_squares(model_->backend(), gradient_slice());
    if (sliced_) sums = comm::gather_in_order(ranks_, std::move(sums));
    return std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
  }

  /// The model gets the master weights of all ranks; where they are sliced, the gradient is overwritten with them. What
  /// the model rounds to bf16 goes from rank to rank as that.
  void assign_master() {
    std::vector<comm::range> const rounded = rounded_parameters(*model_);
    if constexpr (detail::HandsOverGradients<Model>) {
      if (kept_ == gradient_memory::layers)
        return each_stretch(master_, rounded, [&](index_t first, view_on<B, T const, 1> values) {
          model_->assign_trainable(first, values);
        });
    }
    if constexpr (detail::StoresBf16<Model>) {
      if (sliced_ && !rounded.empty()) {
        copy(master_.cview(), whole_gradient_slice());
        gather_(gradient_.view(), rounded);
        return model_->assign_trainable(gradient_.cview());
      }
    }
    model_->assign_trainable(whole(master_));
  }

 private:
  index_t size() const { return model_->trainable_layout().size(); }
  view_on<B, T, 1> whole_gradient_slice() {
    return gradient_.view().rows(index_t(slice_.first), index_t(slice_.count));
  }

  void begin_handing_over() {
    if constexpr (detail::HandsOverGradients<Model>) {
      expects<usage_error>(sliced_,
                           "gradients are handed over in layers to owners of slices, but the optimizer is not "
                           "element-wise: keep them whole, or their sums in slices");
      hand_over_.emplace(model_->backend(), ranks_, *dealt_, model_->gradient_stretches());
      for (comm::range const& s : hand_over_->stretches()) {
        auto const values = hand_over_->scratch(s.count).view();
        model_->read_trainable(index_t(s.first), values);
        comm::range const mine = comm::common(slice_, s);
        if (mine.count > 0)
          copy(values.rows(index_t(mine.first - s.first), index_t(mine.count)), rows_of(master_, mine));
      }
    } else {
      fail<usage_error>(
          "gradients are to be handed over in layers, but the model has no gradient_stretches() (see "
          "docs/extending.md#models)");
    }
  }

  /// Leaves in turn, those of a round at the same time (optim/dealt_sum.hpp). A rank that fails says so in the place of
  /// its next hand-over, where all others hear it.
  template <class F>
  void sum_in_rounds(std::size_t leaves, F&& add_leaf) {
    dealt_->begin(leaves);
    while (dealt_->begin_round()) {
      auto const leaf = dealt_->leaf();
      std::exception_ptr failure;
      if (hand_over_) hand_over_->begin_leaf();
      try {
        if (leaf && !hand_over_) zero_gradient();
        if (leaf) add_leaf(*leaf);
      } catch (comm::known_failure const&) {
        throw;  // everybody knows
      } catch (...) {
        failure = std::current_exception();
      }
      if (failure) comm::all_or_none(ranks_, [&] { std::rethrow_exception(failure); });
      if (hand_over_) {
        hand_over_->end_leaf(leaf.has_value());
      } else {
        comm::all_or_none(ranks_, [] {});
        dealt_->hand_over({0, std::size_t(size())}, leaf ? gradient_.data() : nullptr);
      }
    }
    comm::all_or_none(ranks_, [] {});
    sum_slice_ = dealt_->finish();
    if (sliced_) return;
    comm::range const mine = dealt_->slice();
    copy(sum_slice_, rows_of(gradient_, mine, 0));
    gather_(gradient_.view());
  }

  /// One of hand_over_'s stretches after the other, in their order in the array.
  /// \param rounded  elements of which bf16 is gathered
  template <class F>
  void each_stretch(tensor<B, T, 1> const& values, std::vector<comm::range> const& rounded, F&& f) {
    auto stretches = hand_over_->stretches();
    std::ranges::sort(stretches, {}, &comm::range::first);
    for (comm::range const& s : stretches) {
      auto const all = hand_over_->scratch(s.count).view();
      comm::range const mine = comm::common(slice_, s);
      if (mine.count > 0)
        copy(values.cview().rows(index_t(mine.first - slice_.first), index_t(mine.count)),
             all.rows(index_t(mine.first - s.first), index_t(mine.count)));
      bool gathered = false;
      if constexpr (detail::StoresBf16<Model>)
        if ((gathered = !rounded.empty())) gather_(all, rounded, s.first);
      if (!gathered) gather_(all, s.first);
      f(index_t(s.first), view_on<B, T const, 1>(all));
    }
  }

  view_on<B, T, 1> rows_of(tensor<B, T, 1>& of_slice, comm::range elements) {
    return rows_of(of_slice, elements, slice_.first);
  }
  static view_on<B, T, 1> rows_of(tensor<B, T, 1>& values, comm::range elements, std::size_t first) {
    return values.view().rows(index_t(elements.first - first), index_t(elements.count));
  }

  void copy(view_on<B, T const, 1> from, view_on<B, T, 1> to) {
    if (to.size() > 0) model_->backend().copy(to.data(), from.data(), std::size_t(to.size()) * sizeof(T));
  }

  Model* model_;
  gradient_memory kept_;
  comm::any_on<B> ranks_;
  gradient_sum<B, T> sum_;
  slice_gather<B, T> gather_;
  bool sliced_;
  comm::range slice_;
  tensor<B, T, 1> master_, gradient_;
  std::optional<dealt_sum<B, T>> dealt_;               ///< in place of sum_
  std::optional<gradient_hand_over<B, T>> hand_over_;  ///< to dealt_
  view_on<B, T, 1> sum_slice_;                         ///< in dealt_
};

}  // namespace atmanrl::inline ATMANRL_ABI
