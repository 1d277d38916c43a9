#pragma once

/// \file
/// A leaf's gradient on its way from backward passes to the owners of slices: room for the stretches that a pass has
/// at hand, and each of them handed over when the leaf's last pass has completed it.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/nn/gradient_stretches.hpp>
#include <atmanrl/optim/dealt_sum.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Takes the passes of one leaf after the other. A pass adds to what the passes before it have left, so that a leaf of
/// several passes has the bits of one flat array; in between, its gradient waits in the host's memory, where it takes
/// `elements` numbers. Every hand-over is a call of all ranks, which first hear whether all are well
/// (comm::all_or_none).
template <Backend B, class T>
class gradient_hand_over final : public gradient_receiver<B, T> {
 public:
  /// \param stretches  in the order in which they are completed
  gradient_hand_over(B& backend, comm::any_on<B> ranks, dealt_sum<B, T>& sum, std::vector<comm::range> stretches)
      : backend_(&backend), ranks_(ranks), sum_(&sum), stretches_(std::move(stretches)) {
    for (comm::range const& s : stretches_) elements_ += s.count;
  }

  std::vector<comm::range> const& stretches() const { return stretches_; }

  /// In a round that the sum has begun; what an earlier leaf left open is forgotten.
  void begin_leaf() {
    open_.clear();
    passes_ = 0;
    next_ = 0;
    in_leaf_ = true;
    last_ = true;
    for (auto& r : rooms_) r.in_use = false;
  }
  /// \param last  whether the leaf has no other pass after this one
  void begin_pass(bool last) {
    expects<usage_error>(in_leaf_, "gradients are handed over in sum_gradient alone, one leaf after the other");
    expects<shape_error>(next_ == 0, "a pass begins after {} of {} stretches of the one before it", next_,
                         stretches_.size());
    last_ = last;
  }
  /// Hands over what no pass has: all of a leaf that had nothing to learn from, and of a rank that has none in this
  /// round nothing but its consent.
  /// \param has_leaf  whether this rank has one
  void end_leaf(bool has_leaf) {
    last_ = true;
    while (next_ < stretches_.size()) {
      comm::range const stretch = stretches_[next_];
      if (has_leaf) {
        room(stretch);
        complete(stretch);
      } else {
        hand_over(stretch, nullptr);
      }
    }
    in_leaf_ = false;
  }

  view_on<B, T, 1> room(comm::range stretch) override {
    std::size_t const r = free_room(stretch.count);
    open_.push_back({stretch, r});
    view_on<B, T, 1> const values = rooms_[r].memory.view().rows(0, index_t(stretch.count));
    if (passes_ == 0)
      backend_->fill_zero(values.data(), stretch.count * sizeof(T));
    else
      backend_->copy_from_host(values.data(), parked_.data() + stretch.first, stretch.count * sizeof(T));
    return values;
  }

  void complete(comm::range stretch) override {
    auto const at = std::ranges::find(open_, stretch, &open_stretch::elements);
    expects<shape_error>(
        at != open_.end() && next_ < stretches_.size() && stretches_[next_] == stretch,
        "a model completes the gradients {} to {}, but by its gradient_stretches() others come before them",
        stretch.first, stretch.end());
    T* const values = rooms_[at->room].memory.data();
    if (last_) {
      hand_over(stretch, values);
    } else {
      parked_.resize(elements_);
      backend_->copy_to_host(parked_.data() + stretch.first, values, stretch.count * sizeof(T));
      if (++next_ == stretches_.size()) {
        next_ = 0;
        ++passes_;
      }
    }
    rooms_[at->room].in_use = false;
    open_.erase(at);
  }

  /// Memory for a stretch at a time, for others than passes: weights on their way.
  tensor<B, T, 1>& scratch(std::size_t elements) {
    for (auto& r : rooms_) r.in_use = false;
    tensor<B, T, 1>& memory = rooms_[free_room(elements)].memory;
    memory.resize({index_t(elements)});
    return memory;
  }

 private:
  struct open_stretch {
    comm::range elements;
    std::size_t room;
  };
  struct stretch_room {
    tensor<B, T, 1> memory;
    std::size_t capacity = 0;
    bool in_use = false;
  };

  void hand_over(comm::range stretch, T const* values) {
    comm::all_or_none(ranks_, [] {});
    sum_->hand_over(stretch, values);
    ++next_;
  }

  /// The smallest free one that is large enough; else the largest free one grows.
  std::size_t free_room(std::size_t elements) {
    std::size_t best = rooms_.size();
    for (std::size_t r = 0; r < rooms_.size(); ++r) {
      if (rooms_[r].in_use) continue;
      if (best == rooms_.size()) {
        best = r;
        continue;
      }
      std::size_t const c = rooms_[r].capacity, b = rooms_[best].capacity;
      if (c >= elements ? b < elements || c < b : c > b) best = r;
    }
    if (best == rooms_.size()) rooms_.push_back({tensor<B, T, 1>(*backend_, {0})});
    stretch_room& room = rooms_[best];
    room.memory.resize({index_t(elements)});
    room.capacity = std::max(room.capacity, elements);
    room.in_use = true;
    return best;
  }

  B* backend_;
  comm::any_on<B> ranks_;
  dealt_sum<B, T>* sum_;
  std::vector<comm::range> stretches_;
  std::size_t elements_ = 0;
  std::vector<open_stretch> open_;
  std::vector<stretch_room> rooms_;
  std::vector<T> parked_;               ///< a leaf's gradient between its passes
  std::size_t passes_ = 0, next_ = 0;   ///< of the leaf, all complete; the stretch that is completed next
  bool in_leaf_ = false, last_ = true;  ///< whether a leaf has begun; whether this pass is its last one
};

}  // namespace atmanrl::inline ATMANRL_ABI
