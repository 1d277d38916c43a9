#pragma once

/// \file
/// Gradients of parameters that leave a backward pass stretch by stretch, as soon as each is complete, so that nobody
/// holds a flat array of all of them (ZeRO-2, Rajbhandari et al., arXiv:1910.02054, section 5).

#include <atmanrl/backend/backend.hpp>
#include <atmanrl/comm/shares.hpp>
#include <atmanrl/nn/parameter_layout.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Who takes them. Stretches are neighbouring elements of the flat gradient; a model says which ones it has, in the
/// order in which it completes them (`gradient_stretches()`, nn/language_model.hpp). A pass asks once for room for each
/// and says once that it is complete; several are open at a time where what is added to one comes early and late, as
/// with an embedding that is also the output layer.
template <Backend B, class T>
class gradient_receiver {
 public:
  virtual ~gradient_receiver() = default;
  /// Memory for the stretch, which the pass adds to. It stays until `complete`.
  virtual view_on<B, T, 1> room(comm::range stretch) = 0;
  /// The pass adds nothing more to it.
  virtual void complete(comm::range stretch) = 0;
};

/// The stretches of a decoder's layout in the order in which a backward pass completes them: the norm before the output
/// layer with that, where it is not the embedding; the layers from the last one down; the model's edit, where it has
/// parameters; the embedding. Of adapters all at once.
inline std::vector<comm::range> gradient_stretches_of(parameter_layout const& layout) {
  parameter_info const* const gain = layout.find(final_gain_name);
  if (!gain) return {{0, std::size_t(layout.size())}};
  comm::range top{std::size_t(gain->offset), 0}, edit, embedding;
  std::vector<comm::range> layers;
  auto const extend = [](comm::range& stretch, parameter_info const& p) {
    if (stretch.count == 0) stretch.first = std::size_t(p.offset);
    stretch.count += std::size_t(p.size());
  };
  for (parameter_info const& p : layout.all()) {
    if (p.layer >= 0) {
      layers.resize(std::max(layers.size(), std::size_t(p.layer) + 1));
      extend(layers[std::size_t(p.layer)], p);
    } else {
      extend(p.role == parameter_role::embedding ? embedding : p.role == parameter_role::edit ? edit : top, p);
    }
  }
  std::vector<comm::range> all{top};
  all.insert(all.end(), layers.rbegin(), layers.rend());
  if (edit.count > 0) all.push_back(edit);
  all.push_back(embedding);
  return all;
}

/// Most elements of a gradient that a backward pass has room for at once: one stretch, and the embedding beside it
/// where it is the output layer as well, which has its gradient first and last.
inline std::size_t most_open_elements(parameter_layout const& layout) {
  auto const stretches = gradient_stretches_of(layout);
  bool const tied = layout.find(final_gain_name) && !layout.find(head_name);
  std::size_t largest = 0;
  for (std::size_t i = 0; i + tied < stretches.size(); ++i) largest = std::max(largest, stretches[i].count);
  return largest + (tied ? stretches.back().count : 0);
}

/// Elements of a flat gradient, from `first` on. Who adds to them knows its offset in the whole.
template <Backend B, class T>
struct gradient_window {
  view_on<B, T, 1> values{};  ///< empty where no gradient is wanted
  index_t first = 0;

  bool empty() const { return values.empty(); }
  T* at(index_t offset) const { return values.data() + (offset - first); }
};

}  // namespace atmanrl::inline ATMANRL_ABI
