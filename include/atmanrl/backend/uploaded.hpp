#pragma once

/// \file
/// Small arrays that the host writes and a backend reads: who sits where, which tokens are wanted.

#include <atmanrl/backend/tensor.hpp>

#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// An array in a backend's memory that the host writes. Values that are there already are not sent again, so a
/// step that repeats sends nothing, and can be recorded (backend/repeated.hpp).
template <Backend B, class T>
class uploaded {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  void assign(B& backend, std::span<T const> values) {
    size_ = index_t(values.size());
    if (values.empty() || is_sent(values)) return;
    sent_.clear();  // what is there is neither, until all has been sent
    values_.resize(backend, {size_});
    values_.assign(values);
    sent_.assign(values.begin(), values.end());
  }
  /// Makes it empty; its values may come back.
  void clear() { size_ = 0; }

  /// For the backend, which writes from now on; the next `assign` sends all.
  view_on<B, T, 1> taken_over() {
    sent_.clear();
    return {values_.data(), {size_}};
  }

  index_t size() const { return size_; }
  view_on<B, T const, 1> cview() const { return {values_.data(), {size_}}; }

 private:
  // By bytes: -0 is not 0, and a NaN is what it is. Padding that differs sends equal values again.
  bool is_sent(std::span<T const> values) const {
    return values.size() == sent_.size() && std::memcmp(values.data(), sent_.data(), values.size_bytes()) == 0;
  }

  tensor<B, T, 1> values_;
  index_t size_ = 0;
  std::vector<T> sent_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
