#pragma once

/// \file
/// Conversations as token ids. The control tokens come from here by id; the text of a message is encoded plainly, so
/// that a "<|eot_id|>" typed by a user stays text and cannot end a turn. (The Jinja templates of the models render one
/// string and parse it whole; for text without control tokens the ids are the same.)

#include <atmanrl/core/error.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>
#include <atmanrl/text/utf8.hpp>

#include <algorithm>
#include <initializer_list>

namespace atmanrl {

/// One turn. `role` is "system", "user" or "assistant".
struct chat_message {
  std::string role, content;
};

enum class chat_format {
  plain,   ///< a base model: contents one after another, an empty line between them, nothing else
  llama3,  ///< Llama 3.1 to 3.3
  chatml   ///< SmolLM2, Qwen2 and others
};

/// The format whose control tokens the vocabulary has.
template <Tokenizer T>
chat_format detect_chat_format(T const& tokenizer) {
  auto const has = [&](std::initializer_list<std::string_view> names) {
    return std::ranges::all_of(names, [&](std::string_view name) { return tokenizer.token_id(name).has_value(); });
  };
  if (has({"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"})) return chat_format::llama3;
  if (has({"<|im_start|>", "<|im_end|>"})) return chat_format::chatml;
  return chat_format::plain;
}

namespace detail {

template <Tokenizer T>
int required_token(T const& tokenizer, std::string_view name) {
  auto const id = tokenizer.token_id(name);
  expects<usage_error>(id.has_value(), "this chat format needs the token {}, which the tokenizer does not have", name);
  return *id;
}

/// Removes what Python's str.strip removes, which is what a template's `trim` means: White_Space and U+001C to U+001F.
inline std::string_view trim(std::string_view text) {
  auto const blank = [](char32_t c) { return is_unicode_space(c) || (c >= 0x1c && c <= 0x1f); };
  while (!text.empty()) {
    utf8_unit const front = next_utf8(text);
    if (front.kind != utf8_unit::state::valid || !blank(front.code)) break;
    text.remove_prefix(front.length);
  }
  while (!text.empty()) {
    std::size_t begin = text.size() - 1;
    while (begin > 0 && text.size() - begin < 4 && (std::uint8_t(text[begin]) & 0xc0) == 0x80) --begin;
    utf8_unit const back = next_utf8(text.substr(begin));
    if (back.kind != utf8_unit::state::valid || !blank(back.code)) break;
    text = text.substr(0, begin);
  }
  return text;
}

/// Ids of control tokens and of the text between them.
template <Tokenizer T>
class chat_writer {
 public:
  explicit chat_writer(T const& tokenizer) : tokenizer_(tokenizer) {}

  void token(std::string_view name) { token(required_token(tokenizer_, name)); }
  void token(int id) { ids_.push_back(id); }
  void text(std::string_view plain) {
    auto const ids = tokenizer_.encode(plain);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }
  std::vector<int> take() { return std::move(ids_); }

 private:
  T const& tokenizer_;
  std::vector<int> ids_;
};

template <Tokenizer T>
std::vector<int> encode_llama3_chat(T const& tokenizer, std::span<chat_message const> messages,
                                    bool add_generation_prompt) {
  chat_writer<T> out(tokenizer);
  auto const header = [&](std::string_view role) {
    out.token("<|start_header_id|>");
    out.text(role);
    out.token("<|end_header_id|>");
  };
  out.token("<|begin_of_text|>");
  // The date is pinned: the template's default where it cannot ask a clock, and the same ids every day.
  std::string system = "\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
  if (messages.front().role == "system") {
    system += trim(messages.front().content);
    messages = messages.subspan(1);
  }
  header("system");
  out.text(system);
  out.token("<|eot_id|>");
  for (chat_message const& m : messages) {
    header(m.role);
    out.text(std::string("\n\n").append(trim(m.content)));
    out.token("<|eot_id|>");
  }
  if (add_generation_prompt) {
    header("assistant");
    out.text("\n\n");
  }
  return out.take();
}

template <Tokenizer T>
std::vector<int> encode_chatml(T const& tokenizer, std::span<chat_message const> messages, bool add_generation_prompt) {
  chat_writer<T> out(tokenizer);
  if (tokenizer.bos() >= 0) out.token(tokenizer.bos());
  auto const turn = [&](std::string_view role, std::string_view content) {
    out.token("<|im_start|>");
    out.text(std::string(role).append("\n").append(content));
    out.token("<|im_end|>");
    out.text("\n");
  };
  if (messages.front().role != "system")
    turn("system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
  for (chat_message const& m : messages) turn(m.role, m.content);
  if (add_generation_prompt) {
    out.token("<|im_start|>");
    out.text("assistant\n");
  }
  return out.take();
}

}  // namespace detail

/// Token ids of a conversation, with exactly one begin-of-text token where the model has one.
///  - `llama3`: as the template of Llama-3.2-Instruct renders it: always a system header with the knowledge and the
///  pinned
///    date, contents trimmed.
///  - `chatml`: as the template of SmolLM2-Instruct renders it, with that model's system message where none is given;
///    for another model give one.
/// \param add_generation_prompt  ends with the opening of the assistant's turn (no meaning for `plain`)
/// \throws usage_error for no messages, an unknown role, or a tokenizer without the format's control tokens
template <Tokenizer T>
std::vector<int> encode_chat(T const& tokenizer, chat_format format, std::span<chat_message const> messages,
                             bool add_generation_prompt = true) {
  expects<usage_error>(!messages.empty(), "a chat needs at least one message");
  for (chat_message const& m : messages)
    expects<usage_error>(m.role == "system" || m.role == "user" || m.role == "assistant",
                         "the role \"{}\" is none of system, user and assistant", m.role);
  if (format == chat_format::llama3) return detail::encode_llama3_chat(tokenizer, messages, add_generation_prompt);
  if (format == chat_format::chatml) return detail::encode_chatml(tokenizer, messages, add_generation_prompt);
  detail::chat_writer<T> out(tokenizer);
  if (tokenizer.bos() >= 0) out.token(tokenizer.bos());
  std::string text;
  for (chat_message const& m : messages) text.append(text.empty() ? "" : "\n\n").append(m.content);
  out.text(text);
  return out.take();
}

/// The tokens that end an assistant's turn (or, for `plain`, a text), ascending; those that the vocabulary has. For
/// `plain` a new begin-of-text token ends a text as well.
template <Tokenizer T>
std::vector<int> chat_stop_ids(T const& tokenizer, chat_format format) {
  std::vector<int> out;
  auto const add = [&](std::initializer_list<std::string_view> names) {
    for (std::string_view const name : names)
      if (auto const id = tokenizer.token_id(name)) out.push_back(*id);
  };
  switch (format) {
    case chat_format::llama3:
      add({"<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"});
      break;
    case chat_format::chatml:
      add({"<|endoftext|>", "<|im_end|>"});
      break;
    case chat_format::plain:
      add({"<|endoftext|>", "<|end_of_text|>", "</s>"});
      if constexpr (requires { tokenizer.eos(); })
        if (tokenizer.eos() >= 0) out.push_back(tokenizer.eos());
      if (tokenizer.bos() >= 0) out.push_back(tokenizer.bos());
  }
  std::ranges::sort(out);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace atmanrl
