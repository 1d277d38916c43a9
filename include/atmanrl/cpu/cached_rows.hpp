#pragma once

/// \file
/// Keys or values of one layer as the cache stores them, floats or bfloat16. The storage is looked at once per block of
/// rows and not in the type, so that the attention kernels, one per edit, are compiled once for both.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/scalar.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/simd.hpp>

#include <algorithm>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

class cached_rows {
 public:
  /// (cache rows, kv_heads, head_dim)
  cached_rows(view<float const, 3> rows) : floats_(rows.data()), row_size_(rows.row_size()), dim_(rows.extent(2)) {}
  cached_rows(view<bf16 const, 3> rows) : halves_(rows.data()), row_size_(rows.row_size()), dim_(rows.extent(2)) {}

  struct rows {
    float const* data;
    index_t stride;  ///< floats from row to row
  };

  /// Whether a head's rows are floats and fill whole panels.
  bool in_place(index_t padded) const { return floats_ && dim_ == padded; }

  /// f(component 0 of the head in row 0, numbers from row to row) for numbers as they are stored.
  template <class F>
  void visit(index_t head, F const& f) const {
    if (floats_)
      f(floats_ + at(0, head), row_size_);
    else
      f(halves_ + at(0, head), row_size_);
  }

  /// Asks for a head's part of `count` rows that will be read soon: it is too short for the processor to foresee the
  /// next.
  void prefetch(int const* rows, index_t count, index_t head) const {
    constexpr index_t line = 64;
    visit(head, [&](auto const* numbers, index_t stride) {
      for (index_t r = 0; r < count; ++r)
        for (index_t c = 0; c < dim_; c += line / index_t(sizeof *numbers))
          __builtin_prefetch(numbers + rows[r] * stride + c);
    });
  }

  /// `count` rows of a head from `first` on, filled up to `padded` floats with zeros: where they lie, or in `scratch`.
  rows as_panels(index_t first, index_t head, index_t count, index_t padded, float* scratch) const {
    if (in_place(padded)) return {floats_ + at(first, head), row_size_};
    for (index_t r = 0; r < count; ++r) {
      float* const to = scratch + r * padded;
      if (floats_)
        std::copy_n(floats_ + at(first + r, head), dim_, to);
      else
        widen(halves_ + at(first + r, head), to);
      std::fill(to + dim_, to + padded, 0.0f);
    }
    return {scratch, padded};
  }

 private:
  index_t at(index_t row, index_t head) const { return row * row_size_ + head * dim_; }
  void widen(bf16 const* from, float* to) const {
    for_each_vector(dim_, [&](index_t i, index_t n) { simd::store_first(to + i, simd::load_first(from + i, n), n); });
  }

  float const* floats_ = nullptr;
  bf16 const* halves_ = nullptr;
  index_t row_size_, dim_;
};

/// A row into the cache, rounded where it is stored as bfloat16.
inline void store_row(float const* from, index_t count, float* to) { std::copy_n(from, count, to); }
inline void store_row(float const* from, index_t count, bf16* to) {
  for_each_vector(count, [&](index_t i, index_t n) { simd::store_first(to + i, simd::load_first(from + i, n), n); });
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
