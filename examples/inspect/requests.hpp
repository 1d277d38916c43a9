#pragma once

/// \file
/// What the verbs that need a model are asked for, and the four programs that carry it out: one translation unit for
/// each backend and type of weights, so that they compile side by side.

#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/saliency/mask_options.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace inspect {

struct logprobs_request {
  std::vector<int> ids;
};

struct generate_request {
  std::vector<int> ids;
  std::string source;                           ///< the option that the ids come from, for complaints
  std::optional<atmanrl::tokenizer> tokenizer;  ///< for the text of the new tokens; without it there is none
  bool chat = false;                            ///< the ids are a conversation
  int max_new_tokens = 0;
  double temperature = 0, top_p = 1;
  int top_k = 0;
  std::uint64_t seed = 0;
};

struct gradient_request {
  std::vector<int> ids;
  std::filesystem::path out;
};

struct mask_request {
  std::vector<int> prompt, cot, delimiter, answer;
  atmanrl::mask_options options;
  bool gradient = false;
};

using any_loss = std::variant<atmanrl::losses::grpo>;
using any_advantage = std::variant<atmanrl::advantages::mean_centered>;

struct grpo_request {
  struct completion {
    std::vector<int> ids;
    std::vector<float> log_probs;
    float reward;
  };
  struct group {
    std::vector<int> prompt;
    std::vector<completion> completions;
  };
  std::vector<group> groups;
  any_loss loss;
  any_advantage advantage;
  double temperature = 1;
  int micro_batch = 0;
  std::filesystem::path out;  ///< empty: the gradient is not written
};

/// A model's path and what is wanted of it.
struct request {
  std::filesystem::path model;
  int threads = 0;
  std::variant<logprobs_request, generate_request, gradient_request, mask_request, grpo_request> what;
};

/// Carry a request out and return the line of JSON to print. Files that it writes appear whole and last.
std::string run_cpu_f32(request const& r);
std::string run_cpu_bf16(request const& r);
std::string run_reference_f32(request const& r);
std::string run_reference_bf16(request const& r);

}  // namespace inspect
