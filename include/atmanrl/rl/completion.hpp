#pragma once

/// \file
/// What sampling is asked for and what it gives, and the list of completions while their tokens come in.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/random.hpp>
#include <atmanrl/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

struct generate_options {
  int group_size = 1;  ///< completions per prompt
  int max_new_tokens = 256;
  double temperature = 1;  ///< 0: log-probabilities are those of temperature 1
  std::vector<int> stop_ids;
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t first_prompt =
      0;  ///< number of the first prompt within the step, for prompts that are split into calls
  /// After every decoding step, or after every sixteenth where a backend records them; may be empty.
  std::function<void(int finished, int all, index_t tokens)> on_progress;

  double scored_temperature() const { return temperature == 0 ? 1 : temperature; }
};

struct completion {
  std::vector<int> ids;          ///< the stop token included when there is one
  std::vector<float> log_probs;  ///< of logits / temperature
  std::vector<float> entropies;  ///< nats
  bool truncated = false;

  static constexpr auto fields() {
    return std::tuple(&completion::ids, &completion::log_probs, &completion::entropies, &completion::truncated);
  }
};

namespace detail {

/// A completion that is not finished.
struct open_rollout {
  std::size_t prompt;
  int member;
  int sequence;           ///< of the kv_cache
  index_t prompt_tokens;  ///< so the position of its first token
  index_t limit;          ///< its most tokens
};

/// Completions of each prompt, while their tokens come in.
class growing_completions {
 public:
  growing_completions(generate_options const& options, std::size_t prompts)
      : options_(&options), all_(prompts, std::vector<completion>(std::size_t(options.group_size))) {}

  completion& of(open_rollout const& r) { return all_[r.prompt][std::size_t(r.member)]; }
  /// What the random number of its next token is for.
  random_key next_key(open_rollout const& r) {
    return {options_->seed, options_->step, options_->first_prompt + std::uint32_t(r.prompt), std::uint32_t(r.member),
            std::uint32_t(of(r).ids.size())};
  }

  /// The rollout's next token. \returns whether it is the last one
  /// \throws numeric_error where its log-probability is not finite
  bool add(open_rollout const& r, int id, double log_p, double entropy) {
    completion& c = of(r);
    expects<numeric_error>(std::isfinite(log_p), "prompt {}, rollout {}: the log-probability of token {} is {}",
                           options_->first_prompt + r.prompt, r.member, c.ids.size(), log_p);
    c.ids.push_back(id);
    c.log_probs.push_back(float(log_p));
    c.entropies.push_back(float(entropy));
    ++tokens_;
    bool const stopped =
        std::find(options_->stop_ids.begin(), options_->stop_ids.end(), id) != options_->stop_ids.end();
    c.truncated = !stopped && index_t(c.ids.size()) >= r.limit;
    finished_ += stopped || c.truncated;
    return stopped || c.truncated;
  }

  void report_progress() const {
    if (options_->on_progress) options_->on_progress(finished_, int(all_.size()) * options_->group_size, tokens_);
  }
  std::vector<std::vector<completion>> take() { return std::move(all_); }

 private:
  generate_options const* options_;
  std::vector<std::vector<completion>> all_;
  int finished_ = 0;
  index_t tokens_ = 0;
};

}  // namespace detail
}  // namespace atmanrl::inline ATMANRL_ABI
