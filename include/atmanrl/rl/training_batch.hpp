#pragma once

/// \file
/// Given rollouts as one ragged batch: every prompt once, its rollouts as children that share its rows.

#include <atmanrl/nn/prefix_tree_batch.hpp>
#include <atmanrl/rl/advantages/rollout_advantage.hpp>
#include <atmanrl/text/split.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A rollout to learn from. Neighbours with equal prompts share its rows.
struct training_rollout {
  std::span<int const> prompt, completion;
  std::span<float const> old_log_p;
  rollout_advantage advantage = 0;
  std::span<float const> reference_log_p = {};  ///< under the reference model, for losses with a KL term
  bool masked = false;                          ///< takes no part in the loss
  std::optional<completion_spans> spans = {};   ///< chain, delimiter and answer, for update edits that ask for them
};

struct micro_batch_options {
  int micro_batch = 0;        ///< rollouts per pass; 0: as many as fit the row budget
  index_t row_budget = 4096;  ///< rows of one pass, bounds the memory for activations
};

namespace detail {

/// Rollouts [first, last) of a list, and the rows that they take.
struct micro_batch {
  std::size_t first, last;
  index_t rows;
};

inline bool same_prompt(training_rollout const& a, training_rollout const& b) {
  return std::equal(a.prompt.begin(), a.prompt.end(), b.prompt.begin(), b.prompt.end());
}

/// As many rollouts together as fit, prompts that are shared counted once.
inline std::vector<micro_batch> split_into_micro_batches(std::span<training_rollout const* const> rollouts,
                                                         micro_batch_options const& options) {
  std::vector<micro_batch> out;
  for (std::size_t first = 0; first < rollouts.size(); first = out.back().last) {
    micro_batch b{first, first, 0};
    while (b.last < rollouts.size() &&
           (options.micro_batch == 0 || b.last - first < std::size_t(options.micro_batch))) {
      training_rollout const& r = *rollouts[b.last];
      bool const shares = b.last > first && same_prompt(r, *rollouts[b.last - 1]);
      index_t const mine = index_t(r.completion.size()) + (shares ? 0 : index_t(r.prompt.size()));
      if (b.last > first && options.micro_batch == 0 && b.rows + mine > options.row_budget) break;
      b.rows += mine;
      ++b.last;
    }
    out.push_back(b);
  }
  return out;
}

/// The scored tokens are all tokens of the rollouts in order; rollout i has the tag i, its prompt `prompt_tag`.
inline prefix_tree_batch lay_out(std::span<training_rollout const* const> rollouts, int prompt_tag = 0) {
  prefix_tree_batch tree;
  for (std::size_t i = 0; i < rollouts.size(); ++i)
    tree.score(tree.root(rollouts[i]->prompt, prefix_tree_batch::shared::with_last, 0, prompt_tag), {},
               rollouts[i]->completion, int(i));
  return tree;
}

}  // namespace detail
}  // namespace atmanrl::inline ATMANRL_ABI
