#pragma once

/// \file
/// A chat template, read once and rendered often: the part of Jinja that chat templates are written in (loops,
/// conditions, set, macros, namespaces, slices, methods of strings, filters and tests), with the surroundings that
/// transformers gives them (trim_blocks, lstrip_blocks, tojson, raise_exception, strftime_now). What is not followed is
/// refused by name, never guessed; work, memory and depth are bounded (jinja/mistake.hpp).

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/text/chat_text.hpp>
#if ATMANRL_BODIES
#  include <atmanrl/text/jinja/interpreter.hpp>
#  include <atmanrl/text/jinja/parser.hpp>
#endif

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::jinja {

struct node;

/// What a chat template is given.
struct surroundings {
  /// One mapping for each message: names and texts; those that are contents.
  struct message {
    std::string role, content;
  };
  std::vector<message> messages;
  bool add_generation_prompt = false;
  std::vector<std::pair<std::string, std::string>> texts;  ///< bos_token and the like
  std::vector<std::pair<std::string, bool>> switches;      ///< enable_thinking and the like
  std::chrono::year_month_day today{std::chrono::year(2024), std::chrono::July, std::chrono::day(26)};
};

/// A value; copies share the syntax tree. All calls are const and safe from several threads.
class program {
 public:
  /// \param origin  file and field, for errors
  /// \throws file_error "ORIGIN, line N: the chat template ..." for what is not followed here
  program(std::string text, std::string origin);

  std::string const& text() const { return text_; }
  std::string const& origin() const { return origin_; }
  /// Whether the template asks for a name that is not its own.
  bool mentions(std::string_view name) const;

  /// \throws file_error for what is not followed here; usage_error where the template itself refuses the conversation
  chat_text render(surroundings const& given) const;

 private:
  std::string text_, origin_;
  std::shared_ptr<node const> tree_;
};

#if ATMANRL_BODIES

namespace detail {
inline bool mentions(node const& n, std::string_view name) {
  if (n.kind == node_kind::name && n.word == name) return true;
  for (auto const& part : n.parts)
    if (part && mentions(*part, name)) return true;
  for (auto const& [key, part] : n.named)
    if (mentions(*part, name)) return true;
  return false;
}
[[noreturn]] inline void fail_at(std::string const& origin, mistake const& m) {
  fail<file_error>("{}, line {}: the chat template {}", origin, m.line, m.sentence);
}
}  // namespace detail

ATMANRL_INLINE program::program(std::string text, std::string origin)
    : text_(std::move(text)), origin_(std::move(origin)) {
  try {
    tree_ = parse(text_);
  } catch (mistake const& m) {
    detail::fail_at(origin_, m);
  }
}

ATMANRL_INLINE bool program::mentions(std::string_view name) const { return detail::mentions(*tree_, name); }

ATMANRL_INLINE chat_text program::render(surroundings const& given) const {
  std::vector<value> messages;
  for (auto const& m : given.messages)
    messages.push_back(mapping_of({{chat_text().control("role"), value::own(m.role)},
                                   {chat_text().control("content"), value(chat_text().content(m.content))}}));
  names all{{"messages", list_of(std::move(messages))},
            {"tools", none{}},
            {"documents", none{}},
            {"add_generation_prompt", given.add_generation_prompt}};
  for (auto const& [name, words] : given.texts) all.emplace_back(name, value::own(words));
  for (auto const& [name, on] : given.switches) all.emplace_back(name, on);
  try {
    return run(*tree_, all, given.today);
  } catch (mistake const& m) {
    detail::fail_at(origin_, m);
  } catch (raised const& r) {
    fail<usage_error>("{}, line {}: the chat template refuses this conversation: {}", origin_, r.line, r.sentence);
  }
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
