#pragma once
// Edits of scores that the tests of the CUDA attention kernels use, beside those of attention/.
#include <atmanrl/ops/attention.hpp>

namespace atmanrl_test {

using namespace atmanrl;

/// Edits every score, depends on everything a site holds, and differentiates itself.
struct wavy {
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T score, score_site at) const {
    using std::tanh;
    return tanh(score * 0.5f) * (1.0f + 0.25f * float(at.head % 3)) +
           score * (0.125f * float((at.query + at.key + at.sequence + at.layer) % 4));
  }
};

/// Looks at the row's smallest score.
struct shifted {
  static constexpr bool needs_row_min = true;
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T score, score_site at, T row_min) const {
    return at.key % 3 == 1 ? (score - row_min) * 0.1f + row_min : score;
  }
};

/// The same on half of the score, in a window of nine keys: those before it are no scores of the row.
struct shifted_in_window : shifted {
  ATMANRL_HOST_DEVICE static bool hidden(score_site at) { return at.query - at.key >= 9; }
  template <class T>
  ATMANRL_HOST_DEVICE T for_row_min(T score, score_site at) const {
    return hidden(at) ? T(std::numeric_limits<float>::infinity()) : score * 0.5f;
  }
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T score, score_site at, T row_min) const {
    return hidden(at) ? T(-std::numeric_limits<float>::infinity()) : shifted::operator()(score * 0.5f, at, row_min);
  }
};

/// Parameters that all sequences and all heads have in common: by the distance of query and key.
struct shared_factor {
  ATMANRL_HOST_DEVICE index_t parameter(score_site at) const { return at.query - at.key < 5 ? at.query - at.key : -1; }
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T score, T value, score_site) const {
    return score * value + value * value;
  }
};

/// Three parameters, 128 apart.
struct every_third : shared_factor {
  ATMANRL_HOST_DEVICE index_t parameter(score_site at) const { return 128 * ((at.query - at.key) % 3); }
};

/// The same as shared_factor for each sequence (tags 0 to 6) by itself, so that keys still share parameters.
struct factor_of_sequence : shared_factor {
  static constexpr bool separate_sequences = true;
  ATMANRL_HOST_DEVICE index_t parameter(score_site at) const {
    index_t const own = shared_factor::parameter(at);
    return own < 0 || at.sequence < 0 ? -1 : own + 5 * at.sequence;
  }
};

/// The last four keys of each query by themselves, for sequences of at most 100 positions with tags from 0 on. It names
/// a range that begins before the first key, and knows nothing of sites that are not there.
struct last_four {
  static constexpr bool separate_sequences = true, separate_keys = true, consecutive_parameters = true;
  static constexpr index_t per_sequence = 400;
  ATMANRL_HOST_DEVICE key_range keys(score_site at) const { return {at.query - 3, at.query + 1}; }
  ATMANRL_HOST_DEVICE index_t parameter(score_site at) const {
    if (at.query < 0 || at.key < 0 || at.key > at.query) return index_t{1} << 40;
    int const first = at.query < 3 ? 0 : at.query - 3;
    return at.key < first ? -1 : at.sequence * per_sequence + 4 * at.query + at.key - first;
  }
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T score, T value, score_site) const {
    return score * value + value * value;
  }
};

}  // namespace atmanrl_test
