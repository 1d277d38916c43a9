#pragma once

/// \file
/// Conversations as token ids, and the tokens that end what a model writes. The model's own template decides what a
/// conversation looks like; without one it is a base model, which is given plain text, whatever tokens its vocabulary
/// has. The text of a message is encoded plainly, so that a "<|eot_id|>" typed by a user stays text and cannot end a
/// turn; for text without control tokens the ids are those of transformers' apply_chat_template.

#include <atmanrl/core/error.hpp>
#include <atmanrl/text/chat_formats.hpp>
#include <atmanrl/text/chat_template.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// What the tokenizer's files say about conversations; nullptr for one that has no files.
template <Tokenizer K>
chat_source const* chat_source_of(K const& tokenizer) {
  if constexpr (requires {
                  { tokenizer.source_of_chat() } -> std::convertible_to<chat_source const*>;
                })
    return tokenizer.source_of_chat();
  else if constexpr (requires {
                       { tokenizer.spec().chat } -> std::convertible_to<chat_source const&>;
                     })
    return &tokenizer.spec().chat;
  else
    return nullptr;
}

/// The ids of special tokens in `text`, each with where it begins, in order.
template <Tokenizer K>
std::vector<std::pair<std::size_t, int>> control_tokens(K const& tokenizer, std::string_view text) {
  std::vector<std::pair<std::size_t, int>> out;
  std::size_t from = 0;
  for (int const id : tokenizer.encode_with_specials(text)) {
    if (!tokenizer.is_special(id)) continue;
    std::string_view const bytes = tokenizer.token_bytes(id);
    std::size_t const at = text.find(bytes, from);
    expects<usage_error>(at != text.npos, "the tokenizer finds the control token {} where it does not stand", id);
    out.emplace_back(at, id);
    from = at + bytes.size();
  }
  return out;
}

}  // namespace detail

/// Ids of what a chat format wrote. Control tokens are looked for in its own words alone; all text between two of them
/// is encoded in one go, wherever it comes from.
template <Tokenizer K>
std::vector<int> encode_chat_text(K const& tokenizer, chat_text const& t) {
  std::vector<int> ids;
  std::size_t plain = 0;  // bytes from here on are not encoded yet
  std::string_view const bytes = t.bytes();
  auto const encode_to = [&](std::size_t end) {
    if (end == plain) return;
    std::vector<int> const some = tokenizer.encode(bytes.substr(plain, end - plain));
    ids.insert(ids.end(), some.begin(), some.end());
  };
  for (std::size_t i = 0; i < t.size();) {
    std::size_t const end = t.end_of_kind(i);
    if (!t.is_content(i))
      for (auto const& [at, id] : detail::control_tokens(tokenizer, bytes.substr(i, end - i))) {
        encode_to(i + at);
        ids.push_back(id);
        plain = i + at + tokenizer.token_bytes(id).size();
      }
    i = end;
  }
  encode_to(t.size());
  return ids;
}

/// The chat format that a tokenizer carries: the one that it was given, else that of its files, else plain text.
template <Tokenizer K>
chat_format chat_of(K const& tokenizer) {
  if constexpr (requires {
                  { tokenizer.chat() } -> std::convertible_to<chat_format const&>;
                })
    return tokenizer.chat();
  else if (chat_source const* const source = detail::chat_source_of(tokenizer))
    return own_chat(*source);
  else
    return {};
}

/// Token ids of a conversation. Plain text begins with the begin-of-text token where the model has one; otherwise the
/// template says it. \param answer_follows  ends with the opening of the assistant's turn (no meaning for plain text)
/// \throws usage_error, file_error  see chat_format
template <Tokenizer K>
std::vector<int> encode_chat(K const& tokenizer, chat_format const& format, std::span<chat_message const> messages,
                             bool answer_follows = true) {
  chat_text const text = format(messages, answer_follows);
  if (!format.is_plain()) return encode_chat_text(tokenizer, text);
  std::vector<int> ids = tokenizer.encode(text.bytes());
  if (tokenizer.bos() >= 0) ids.insert(ids.begin(), tokenizer.bos());
  return ids;
}

/// A format by its name, for a vocabulary that has its control tokens. Begin-of-text stands in front where the model
/// has one. \throws usage_error for an unknown name or a missing token
template <Tokenizer K>
chat_format named_chat(K const& tokenizer, std::string_view name, chat_options const& options = {}) {
  if (name == "plain") return {};
  auto const found = std::ranges::find(chat_formats::all, name, &chat_formats::named::name);
  expects<usage_error>(found != chat_formats::all.end(), "there is no chat format \"{}\"", name);
  for (std::string_view const token : found->tokens)
    expects<usage_error>(tokenizer.token_id(token).has_value(),
                         "--chat {} needs the token {}, which the tokenizer does not have", name, token);
  expects<usage_error>(options.thinking == "auto", "--thinking is {}, but the chat format {} has nothing of that kind",
                       options.thinking, name);
  struct written {
    jinja_chat chat;
    std::string text;
    chat_text operator()(std::span<chat_message const> messages, bool answer_follows) const {
      return chat(messages, answer_follows);
    }
    std::string const& jinja() const { return text; }
  };
  std::string text(found->text);
  std::vector<std::pair<std::string, std::string>> tokens;
  if (tokenizer.bos() >= 0) {
    text.insert(0, "{{ bos_token }}");
    tokens.emplace_back("bos_token", std::string(tokenizer.token_bytes(tokenizer.bos())));
  }
  jinja_chat chat(text, fmt::format("--chat {}", name), std::move(tokens), options);
  return {written{std::move(chat), std::move(text)}, std::string(name)};
}

/// The format that the options choose for a model.
/// \throws usage_error for options that cannot be had, or a system message that the format would leave out
template <Tokenizer K>
chat_format choose_chat(K const& tokenizer, chat_options const& options) {
  validate(options);
  chat_source const* const source = detail::chat_source_of(tokenizer);
  bool const own = options.format == "auto";
  expects<usage_error>(own || options.format != "plain" || options.thinking == "auto",
                       "--thinking is {}, but plain text has nothing of that kind", options.thinking);
  chat_format out =
      (own ? own_chat(source ? *source : chat_source{}, options) : named_chat(tokenizer, options.format, options))
          .with_system(options.system);
  if (out.is_plain() || !options.system || options.system->find_first_not_of(" \t\r\n") == std::string::npos)
    return out;
  std::vector<chat_message> const asked{{"system", *options.system}, {"user", ""}};
  expects<usage_error>(out(asked).has_content(), "--system: {} leaves the system message out", out.name());
  return out;
}

/// The token that a format puts after an answer; none for plain text, or where no control token stands there.
template <Tokenizer K>
std::optional<int> turn_end_id(K const& tokenizer, chat_format const& format) {
  if (format.is_plain()) return std::nullopt;
  std::vector<chat_message> const spoken{{"user", "Question?"}, {"assistant", "Answer."}};
  chat_text const text = format(spoken, false);
  std::size_t end = text.size();
  while (end > 0 && !text.is_content(end - 1)) --end;
  if (end == 0) return std::nullopt;
  for (int const id : tokenizer.encode_with_specials(std::string_view(text.bytes()).substr(end)))
    if (tokenizer.is_special(id) || tokenizer.token_id(tokenizer.token_bytes(id)) == id) return id;
  return std::nullopt;
}

/// The tokens that end what a model writes: those that its files name, the tokenizer's end of text, and what ends a
/// turn in the chat format in use. Sampling, the split of completions, evaluation and fine-tuning stop at these, and a
/// saved model names them. \param of_model  model_config::stop_ids, which stay in front
template <Tokenizer K>
std::vector<int> stop_ids(K const& tokenizer, std::span<int const> of_model) {
  std::vector<int> out(of_model.begin(), of_model.end());
  auto const add = [&](int id) {
    if (std::ranges::find(out, id) == out.end()) out.push_back(id);
  };
  if constexpr (requires {
                  { tokenizer.eos() } -> std::convertible_to<int>;
                })
    if (tokenizer.eos() >= 0) add(tokenizer.eos());
  if (auto const id = turn_end_id(tokenizer, chat_of(tokenizer))) add(*id);
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
