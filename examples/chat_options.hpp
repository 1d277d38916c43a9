#pragma once
// The options that say how conversations are put to a model, for programs with options of their own.
#include <atmanrl/text/chat_formats.hpp>

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

inline void add_chat_options(CLI::App& app, atmanrl::chat_options& o, std::string const& format_option = "--chat") {
  std::vector<std::string> const names(atmanrl::chat_formats::names.begin(), atmanrl::chat_formats::names.end());
  app.add_option(format_option, o.format, "chat format; auto: the model's own template, plain text where it has none")
      ->capture_default_str()
      ->check(CLI::IsMember(names));
  app.add_option("--thinking", o.thinking, "for templates that ask for enable_thinking; auto: as the template has it")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "on", "off"}));
  app.add_option("--chat-date", o.date, "what a template takes for today, as YYYY-MM-DD")->capture_default_str();
}

/// The same with a system message.
inline void add_conversation_options(CLI::App& app, atmanrl::chat_options& o) {
  add_chat_options(app, o);
  app.add_option("--system", o.system, "a system message in front; where none is given the template has its own");
}
