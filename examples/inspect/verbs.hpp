#pragma once

/// \file
/// The verbs as functions from checked options to the text that is printed. Whatever is wrong is thrown as one sentence
/// before anything is written.

#include "../backend_options.hpp"
#include "compute.hpp"

#include <atmanrl/text/chat_formats.hpp>

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace inspect {

/// What every verb takes. Verbs without weights have no use for the backend and the type.
struct common_options : backend_options {
  std::string dtype = "f32";
  std::string model, tokenizer;  ///< empty tokenizer: the one in or beside the model
  atmanrl::chat_options chat;    ///< of the verbs with conversations
};

struct generate_options {
  std::optional<std::string> ids, prompt, chat;  ///< exactly one of them
  std::optional<std::string> system;             ///< for chat
  bool special = false;                          ///< for prompt
  generate_request request;                      ///< all but the ids
};

/// Lists of ids as they were written.
struct mask_ids {
  std::string prompt, cot, delimiter, answer;
};

// text_verbs.cpp
std::string tokenize(common_options const& c, std::string_view text, bool special);
std::string detokenize(common_options const& c, std::string const& ids);
std::string chat(common_options const& c, std::string const& user, std::optional<std::string> const& system);
std::string answer(std::string_view lines, bool letters);

/// The prompt that the options describe.
struct prepared_prompt {
  std::vector<int> ids;
  std::string option;  ///< where it comes from
  /// Why the model's own tokenizer cannot be read, where ids were given, which need none; empty: it can, or there is
  /// none.
  std::string unreadable;
  /// Both empty where there is no tokenizer, or none that can be read.
  std::function<std::string(std::vector<int> const&)> decode;
  std::function<std::vector<int>(std::span<int const>)> stop_ids;  ///< of the model's own, all that end what it writes
};
prepared_prompt prepare_prompt(common_options const& c, generate_options const& o);

// model_verbs.cpp
std::string logprobs(common_options const& c, std::string const& ids);
std::string generate(common_options const& c, generate_options const& o);
std::string gradient(common_options const& c, std::string const& ids, std::filesystem::path const& out);
std::string mask(common_options const& c, mask_ids const& ids, atmanrl::mask_options const& options, bool gradient);
/// \param out  where the gradient goes; empty: nowhere
std::string grpo(common_options const& c, std::string_view input, std::filesystem::path const& out);

}  // namespace inspect
