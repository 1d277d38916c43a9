#pragma once

/// \file
/// Chat formats that are written in Jinja: a model's own template, and the formats that have a name. The named ones are
/// short templates of this library; they are for models whose files have no template, or one that cannot be followed.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/chat_source.hpp>
#include <atmanrl/text/chat_template.hpp>
#include <atmanrl/text/jinja/program.hpp>

#include <array>
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// How a user wants conversations to be put; the values are those of the options of the same names.
struct chat_options {
  std::string format = "auto";        ///< auto: the model's own template, plain text where it has none; or a name
  std::optional<std::string> system{};  ///< in front of every conversation
  std::string thinking = "auto";      ///< on, off, or auto: as the template has it
  std::string date = "2024-07-26";    ///< what a template takes for today, so that a run has the same prompts for ever

  friend bool operator==(chat_options const&, chat_options const&) = default;
};

namespace chat_formats {

struct named {
  std::string_view name, text;
  std::array<std::string_view, 3> tokens;  ///< that the vocabulary must have
};

/// Llama 3.1 and later tell the date in a system turn that is always there; Llama 3.0 does not.
inline constexpr std::array all{
    named{"chatml",
          "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
          {"<|im_start|>", "<|im_end|>", "<|im_end|>"}},
    named{"llama3",
          "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + "
          "'<|eot_id|>' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
          {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
    named{"llama3.1",
          "{{ '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' + "
          "strftime_now('%d %b %Y') + '\\n\\n' }}"
          "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% set messages = messages[1:] %}"
          "{% endif %}{{ '<|eot_id|>' }}"
          "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + "
          "'<|eot_id|>' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
          {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
    named{"deepseek-r1",
          "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
          "{% elif m.role == 'user' %}{{ '<\uff5cUser\uff5c>' + m.content }}"
          "{% else %}{{ '<\uff5cAssistant\uff5c>' + m.content.split('</think>')[-1] + "
          "'<\uff5cend\u2581of\u2581sentence\uff5c>' }}{% endif %}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c><think>\\n' }}{% endif %}",
          {"<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"}},
};

/// "auto", "plain" and the names of `all`.
inline constexpr std::array<std::string_view, 6> names{"auto",      "plain",     all[0].name,
                                                       all[1].name, all[2].name, all[3].name};

/// Ends the error of a template: what the user can do.
inline constexpr std::string_view advice =
    "choose another format with --chat (plain, chatml, llama3, llama3.1 or deepseek-r1), or another system message "
    "with "
    "--system TEXT";

}  // namespace chat_formats

/// A conversation through a Jinja template. \throws file_error, usage_error that end with the options to choose
class jinja_chat {
 public:
  /// \param tokens  see chat_source
  jinja_chat(std::string text, std::string origin, std::vector<std::pair<std::string, std::string>> tokens,
             chat_options const& options);

  chat_text operator()(std::span<chat_message const> messages, bool answer_follows) const;

 private:
  std::optional<jinja::program> program_;
  jinja::surroundings given_;
};

/// \throws usage_error for a value that an option cannot have
void validate(chat_options const& options);

/// The format of a model's own template, plain text where its files have none. A template that cannot be followed is
/// refused when it is used. \throws usage_error when `thinking` is chosen and the template does not ask for it
chat_format own_chat(chat_source const& source, chat_options const& options = {});

#if ATMANRL_BODIES

namespace detail {
inline std::chrono::year_month_day chat_date(std::string const& text) {
  int year = 0;
  unsigned month = 0, day = 0;
  char end = 0;
  bool const read = text.size() == 10 && std::sscanf(text.c_str(), "%4d-%2u-%2u%c", &year, &month, &day, &end) == 3;
  std::chrono::year_month_day const date{std::chrono::year(year), std::chrono::month(month), std::chrono::day(day)};
  expects<usage_error>(read && date.ok(), "--chat-date is \"{}\", it must be a day like 2024-07-26", text);
  return date;
}
}  // namespace detail

ATMANRL_INLINE void validate(chat_options const& o) {
  bool known = false;
  for (std::string_view const name : chat_formats::names) known = known || o.format == name;
  expects<usage_error>(known, "--chat is \"{}\", it must be one of {}", o.format, fmt::join(chat_formats::names, ", "));
  expects<usage_error>(o.thinking == "auto" || o.thinking == "on" || o.thinking == "off",
                       "--thinking is \"{}\", it must be one of auto, on, off", o.thinking);
  detail::chat_date(o.date);
}

ATMANRL_INLINE jinja_chat::jinja_chat(std::string text, std::string origin,
                                      std::vector<std::pair<std::string, std::string>> tokens,
                                      chat_options const& options) {
  given_.today = detail::chat_date(options.date);
  given_.texts = std::move(tokens);
  try {
    program_.emplace(std::move(text), std::move(origin));
  } catch (file_error const& e) {
    fail<file_error>("{}; {}", e.what(), chat_formats::advice);
  }
  if (options.thinking == "auto") return;
  bool asks = false;
  for (char const* const name : {"enable_thinking", "thinking"})
    if (program_->mentions(name)) {
      given_.switches.emplace_back(name, options.thinking == "on");
      asks = true;
    }
  expects<usage_error>(asks, "--thinking is {}, but {} asks for neither enable_thinking nor thinking", options.thinking,
                       program_->origin());
}

ATMANRL_INLINE chat_text jinja_chat::operator()(std::span<chat_message const> messages, bool answer_follows) const {
  jinja::surroundings given = given_;
  for (chat_message const& m : messages) given.messages.push_back({m.role, m.content});
  given.add_generation_prompt = answer_follows;
  try {
    return program_->render(given);
  } catch (file_error const& e) {
    fail<file_error>("{}; {}", e.what(), chat_formats::advice);
  } catch (usage_error const& e) {
    fail<usage_error>("{}; {}", e.what(), chat_formats::advice);
  }
}

ATMANRL_INLINE chat_format own_chat(chat_source const& source, chat_options const& options) {
  std::string const name = "the template of " + source.origin;
  if (!source.problem.empty())
    return chat_format::refused(fmt::format("{}; {}", source.problem, chat_formats::advice), name);
  if (source.text.empty()) {
    expects<usage_error>(options.thinking == "auto",
                         "--thinking is {}, but the model has no chat template that asks for it", options.thinking);
    return {};
  }
  try {
    return {jinja_chat(source.text, source.origin, source.tokens, options), name};
  } catch (file_error const& e) {
    return chat_format::refused(e.what(), name);
  }
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
