#pragma once

/// \file
/// What a model's files say about conversations, as it was read: the template is understood when it is used
/// (text/chat.hpp), so that one that cannot be followed does not keep a model from being opened.

#include <string>
#include <utility>
#include <vector>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

struct chat_source {
  std::string text;     ///< the template in Jinja; empty: the files have none
  std::string origin;   ///< file and field, for errors
  std::string problem;  ///< why the files' template cannot be told, a sentence; empty: it can
  std::vector<std::pair<std::string, std::string>> tokens{};  ///< "bos_token" and the like, with the tokens' texts
};

}  // namespace atmanrl::inline ATMANRL_ABI
