#pragma once

/// \file
/// Owning array in a backend's memory.

#include <atmanrl/backend/backend.hpp>
#include <atmanrl/backend/memory_ledger.hpp>
#include <atmanrl/core/error.hpp>

#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Row-major array of trivially copyable elements. It keeps its memory when it shrinks, so that buffers that are
/// resized every step stop allocating after the largest step.
template <Backend B, class T, int Rank>
class tensor {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  using shape_type = std::array<index_t, Rank>;
  using view_type = view_on<B, T, Rank>;
  using const_view_type = view_on<B, T const, Rank>;

  tensor() = default;
  /// Elements are left uninitialised.
  tensor(B& backend, shape_type shape) : backend_(&backend) { resize(shape); }
  tensor(tensor&& other) noexcept { swap(other); }
  tensor& operator=(tensor&& other) noexcept {
    tensor taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~tensor() {
    if (data_) backend_->deallocate(data_, capacity_ * sizeof(T));
  }

  static tensor zeros(B& backend, shape_type shape) {
    tensor t(backend, shape);
    t.fill_zero();
    return t;
  }

  /// Changes the extents; the elements are undefined afterwards.
  void resize(shape_type shape) {
    expects<shape_error>(backend_ != nullptr, "a tensor without a backend cannot be resized");
    std::size_t const wanted = elements(shape);
    if (wanted > capacity_) {
      // Freed first, so that old and new memory are never held together; empty if the new cannot be had.
      if (data_) backend_->deallocate(data_, capacity_ * sizeof(T));
      data_ = nullptr;
      capacity_ = 0;
      shape_ = {};
      data_ = static_cast<T*>(backend_->allocate(wanted * sizeof(T)));
      capacity_ = wanted;
    }
    shape_ = shape;
  }
  /// The same for a tensor that may not have a backend yet.
  void resize(B& backend, shape_type shape) {
    if (!backend_) backend_ = &backend;
    resize(shape);
  }

  void fill_zero() {
    if (size()) backend_->fill_zero(data_, std::size_t(size()) * sizeof(T));
  }

  view_type view() { return {data_, shape_}; }
  const_view_type view() const { return {data_, shape_}; }
  const_view_type cview() const { return {data_, shape_}; }
  T* data() { return data_; }
  T const* data() const { return data_; }
  shape_type const& shape() const { return shape_; }
  index_t extent(int axis) const { return shape_[std::size_t(axis)]; }
  index_t size() const { return data_ || backend_ ? cview().size() : 0; }

  /// Copies `from` (as many elements as the tensor has) out of host memory.
  void assign(std::span<T const> from) {
    expects<shape_error>(index_t(from.size()) == size(), "{} values for a tensor of {}", from.size(), shape_);
    backend_->copy_from_host(data_, from.data(), from.size_bytes());
  }
  std::vector<T> to_host() const {
    auto const count = std::size_t(size());
    std::vector<T> out(count);
    if (!out.empty()) backend_->copy_to_host(out.data(), data_, out.size() * sizeof(T));
    return out;
  }

 private:
  static std::size_t elements(shape_type const& shape) {
    constexpr auto limit = std::size_t(std::numeric_limits<index_t>::max()) / sizeof(T);
    std::size_t all = 1;
    for (index_t const e : shape) {
      expects<shape_error>(e >= 0 && (e == 0 || all <= limit / std::size_t(e)), "no tensor can have the extents {}",
                           shape);
      all *= std::size_t(e);
    }
    return all;
  }
  void swap(tensor& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
    std::swap(shape_, other.shape_);
  }

  B* backend_ = nullptr;
  T* data_ = nullptr;
  std::size_t capacity_ = 0;
  shape_type shape_{};
};

}  // namespace atmanrl::inline ATMANRL_ABI
