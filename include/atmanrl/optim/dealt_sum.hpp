#pragma once

/// \file
/// The sum of gradients of optim/gradient_sum.hpp, to the bit, with what waits of it in slices: the gradients'
/// partition of ZeRO-2 (Rajbhandari et al., arXiv:1910.02054).
///
/// Leaves are dealt out in turn, in round k one to each rank: leaf k R + r to rank r of R. The leaves of a round are
/// neighbours in the tree of comm/leaf_tree.hpp, so that after each round every rank receives its slice of all of them
/// and adds it at once, in the tree's order. What waits for later rounds are sums of slices. A leaf is handed over in
/// stretches, so that no rank needs all of it at a time. For that every leaf is sent, where gradient_sum sends the few
/// nodes that a rank's neighbouring leaves leave; and a round takes as long as its longest leaf.

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/leaf_tree.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/ops/elementwise.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Leaves of a rank where they are dealt out in turn.
constexpr std::size_t dealt_leaves(std::size_t leaves, int ranks, int rank) {
  return leaves / std::size_t(ranks) + (std::size_t(rank) < leaves % std::size_t(ranks));
}

/// Most slices that wait at once, the sum itself among them.
inline std::size_t most_waiting_slices(std::size_t leaves, int ranks) {
  comm::tree_stack<char> stack(leaves);
  std::size_t most = 0;
  for (std::size_t leaf = 0; leaf < leaves; ++leaf) {
    stack.push({leaf, 1}, 0, [](char, char) {});
    if ((leaf + 1) % std::size_t(ranks) == 0 || leaf + 1 == leaves) most = std::max(most, stack.waiting().size());
  }
  return most;
}

/// Elements of a slice that are exchanged at once: fewer on many ranks, which all send some.
constexpr std::size_t dealt_piece_of(int ranks) {
  return std::clamp((std::size_t(1) << 22) / std::size_t(ranks), std::size_t(1) << 14, std::size_t(1) << 20);
}

/// Sums of flat arrays of `elements` numbers, one sum after the other, with the same memory. All but the getters are
/// calls of all ranks.
///
///     dealt_sum<B, T> sums(backend, ranks, elements);
///     sums.begin(leaves);                           // of all ranks
///     while (sums.begin_round()) {
///       // the gradient of leaf sums.leaf(), where this rank has one in this round
///       sums.hand_over({0, elements}, values);      // or in stretches, the same ones in the same order on all ranks
///     }
///     view_on<B, T, 1> sum = sums.finish();         // elements sums.slice()
///
/// Memory: `most_waiting_slices` slices, in the backend's memory, or in the host's with the sum alone in the backend's;
/// and while ranks exchange, a piece of `dealt_piece_of` elements of each leaf of the round, and of what waits in the
/// host's memory and is added to. Bytes that a rank of L_r leaves of L in all sends: L_r (elements - its slice)
/// sizeof(T), and receives: (L - L_r) (its slice) sizeof(T).
template <Backend B, class T>
class dealt_sum {
 public:
  /// \param on_host    whether sums wait in the host's memory
  /// \param alignment  of slices, in elements
  /// \param piece      elements of a slice that are exchanged at once; 0: dealt_piece_of(ranks)
  dealt_sum(B& backend, comm::any_on<B> ranks, index_t elements, bool on_host = false,
            std::size_t alignment = comm::slice_alignment, std::size_t piece = 0)
      : backend_(&backend),
        ranks_(ranks),
        elements_(std::size_t(elements)),
        on_host_(on_host),
        alignment_(alignment),
        piece_(piece > 0 ? piece : dealt_piece_of(ranks.size())),
        sent_(std::size_t(ranks.size())),
        received_(std::size_t(ranks.size())),
        pieces_(backend, {0}),
        sum_(backend, {0}) {
    expects<shape_error>(alignment > 0, "slices are aligned to {} elements", alignment);
  }

  /// The elements of the sum that this rank gets.
  comm::range slice() const { return slice_of(ranks_.rank()); }

  /// Begins a sum; one that was not finished is forgotten, and so is what `finish` has returned.
  /// \param leaves  of all ranks together
  void begin(std::size_t leaves) {
    expects<shape_error>(leaves > 0, "a sum of no leaves");
    leaves_ = leaves;
    round_ = 0;
    handed_over_ = elements_;
    stack_ = comm::tree_stack<operand>(leaves);
    free_.clear();
    for (std::size_t b = 0; b < buffers(); ++b) free_.push_back(b);
  }

  /// \return false where all leaves were handed over
  bool begin_round() {
    expects<shape_error>(handed_over_ == elements_, "{} of {} elements of round {} were handed over", handed_over_,
                         elements_, round_);
    auto const ranks = std::size_t(ranks_.size());
    std::size_t const first = round_ * ranks;
    if (first >= leaves_) return false;
    ++round_;
    handed_over_ = 0;
    plan(first, std::min(ranks, leaves_ - first));
    return true;
  }

  /// What this rank has to compute in this round; nothing in the last one where leaves do not suffice.
  std::optional<std::size_t> leaf() const {
    std::size_t const mine = (round_ - 1) * std::size_t(ranks_.size()) + std::size_t(ranks_.rank());
    return mine < leaves_ ? std::optional(mine) : std::nullopt;
  }

  /// Every element of a round is in one stretch.
  /// \param values  elements `stretch` of this rank's leaf; null where it has none
  void hand_over(comm::range stretch, T const* values) {
    expects<shape_error>((values != nullptr) == leaf().has_value() || stretch.count == 0,
                         "rank {} hands over a leaf in a round in which it has {}", ranks_.rank(),
                         leaf() ? "one, without values" : "none");
    handed_over_ += stretch.count;
    expects<shape_error>(stretch.end() <= elements_ && handed_over_ <= elements_,
                         "elements {} to {} of {} are handed over, {} in this round", stretch.first, stretch.end(),
                         elements_, handed_over_);
    std::size_t longest = 0;
    for (int r = 0; r < ranks_.size(); ++r) longest = std::max(longest, comm::common(slice_of(r), stretch).count);
    for (std::size_t from = 0; from < longest; from += piece_) {
      auto const part = [&](int r) {
        comm::range const all = comm::common(slice_of(r), stretch);
        std::size_t const skipped = std::min(from, all.count);
        return comm::range{all.first + skipped, std::min(piece_, all.count - skipped)};
      };
      comm::range const here = part(ranks_.rank());
      for (std::size_t r = 0; r < sent_.size(); ++r) {
        comm::range const there = part(int(r));
        sent_[r] = {};
        if (values && there.count > 0)
          sent_[r] = std::as_bytes(std::span(values + (there.first - stretch.first), there.count));
        received_[r] = {};
        if (r < present_ && here.count > 0)
          received_[r] = std::as_writable_bytes(std::span(place({true, r}, here), here.count));
      }
      ranks_.exchange_on(*backend_, sent_, received_);
      if (here.count > 0) add(here);
    }
  }

  /// Elements `slice()` of the sum. They stay until the next `begin`.
  view_on<B, T, 1> finish() {
    expects<shape_error>(handed_over_ == elements_ && round_ * std::size_t(ranks_.size()) >= leaves_ && leaves_ > 0,
                         "a sum of {} leaves is finished after {} rounds", leaves_, round_);
    std::size_t const buffer = stack_.waiting().front().value.number;
    if (!on_host_) return waiting_[buffer].view();
    sum_.resize({index_t(slice().count)});
    sum_.assign(host_[buffer]);
    return sum_.view();
  }

  /// Slices that waited at once, in all sums so far.
  std::size_t buffers() const { return on_host_ ? host_.size() : waiting_.size(); }

 private:
  /// A leaf of the round, as it was received, or a sum that waits.
  struct operand {
    bool received = false;
    std::size_t number = 0;  ///< of its rank, of its buffer
  };

  comm::range slice_of(int rank) const { return comm::slice_of(elements_, ranks_.size(), rank, alignment_); }

  /// Which additions the leaves of a round make possible, and where what is left will wait. All elements go through
  /// the same ones, each by itself: so a buffer that one of them frees may take what another leaves.
  void plan(std::size_t first, std::size_t leaves) {
    present_ = leaves;
    adds_.clear();
    keeps_.clear();
    loaded_.clear();
    auto const load = [&](operand o) {
      if (on_host_ && !o.received && std::ranges::find(loaded_, o.number) == loaded_.end()) loaded_.push_back(o.number);
    };
    for (std::size_t r = 0; r < leaves; ++r)
      stack_.push({first + r, 1}, operand{true, r}, [&](operand left, operand right) {
        adds_.push_back({left, right});
        load(left);
        load(right);
        if (!right.received) free_.push_back(right.number);
      });
    stored_.clear();
    for (auto& entry : stack_.waiting())
      if (!entry.value.received && std::ranges::find(loaded_, entry.value.number) != loaded_.end())
        stored_.push_back(entry.value.number);
    for (auto& entry : stack_.waiting()) {
      if (!entry.value.received) continue;
      keeps_.push_back({new_buffer(), entry.value.number});
      entry.value = {false, keeps_.back().buffer};
    }
    pieces_.resize({index_t((leaves + loaded_.size()) * std::min(piece_, slice().count))});
  }

  std::size_t new_buffer() {
    std::size_t const count = slice().count;
    if (free_.empty()) {
      free_.push_back(buffers());
      if (on_host_)
        host_.emplace_back(count);
      else
        waiting_.emplace_back(*backend_, std::array{index_t(count)});
    }
    std::size_t const buffer = free_.back();
    free_.pop_back();
    return buffer;
  }

  /// Where elements `here` of an operand lie in the backend's memory.
  T* place(operand o, comm::range here) {
    std::size_t const most = std::min(piece_, slice().count);
    if (o.received) return pieces_.data() + o.number * most;
    if (on_host_)
      return pieces_.data() + (present_ + std::size_t(std::ranges::find(loaded_, o.number) - loaded_.begin())) * most;
    return waiting_[o.number].data() + (here.first - slice().first);
  }

  void add(comm::range here) {
    std::size_t const at = here.first - slice().first, bytes = here.count * sizeof(T);
    for (std::size_t const b : loaded_) backend_->copy_from_host(place({false, b}, here), host_[b].data() + at, bytes);
    for (auto const& [left, right] : adds_) {
      view_on<B, T const, 1> const x{place(right, here), {index_t(here.count)}};
      atmanrl::add(*backend_, x, view_on<B, T, 1>{place(left, here), {index_t(here.count)}});
    }
    for (std::size_t const b : stored_) backend_->copy_to_host(host_[b].data() + at, place({false, b}, here), bytes);
    for (auto const& [buffer, rank] : keeps_) {
      T const* const from = place({true, rank}, here);
      if (on_host_)
        backend_->copy_to_host(host_[buffer].data() + at, from, bytes);
      else
        backend_->copy(waiting_[buffer].data() + at, from, bytes);
    }
  }

  struct addition {
    operand left, right;  ///< right is added to left
  };
  struct keeping {
    std::size_t buffer, rank;
  };

  B* backend_;
  comm::any_on<B> ranks_;
  std::size_t elements_;
  bool on_host_;
  std::size_t alignment_, piece_;
  std::size_t leaves_ = 0, round_ = 0, handed_over_ = 0;  ///< round_: those begun
  std::size_t present_ = 0;                               ///< leaves of this round
  comm::tree_stack<operand> stack_{0};
  std::vector<addition> adds_;
  std::vector<keeping> keeps_;
  std::vector<std::size_t> loaded_, stored_;  ///< buffers of the host that this round adds to, and that stay
  std::vector<tensor<B, T, 1>> waiting_;
  std::vector<std::vector<T>> host_;
  std::vector<std::size_t> free_;
  std::vector<std::span<std::byte const>> sent_;
  std::vector<std::span<std::byte>> received_;
  tensor<B, T, 1> pieces_, sum_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
