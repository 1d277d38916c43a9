#pragma once

/// \file
/// Keys and values of every layer for a forest of sequences. A sequence may continue a parent, whose first positions it
/// sees: a prompt is stored once for all its rollouts, a question once for its four options.
///
/// They are stored as the model's scalars or as bfloat16. Attention reads keys and values from here alone, in training
/// as in sampling, so a 16-bit cache rounds both alike and the first ratio stays exactly 1; gradients pass straight
/// through.

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>
#include <atmanrl/io/model_config.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <string>
#include <variant>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// What keys and values are stored as.
enum class kv_storage {
  full,  ///< the scalar that the model computes in
  bf16,  ///< half of float's memory; for models that compute in float
};

/// One layer's keys and values in one storage type: (capacity, kv_heads, head_dim).
template <Backend B, class K>
struct kv_rows {
  view_on<B, K, 3> keys, values;
};

/// The same in the storage that the cache was made with; `std::visit` hands the kernels the one that it is.
template <Backend B, class T>
using any_kv_rows = std::conditional_t<std::same_as<T, float>, std::variant<kv_rows<B, T>, kv_rows<B, bf16>>,
                                       std::variant<kv_rows<B, T>>>;

/// Owns sequences and their rows. A row is one position of one sequence, in all layers.
template <Backend B, class T>
class kv_cache {
 public:
  /// \param capacity  rows for all sequences together; memory is 2 * layers * capacity * kv_heads * head_dim elements
  /// \param storage   the model's (llama::kv_storage), which refuses another
  kv_cache(B& backend, model_config const& config, index_t capacity, kv_storage storage = kv_storage::full)
      : backend_(&backend),
        layers_(config.layers),
        storage_(storage),
        heads_(config.kv_heads),
        head_dim_(config.head_dim) {
    expects<usage_error>(storage == kv_storage::full || std::same_as<T, float>,
                         "16-bit keys and values are for models that compute in float");
    reset(capacity);
  }

  /// Forgets everything and makes room for `capacity` rows, in the memory that is there where it is enough.
  void reset(index_t capacity) {
    expects<shape_error>(capacity > 0 && capacity < index_t{1} << 31, "a cache of {} rows", capacity);
    std::array<index_t, 3> const shape{layers_ * capacity, heads_, head_dim_};
    memory_use_scope const named(*backend_, memory_use::cache);
    if (storage_ == kv_storage::full) {
      keys_.resize(*backend_, shape);
      values_.resize(*backend_, shape);
    } else {
      half_keys_.resize(*backend_, shape);
      half_values_.resize(*backend_, shape);
    }
    capacity_ = capacity;
    clear();
  }

  /// Bytes that a cache of `capacity` rows will take.
  static std::size_t bytes(model_config const& config, index_t capacity, kv_storage storage = kv_storage::full) {
    return std::size_t(2 * config.layers * capacity * config.kv_heads * config.head_dim) *
           (storage == kv_storage::full ? sizeof(T) : sizeof(bf16));
  }

  /// A sequence that starts at position 0.
  /// \param rows  how many positions it may hold
  int add_sequence(index_t rows) { return add(-1, 0, rows); }

  /// A sequence whose positions [0, visible) are those of `parent`; they must be there when it is first used.
  int add_child(int parent, index_t visible, index_t rows) {
    check(parent);
    expects<shape_error>(
        visible > 0 && visible <= sequences_[std::size_t(parent)].inherited + sequences_[std::size_t(parent)].reserved,
        "a child that sees {} positions of sequence {}, which can hold {}", visible, parent,
        sequences_[std::size_t(parent)].inherited + sequences_[std::size_t(parent)].reserved);
    ++sequences_[std::size_t(parent)].children;
    return add(parent, visible, rows);
  }

  /// Forgets the positions from `length` on.
  void truncate(int id, index_t length) {
    check(id);
    sequence& s = sequences_[std::size_t(id)];
    expects<shape_error>(length >= s.inherited && length <= s.inherited + s.used,
                         "sequence {} holds positions [{}, {}), it cannot be cut to {}", id, s.inherited,
                         s.inherited + s.used, length);
    for (std::size_t i = 0; s.children > 0 && i < sequences_.size(); ++i)
      expects<shape_error>(!sequences_[i].alive || sequences_[i].parent != id || sequences_[i].inherited <= length,
                           "sequence {} cannot be cut to {} positions: its child {} sees {}", id, length, i,
                           sequences_[i].inherited);
    s.used = length - s.inherited;
  }

  /// Gives the sequence's rows back; its children must be gone.
  void release(int id) {
    check(id);
    sequence& s = sequences_[std::size_t(id)];
    expects<shape_error>(s.children == 0, "sequence {} still has {} children", id, s.children);
    if (s.parent >= 0) --sequences_[std::size_t(s.parent)].children;
    s.alive = false;
    give_back({s.first_row, s.reserved});
    if (std::none_of(sequences_.begin(), sequences_.end(), [](sequence const& x) { return x.alive; })) clear();
  }

  /// Forgets all sequences and with which weights and adapters they were computed.
  void clear() {
    sequences_.clear();
    free_.assign(1, {0, capacity_});
    owner_ = nullptr;
  }

  /// Number of positions that the sequence holds, the inherited ones included.
  index_t length(int id) const {
    check(id);
    return sequences_[std::size_t(id)].inherited + sequences_[std::size_t(id)].used;
  }
  index_t capacity() const { return capacity_; }
  index_t layers() const { return layers_; }
  kv_storage storage() const { return storage_; }

  struct sequence {
    int parent;         ///< -1 for a root
    index_t inherited;  ///< positions [0, inherited) belong to ancestors
    index_t first_row;  ///< rows [first_row, first_row + used) of a layer hold the positions from `inherited` on
    index_t reserved, used;
    int children;
    bool alive;
  };
  sequence const& at(int id) const {
    check(id);
    return sequences_[std::size_t(id)];
  }
  /// \throws shape_error unless `rows` more positions fit
  void check_room(int id, index_t rows) const {
    sequence const& s = at(id);
    expects<shape_error>(s.used + rows <= s.reserved,
                         "sequence {} has room for {} positions, {} are there and {} more were added", id, s.reserved,
                         s.used, rows);
  }
  /// Marks `rows` more positions as present; the forward pass has written them.
  void extend(int id, index_t rows) {
    check_room(id, rows);
    sequences_[std::size_t(id)].used += rows;
  }

  any_kv_rows<B, T> rows_of(index_t layer) {
    auto const part = [&](auto& t) { return t.view().rows(layer * capacity_, capacity_); };
    if constexpr (std::same_as<T, float>)
      if (storage_ == kv_storage::bf16) return kv_rows<B, bf16>{part(half_keys_), part(half_values_)};
    return kv_rows<B, T>{part(keys_), part(values_)};
  }

  /// A cache belongs to one state of one model, with its adapters or without: mixing keys of different weights is an
  /// error, not a result.
  void bind(void const* model, std::uint64_t version, bool adapted = false, kv_storage storage = kv_storage::full) {
    expects<shape_error>(
        storage == storage_,
        "the cache stores {}, but the model's keys and values are {}: make it with the model's new_cache",
        storage_ == kv_storage::full ? "full scalars" : "bf16", storage == kv_storage::full ? "full scalars" : "bf16");
    if (!owner_) {
      owner_ = model;
      version_ = version;
      adapted_ = adapted;
    }
    expects<shape_error>(
        owner_ == model && version_ == version,
        "the cache was filled with version {} of the weights, now version {} is in use: clear() it first", version_,
        version);
    expects<shape_error>(adapted_ == adapted,
                         "the cache was filled with the adapters {}, now they are {}: clear() it first",
                         adapted_ ? "on" : "off", adapted ? "on" : "off");
  }

 private:
  struct range {
    index_t first, count;
  };

  void check(int id) const {
    expects<shape_error>(id >= 0 && std::size_t(id) < sequences_.size() && sequences_[std::size_t(id)].alive,
                         "the cache has no sequence {}", id);
  }

  int add(int parent, index_t inherited, index_t rows) {
    expects<shape_error>(rows > 0, "a sequence of {} rows", rows);
    auto const fit = std::find_if(free_.begin(), free_.end(), [&](range r) { return r.count >= rows; });
    if (fit == free_.end()) {
      index_t largest = 0;
      for (range r : free_) largest = std::max(largest, r.count);
      fail<usage_error>("the cache has {} rows, of which {} are free in one piece, but a sequence of {} is needed",
                        capacity_, largest, rows);
    }
    index_t const first = fit->first;
    *fit = {fit->first + rows, fit->count - rows};
    if (fit->count == 0) free_.erase(fit);
    sequences_.push_back({parent, inherited, first, rows, 0, 0, true});
    return int(sequences_.size()) - 1;
  }

  void give_back(range r) {
    auto const next = std::find_if(free_.begin(), free_.end(), [&](range x) { return x.first > r.first; });
    auto at = free_.insert(next, r);
    if (auto after = at + 1; after != free_.end() && at->first + at->count == after->first) {
      at->count += after->count;
      free_.erase(after);
    }
    if (at != free_.begin() && (at - 1)->first + (at - 1)->count == at->first) {
      (at - 1)->count += at->count;
      free_.erase(at);
    }
  }

  B* backend_;
  index_t layers_, capacity_ = 0;
  kv_storage storage_;
  index_t heads_, head_dim_;
  tensor<B, T, 3> keys_, values_;  // (layers * capacity, kv_heads, head_dim); without memory for kv_storage::bf16
  tensor<B, bf16, 3> half_keys_, half_values_;  // the same the other way round
  std::vector<sequence> sequences_;
  std::vector<range> free_;  // ascending, not touching
  void const* owner_ = nullptr;
  std::uint64_t version_ = 0;
  bool adapted_ = false;
};

}  // namespace atmanrl::inline ATMANRL_ABI
