#pragma once

/// \file
/// The advantage of a rollout as its loss sees it: one number for all its tokens, or one for each of them.

#include <atmanrl/core/error.hpp>

#include <cstddef>
#include <span>

namespace atmanrl::inline ATMANRL_ABI {

class rollout_advantage {
 public:
  rollout_advantage(float of_all = 0) : of_all_(of_all) {}
  /// \param of_tokens  (tokens of the completion), borrowed
  rollout_advantage(std::span<float const> of_tokens) : of_tokens_(of_tokens) {}

  bool per_token() const { return !of_tokens_.empty(); }
  float operator[](std::size_t token) const { return per_token() ? of_tokens_[token] : of_all_; }
  /// The number of a rollout that has one. \throws usage_error where every token has its own
  operator float() const {
    expects<usage_error>(!per_token(),
                         "the advantage has a number for every token, but the policy loss asks for one of the whole "
                         "rollout: it must read r.advantage[token] (see docs/extending.md#losses)");
    return of_all_;
  }
  bool fits(std::size_t tokens) const { return !per_token() || of_tokens_.size() == tokens; }

 private:
  float of_all_ = 0;
  std::span<float const> of_tokens_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
