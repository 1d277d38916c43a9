#pragma once

/// \file
/// Non-owning, row-major, contiguous array views that know in which memory they live.

#include <atmanrl/core/config.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI {

/// Signed, so that differences and downward loops mean what they say.
using index_t = std::ptrdiff_t;

struct host_space {};    ///< memory that the CPU may read
struct device_space {};  ///< memory that only kernels may read

/// `Rank` extents in memory order (the last one is contiguous) over memory that somebody else owns.
template <class T, int Rank, class Space = host_space>
class view {
 public:
  using value_type = std::remove_const_t<T>;
  using shape_type = std::array<index_t, Rank>;

  /// An empty view; ops take it to mean "this output is not wanted".
  constexpr view() = default;
  ATMANRL_HOST_DEVICE constexpr view(T* data, shape_type shape) : data_(data), shape_(shape) {}
  constexpr view(std::span<T> all) requires(Rank == 1 && std::is_same_v<Space, host_space>)
      : data_(all.data()), shape_{index_t(all.size())} {}

  ATMANRL_HOST_DEVICE constexpr operator view<T const, Rank, Space>() const requires(!std::is_const_v<T>) {
    return {data_, shape_};
  }

  ATMANRL_HOST_DEVICE constexpr index_t extent(int axis) const { return shape_[std::size_t(axis)]; }
  ATMANRL_HOST_DEVICE constexpr shape_type const& shape() const { return shape_; }
  ATMANRL_HOST_DEVICE constexpr T* data() const { return data_; }
  ATMANRL_HOST_DEVICE constexpr bool empty() const { return size() == 0; }
  ATMANRL_HOST_DEVICE constexpr index_t size() const {
    index_t all = 1;
    for (index_t const e : shape_) all *= e;
    return all;
  }

  /// Element at the given indices; not checked.
  template <class... I>
  requires(sizeof...(I) == Rank) ATMANRL_HOST_DEVICE constexpr T& operator()(I... at) const {
    index_t flat = 0;
    int axis = 0;
    ((flat = flat * shape_[std::size_t(axis++)] + index_t(at)), ...);
    return data_[flat];
  }

  /// Pointer to the first element of row `i` of the first axis.
  ATMANRL_HOST_DEVICE constexpr T* row(index_t i) const { return data_ + i * row_size(); }
  ATMANRL_HOST_DEVICE constexpr index_t row_size() const {
    index_t all = 1;
    for (int axis = 1; axis < Rank; ++axis) all *= shape_[std::size_t(axis)];
    return all;
  }

  /// Rows [first, first + count) of the first axis.
  ATMANRL_HOST_DEVICE constexpr view rows(index_t first, index_t count) const {
    shape_type s = shape_;
    s[0] = count;
    return {data_ + first * row_size(), s};
  }

  /// The same elements under other extents of equal product; not checked.
  template <int R>
  ATMANRL_HOST_DEVICE constexpr view<T, R, Space> reshaped(std::array<index_t, R> shape) const {
    return {data_, shape};
  }

 private:
  T* data_ = nullptr;
  shape_type shape_{};
};

}  // namespace atmanrl::inline ATMANRL_ABI
