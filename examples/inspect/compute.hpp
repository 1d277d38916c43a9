#pragma once

/// \file
/// What can be asked of a loaded model and what it gives back, as plain values; and the four programs that do it, one
/// translation unit for each backend and type of weights, so that they compile side by side and without JSON.

#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/saliency/mask_options.hpp>

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {  // where the library has it
class model_file;
}

namespace inspect {

struct logprobs_request {
  std::vector<int> ids;
};
struct logprobs_result {
  std::vector<float> log_probs;  ///< log p(id[i+1] | id[0..i])
  std::vector<int> argmax;       ///< after id[0..i]; as many
};

struct generate_request {
  std::vector<int> ids, stop_ids;
  int max_new_tokens = 0;
  double temperature = 0, top_p = 1;
  int top_k = 0;
  std::uint64_t seed = 0;
};
struct generate_result {
  std::vector<int> ids;  ///< new tokens, the stop token included
  std::vector<float> log_probs;
};

struct gradient_request {
  std::vector<int> ids;
};
struct gradient_result {
  double loss, norm;
  std::vector<float> gradient;  ///< flat, in the order of the model's parameter_layout
};

struct mask_request {
  std::vector<int> prompt, cot, delimiter, answer;
  atmanrl::mask_options options;
  bool gradient = false;
};
struct saliency_of_mask {
  std::vector<float> tokens;
  double re_enabled, as_printed;
};
struct mask_outcome {
  double ce_unmasked, ce_start, ce_end;
  std::vector<float> mask;
  std::optional<saliency_of_mask> saliency;  ///< nothing for a mask that starts at 0
  std::vector<float> gradient;               ///< at the start value; empty when not asked for
};

struct grpo_request {
  struct completion {
    std::vector<int> ids;
    std::vector<float> log_probs;
    std::vector<float> rewards;              ///< one per component
    std::vector<float> reference_log_probs;  ///< empty without a KL term
    bool masked = false;
  };
  struct group {
    std::vector<int> prompt;
    std::vector<completion> completions;
  };
  std::vector<group> groups;
  std::vector<float> reward_weights;  ///< one per component
  atmanrl::losses::any loss;
  atmanrl::advantages::any advantage;
  bool advantage_looks_beyond_group = false;
  double temperature = 1, entropy_bonus = 0;
  int micro_batch = 0;         ///< 0: as many as fit
  std::size_t max_tokens = 0;  ///< 0: the longest completion
};
struct grpo_result {
  std::vector<float> advantages;                 ///< per completion
  std::vector<std::vector<double>> ratios;       ///< per completion and token
  std::vector<std::vector<float>> token_losses;  ///< per completion and token, before averaging
  double loss, gradient_norm;
  std::optional<double> kl;     ///< mean over tokens
  std::vector<float> gradient;  ///< flat, in the order of the model's parameter_layout
};

using request = std::variant<logprobs_request, generate_request, gradient_request, mask_request, grpo_request>;
using result = std::variant<logprobs_result, generate_result, gradient_result, mask_outcome, grpo_result>;

/// Loads the weights and carries the request out; the result is of the same place in its variant.
result compute_cpu(atmanrl::model_file const& file, int threads, bool bf16, request const& what);
result compute_reference_f32(atmanrl::model_file const& file, request const& what);
result compute_reference_bf16(atmanrl::model_file const& file, request const& what);

}  // namespace inspect
