#pragma once
// What several ranks that share a step send to each other and keep, by the library's own division of the work: leaves
// and slices of comm/shares.hpp, and the tree of comm/leaf_tree.hpp.
#include <atmanrl/comm/leaf_tree.hpp>
#include <atmanrl/comm/traffic.hpp>
#include <atmanrl/optim/dealt_sum.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace atmanrl_bench {

namespace comm = atmanrl::comm;

/// One sum of optim/gradient_sum.hpp over the gradients of `leaves` prompt groups.
class planned_sum {
 public:
  /// \param elements  of a leaf, each of `element_bytes`
  planned_sum(std::size_t leaves, std::size_t elements, int ranks, std::size_t element_bytes = sizeof(float),
              std::size_t alignment = comm::slice_alignment)
      : leaves_(leaves), elements_(elements), bytes_(element_bytes) {
    for (int r = 0; r < ranks; ++r) {
      shares_.push_back(comm::share_of(leaves, ranks, r));
      nodes_.push_back(comm::whole_nodes(leaves, shares_.back()).size());
      slices_.push_back(comm::slice_of(elements, ranks, r, alignment));
      all_nodes_ += nodes_.back();
    }
  }

  int ranks() const { return int(shares_.size()); }
  comm::range share(int rank) const { return shares_[std::size_t(rank)]; }  ///< leaves
  comm::range slice(int rank) const { return slices_[std::size_t(rank)]; }
  std::size_t nodes(int rank) const { return nodes_[std::size_t(rank)]; }  ///< that remain for the exchange
  std::size_t nodes() const { return all_nodes_; }

  /// Bytes of nodes that one rank sends to another.
  double exchanged(int from, int to) const { return double(nodes(from) * slice(to).count * bytes_); }

  /// All that a rank sends and receives, as its communicator counts it: the nodes, and at the beginning 8 bytes of each
  /// rank, its number of leaves.
  comm::traffic volume(int rank) const {
    if (ranks() == 1) return {};
    comm::traffic t;
    std::size_t const mine = slice(rank).count;
    t.exchange = {nodes(rank) * (elements_ - mine) * bytes_, (all_nodes_ - nodes(rank)) * mine * bytes_};
    t.all_gather.sent = t.all_gather.received = 8 * std::size_t(ranks() - 1);
    return t;
  }

  /// What a rank does while it adds its leaves.
  struct adding {
    std::size_t waiting = 0;  ///< most sums that wait at once, each as large as a leaf
    std::size_t added = 0;    ///< leaves and sums that are added to another one
    std::size_t copied = 0;   ///< leaves that begin a sum
  };
  adding adds(int rank) const {
    adding out;
    comm::tree_stack<char> stack(leaves_);
    for (std::size_t leaf = share(rank).first; leaf < share(rank).end(); ++leaf) {
      std::size_t const before = out.added;
      stack.push({leaf, 1}, 0, [&](char, char) { ++out.added; });
      out.copied += out.added == before;
    }
    out.waiting = comm::most_waiting(leaves_, share(rank));
    return out;
  }

 private:
  std::size_t leaves_, elements_, bytes_, all_nodes_ = 0;
  std::vector<comm::range> shares_, slices_;
  std::vector<std::size_t> nodes_;
};

/// One sum of optim/dealt_sum.hpp over as many leaves, handed over in stretches.
class planned_rounds {
 public:
  /// \param stretches  which together are the leaf
  planned_rounds(std::size_t leaves, std::vector<comm::range> stretches, int ranks,
                 std::size_t element_bytes = sizeof(float), std::size_t alignment = comm::slice_alignment)
      : leaves_(leaves), bytes_(element_bytes), ranks_(ranks), stretches_(std::move(stretches)) {
    for (comm::range const& s : stretches_) elements_ += s.count;
    for (int r = 0; r < ranks; ++r) slices_.push_back(comm::slice_of(elements_, ranks, r, alignment));
  }

  /// All that a rank sends and receives of leaves.
  comm::byte_count volume(int rank) const {
    if (ranks_ == 1) return {};
    std::size_t const mine = atmanrl::dealt_leaves(leaves_, ranks_, rank), slice = slices_[std::size_t(rank)].count;
    return {mine * (elements_ - slice) * bytes_, (leaves_ - mine) * slice * bytes_};
  }

  /// Of all rounds and stretches, one after the other: a stretch lies in few slices, so that few ranks receive it.
  template <class Links>
  double seconds(Links const& links) const {
    auto const n = std::size_t(ranks_);
    auto const round = [&](std::size_t present) {
      double all = 0;
      for (comm::range const& s : stretches_)
        all += links.seconds(ranks_, [&](int from, int to) {
          if (std::size_t(from) >= present) return 0.0;
          return double(comm::common(slices_[std::size_t(to)], s).count * bytes_);
        });
      return all;
    };
    std::size_t const rest = leaves_ % n;
    return double(leaves_ / n) * round(n) + (rest > 0 ? round(rest) : 0);
  }

 private:
  std::size_t leaves_, bytes_, elements_ = 0;
  int ranks_;
  std::vector<comm::range> stretches_, slices_;
};

/// Bytes per second of one rank, in each direction.
struct rank_links {
  double inside = 450e9;  ///< to ranks of the same machine: NVLink of an H100 SXM has 900 GB/s in both directions
  double between = 50e9;  ///< to others: a port of 400 Gb/s beside each GPU, as a DGX H100 has
  int machine = 8;        ///< ranks of a machine

  /// Seconds until the last rank has sent and received all. Both links of a rank work at the same time, in both
  /// directions, and nothing else stands in the way.
  /// \param bytes  `double operator()(int from, int to)`
  template <class Bytes>
  double seconds(int ranks, Bytes&& bytes) const {
    struct load {
      double sent[2] = {}, received[2] = {};
    };
    std::vector<load> loads(std::size_t(ranks), load{});
    for (int from = 0; from < ranks; ++from)
      for (int to = 0; to < ranks; ++to) {
        if (from == to) continue;
        int const outside = from / machine != to / machine;
        double const b = bytes(from, to);
        loads[std::size_t(from)].sent[outside] += b;
        loads[std::size_t(to)].received[outside] += b;
      }
    double longest = 0;
    for (load const& l : loads)
      longest =
          std::max({longest, l.sent[0] / inside, l.received[0] / inside, l.sent[1] / between, l.received[1] / between});
    return longest;
  }
};

}  // namespace atmanrl_bench
