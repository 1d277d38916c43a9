#pragma once

/// \file
/// The host's part of a decoding step, done where the tokens are: notes what was drawn, ends rows at a stop token or at
/// their limit, and moves the others on by one position, so that the next step is the same call on the same arrays.

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/random.hpp>
#include <atmanrl/ops/attention.hpp>
#include <atmanrl/ops/sample.hpp>

#include <cstdint>

namespace atmanrl::inline ATMANRL_ABI {

/// Where the rows of a batch are that has one row for each sequence, and what each sequence sees.
template <class Space = host_space>
struct row_places {
  view<int, 1, Space> ids;                       ///< (rows) tokens
  view<int, 1, Space> positions;                 ///< (rows) absolute positions
  view<int, 1, Space> cache_rows;                ///< (rows) where keys and values go
  view<attention_sequence, 1, Space> sequences;  ///< (rows) in any order
  view<attention_segment, 1, Space> segments;    ///< a sequence's last one ends with its row and has room after it
};

/// A completion that a row decodes.
struct decoded_row {
  std::uint32_t prompt = 0, rollout = 0;  ///< of its random numbers
  int tokens = 0;                         ///< that it has, so the number of the next one
  int limit = 0;                          ///< its most tokens
  int step = 0;                           ///< where its next token is noted
  int done = 0;                           ///< 1 when it has had its last one
};

/// What one step of decoding has drawn, and what it leaves for the next one.
template <class T, class Space = host_space>
struct decoding_step {
  view<int const, 1, Space> ids;                 ///< (rows) drawn
  view<T const, 1, Space> log_p, entropy;        ///< (rows) of these
  view<int, 2, Space> noted_ids;                 ///< (steps, rows) where steps are noted in turn
  view<T, 2, Space> noted_log_p, noted_entropy;  ///< (steps, rows)
  view<int const, 1, Space> stop_ids;            ///< may be empty
  std::uint64_t seed = 0;                        ///< of random numbers
  std::uint32_t random_step = 0;                 ///< likewise
  view<decoded_row, 1, Space> rows;              ///< (rows)
  row_places<Space> places;
  view<std::uint64_t, 1, Space> shares;  ///< (rows) for the next draw (ops/sample.hpp)
};

namespace kernels {

/// A backend may have it: one that records steps of decoding, for others have no use for it.
template <class B>
struct advance {};

template <>
struct advance<reference_backend> {
  template <class T>
  static void rows(reference_backend&, decoding_step<T> const& s) {
    for (index_t i = 0; i < s.places.sequences.size(); ++i) {
      attention_sequence& sequence = s.places.sequences(i);
      int const r = sequence.batch_row;
      decoded_row& row = s.rows(r);
      s.noted_ids(row.step, r) = s.ids(r);
      s.noted_log_p(row.step, r) = s.log_p(r);
      s.noted_entropy(row.step, r) = s.entropy(r);
      row.step = (row.step + 1) % int(s.noted_ids.extent(0));
      if (row.done) continue;
      row.tokens += 1;
      for (index_t k = 0; k < s.stop_ids.size(); ++k)
        if (s.stop_ids(k) == s.ids(r)) row.done = 1;
      if (row.tokens >= row.limit) row.done = 1;
      if (row.done) {
        sequence.first_position = 0;
        continue;
      }
      s.places.ids(r) = s.ids(r);
      s.places.positions(r) += 1;
      s.places.cache_rows(r) += 1;
      sequence.first_position += 1;
      s.places.segments(sequence.first_segment + sequence.segments - 1).length += 1;
      s.shares(r) = share_of_2_64(uniform(random_key{.seed = s.seed,
                                                     .step = s.random_step,
                                                     .prompt = row.prompt,
                                                     .rollout = row.rollout,
                                                     .position = std::uint32_t(row.tokens)}));
    }
  }
};

}  // namespace kernels

/// A backend by which decoding goes on without the host.
template <class B, class T>
concept HasAdvance = requires(B& backend, decoding_step<T, typename B::memory_space> const& step) {
  kernels::advance<B>::rows(backend, step);
};

/// Takes the step's tokens. A row that has had its last one stays where it is, in a place of its own, and from now on
/// sees its sequence's first key alone, so that attention costs it nothing; its later tokens are noted and mean
/// nothing. `rows`, `places` and `shares` are changed in place.
template <Backend B, class T>
requires HasAdvance<B, T>
void advance_rows(B& backend, decoding_step<T, typename B::memory_space> const& step) {
  index_t const n = step.rows.size();
  expects<shape_error>(
      step.ids.size() == n && step.log_p.size() == n && step.entropy.size() == n && step.shares.size() == n,
      "{} tokens, {} log-probabilities, {} entropies and {} numbers for {} rows", step.ids.size(), step.log_p.size(),
      step.entropy.size(), step.shares.size(), n);
  expects<shape_error>(step.noted_ids.extent(0) > 0 && step.noted_ids.extent(1) == n &&
                           step.noted_log_p.shape() == step.noted_ids.shape() &&
                           step.noted_entropy.shape() == step.noted_ids.shape(),
                       "tokens are noted in {}, log-probabilities in {} and entropies in {} for {} rows",
                       step.noted_ids.shape(), step.noted_log_p.shape(), step.noted_entropy.shape(), n);
  auto const& p = step.places;
  expects<shape_error>(p.ids.size() == n && p.positions.size() == n && p.cache_rows.size() == n &&
                           p.sequences.size() == n && p.segments.size() >= n,
                       "{} ids, {} positions, {} cache rows, {} sequences and {} segments for {} rows", p.ids.size(),
                       p.positions.size(), p.cache_rows.size(), p.sequences.size(), p.segments.size(), n);
  kernels::advance<B>::rows(backend, step);
}

}  // namespace atmanrl::inline ATMANRL_ABI
