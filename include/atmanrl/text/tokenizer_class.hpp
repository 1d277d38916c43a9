#pragma once

/// \file
/// Classes of transformers' tokenizers that replace the post-processor of tokenizer.json by one of their own
/// (`update_post_processor`), which puts begin-of-text in front where add_bos_token says so. DeepSeek's byte-level
/// models, R1-Distill among them, are of such a class and have a post-processor without begin-of-text. This is what
/// transformers 4 does, with which they were made and from which their GGUF files have add_bos_token; transformers 5
/// reads byte-level files of these classes as their post-processor is.

#include <algorithm>
#include <array>
#include <string_view>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI::detail {

struct tokenizer_class {
  std::string_view name;
  bool adds_bos;         ///< where tokenizer_config.json has no add_bos_token
  std::string_view bos;  ///< where it has no bos_token
};

/// \param name  with or without "Fast" at its end
/// \returns nullptr for a class that leaves the post-processor as it is
inline tokenizer_class const* class_that_adds_bos(std::string_view name) {
  static constexpr std::array<tokenizer_class, 4> all{{{"LlamaTokenizer", true, "<s>"},
                                                       {"CodeLlamaTokenizer", true, "<s>"},
                                                       {"CohereTokenizer", true, "<BOS_TOKEN>"},
                                                       {"GPTNeoXTokenizer", false, "<|endoftext|>"}}};
  if (name.ends_with("Fast")) name.remove_suffix(4);
  auto const found = std::ranges::find(all, name, &tokenizer_class::name);
  return found == all.end() ? nullptr : &*found;
}

}  // namespace atmanrl::inline ATMANRL_ABI::detail
