#pragma once

/// \file
/// Drawn tokens with their log-probabilities and entropies in one piece of a backend's memory, so that they leave it in
/// one copy.

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/backend/uploaded.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::detail {

/// (steps, rows) of each.
template <Backend B, class T>
class drawn_tokens {
 public:
  void resize(B& backend, index_t steps, index_t rows) {
    steps_ = steps, rows_ = rows;
    memory_.resize(backend, {numbers() * index_t(2 * sizeof(T) + sizeof(int))});
  }
  void fill_zero() { memory_.fill_zero(); }

  view_on<B, T, 2> log_p() { return part<T>(0); }
  view_on<B, T, 2> entropy() { return part<T>(numbers() * index_t(sizeof(T))); }
  view_on<B, int, 2> ids() { return part<int>(2 * numbers() * index_t(sizeof(T))); }
  // Of one step.
  view_on<B, T, 1> log_p_of_rows() { return {log_p().data(), {rows_}}; }
  view_on<B, T, 1> entropy_of_rows() { return {entropy().data(), {rows_}}; }
  view_on<B, int, 1> ids_of_rows() { return {ids().data(), {rows_}}; }

  struct on_host {
    std::vector<T> log_p, entropy;  ///< (steps, rows), as one list
    std::vector<int> ids;
  };
  /// Waits once.
  on_host to_host() const {
    std::size_t const n = std::size_t(numbers());
    on_host all{std::vector<T>(n), std::vector<T>(n), std::vector<int>(n)};
    auto const bytes = memory_.to_host();
    std::memcpy(all.log_p.data(), bytes.data(), n * sizeof(T));
    std::memcpy(all.entropy.data(), bytes.data() + n * sizeof(T), n * sizeof(T));
    std::memcpy(all.ids.data(), bytes.data() + 2 * n * sizeof(T), n * sizeof(int));
    return all;
  }

 private:
  index_t numbers() const { return steps_ * rows_; }
  template <class U>
  view_on<B, U, 2> part(index_t offset) {
    return {reinterpret_cast<U*>(memory_.data() + offset), {steps_, rows_}};
  }

  tensor<B, std::byte, 1> memory_;  // first what is largest, so that each is aligned
  index_t steps_ = 0, rows_ = 0;
};

/// What drawing tokens takes; all but the logits have one element per rollout.
template <Backend B, class T>
struct drawing_space {
  tensor<B, T, 2> logits;  ///< (rows, vocabulary)
  uploaded<B, int> rows;   ///< of logits
  tensor<B, std::uint64_t, 1> shares;
  drawn_tokens<B, T> drawn;
};

}  // namespace atmanrl::inline ATMANRL_ABI::detail
