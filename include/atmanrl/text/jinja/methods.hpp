#pragma once

/// \file
/// Methods of texts, mappings and lists that chat templates call. The others are refused by name.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/jinja/arguments.hpp>

namespace atmanrl::inline ATMANRL_ABI::jinja {

/// `object.name(arguments)`
value call_method(value const& object, std::string_view name, call_arguments const& arguments, place at);

/// Whether Python's object has a method of that name, so that `object.name` is that method.
bool is_method(value const& object, std::string_view name);

#if ATMANRL_BODIES

namespace detail {

inline value text_method(value const& object, std::string_view name, call_arguments const& arguments, place at) {
  chat_text const& t = object.words();
  std::string const& text = t.bytes();
  at.work.step(at.line, 1 + text.size() / 64);
  auto const take = [&](std::initializer_list<std::string_view> names) {
    return taken_arguments(name, arguments, names, at);
  };
  auto const pieces = [&](std::vector<chat_text> parts) {
    std::vector<value> out;
    for (chat_text& p : parts) out.push_back(made_text(std::move(p), at));
    return made_list(std::move(out), at);
  };
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    auto const a = take({"chars"});
    std::optional<std::string_view> chars;
    if (a.has_any(0)) chars = a.bytes(0);
    return made_text(strip(t, chars, name != "rstrip", name != "lstrip"), at);
  }
  if (name == "split" || name == "rsplit") {
    auto const a = take({"sep", "maxsplit"});
    at.work.step(at.line, text.size());
    std::int64_t const most = a.integer(1, -1);
    if (a.has_any(0) && a.bytes(0).empty()) refuse(at.line, "splits a text at nothing");
    if (a.has_any(0)) search_work(text, a.bytes(0), at);
    if (name == "split") {
      std::optional<std::string_view> separator;
      if (a.has_any(0)) separator = a.bytes(0);
      return pieces(split(t, separator, most));
    }
    if (!a.has_any(0)) refuse(at.line, "uses rsplit without a separator, which is not followed here");
    return pieces(split_from_back(t, a.bytes(0), most));
  }
  if (name == "splitlines") {
    take({});
    at.work.step(at.line, text.size());
    return pieces(split_lines(t));
  }
  if (name == "startswith" || name == "endswith") {
    auto const a = take({"prefix"});
    auto const fits = [&](value const& v) {
      if (!v.is_text()) refuse(at.line, "gives {} {} where a text belongs", name, kind_name(v));
      at.work.read(at.line, v.bytes().size());
      return name == "startswith" ? text.starts_with(v.bytes()) : text.ends_with(v.bytes());
    };
    if (!a.get(0).is_list()) return fits(a.get(0));
    bool any = false;
    for (value const& v : a.get(0).items()) any = any || fits(v);
    return any;
  }
  if (name == "removeprefix" || name == "removesuffix") {
    auto const a = take({"affix"});
    bool const front = name == "removeprefix";
    if (!(front ? text.starts_with(a.bytes(0)) : text.ends_with(a.bytes(0)))) return object;
    std::size_t const length = a.bytes(0).size();
    return made_text(front ? t.part(length, text.size()) : t.part(0, text.size() - length), at);
  }
  if (name == "replace") {
    auto const a = take({"old", "new", "count"});
    // Every replacement might make the text longer; what that comes to is known before it is made.
    std::size_t const from = a.bytes(0).size(), to = a.bytes(1).size();
    search_work(text, a.bytes(0), at);
    at.work.bytes(at.line, text.size() + (text.size() / std::max<std::size_t>(from, 1) + 1) * to);
    return value(replace(t, a.bytes(0), a.words(1), a.integer(2, -1)));
  }
  for (auto const& [method, to] :
       {std::pair{"upper", letter_case::upper}, std::pair{"lower", letter_case::lower},
        std::pair{"capitalize", letter_case::capitalize}, std::pair{"title", letter_case::title}})
    if (name == method) {
      take({});
      return made_text(change_case(t, to, at.line), at);
    }
  if (name == "find" || name == "rfind" || name == "index" || name == "count") {
    auto const a = take({"sub"});
    std::string const& sub = a.bytes(0);
    if (sub.empty()) refuse(at.line, "looks for an empty text with {}", name);
    search_work(text, sub, at);
    if (name == "count") {
      std::int64_t count = 0;
      for (std::size_t i = text.find(sub); i != text.npos; i = text.find(sub, i + sub.size())) ++count;
      return count;
    }
    std::size_t const found = name == "rfind" ? text.rfind(sub) : text.find(sub);
    if (found == text.npos && name == "index") refuse(at.line, "looks with index for what is not in the text");
    if (found == text.npos) return std::int64_t(-1);
    return std::int64_t(characters(std::string_view(text).substr(0, found)).size()) - 1;
  }
  if (name == "join") {
    auto const a = take({"iterable"});
    chat_text out;
    bool first = true;
    for (value const& v : items_of(a.get(0), at)) {
      if (!v.is_text()) refuse(at.line, "joins {} to a text", kind_name(v));
      at.work.bytes(at.line, text.size() + v.bytes().size());
      if (!first) out.append(t);
      first = false;
      out.append(v.words());
    }
    return made_text(std::move(out), at);
  }
  if (name == "isdigit" || name == "isspace" || name == "isalpha" || name == "isalnum" || name == "isupper" ||
      name == "islower") {
    take({});
    bool all = !text.empty(), letters = false;
    for (char const c : text) {
      if (std::uint8_t(c) >= 0x80) refuse(at.line, "asks {} of \"{}\", which goes beyond ASCII", name, shown(text));
      bool const small = c >= 'a' && c <= 'z', large = c >= 'A' && c <= 'Z', digit = c >= '0' && c <= '9';
      letters = letters || small || large;
      all = all && (name == "isdigit"   ? digit
                    : name == "isspace" ? is_python_space(char32_t(c))
                    : name == "isalpha" ? small || large
                    : name == "isalnum" ? small || large || digit
                    : name == "isupper" ? !small
                                        : !large);
    }
    return all && (name != "isupper" && name != "islower" ? true : letters);
  }
  refuse(at.line, "uses the method \"{}\" of a text, which is not followed here", shown(name));
}

}  // namespace detail

ATMANRL_INLINE bool is_method(value const& object, std::string_view name) {
  static constexpr std::string_view of_texts =
      " capitalize casefold center count encode endswith expandtabs find format format_map index isalnum isalpha "
      "isascii "
      "isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip "
      "maketrans partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split "
      "splitlines "
      "startswith strip swapcase title translate upper zfill ";
  static constexpr std::string_view of_mappings =
      " clear copy fromkeys get items keys pop popitem setdefault update values ";
  static constexpr std::string_view of_lists = " append clear copy count extend index insert pop remove reverse sort ";
  std::string_view const all = object.is_text()      ? of_texts
                               : object.is_mapping() ? of_mappings
                               : object.is_list()    ? of_lists
                                                     : std::string_view();
  return all.find(fmt::format(" {} ", name)) != all.npos;
}

ATMANRL_INLINE value call_method(value const& object, std::string_view name, call_arguments const& arguments,
                                 place at) {
  if (object.is_text()) return detail::text_method(object, name, arguments, at);
  auto const take = [&](std::initializer_list<std::string_view> names) {
    return taken_arguments(name, arguments, names, at);
  };
  if (object.is_mapping()) {
    std::vector<value> out;
    if (name == "get") {
      auto const a = take({"key", "default"});
      lookup_work(object.entries().size(), a.get(0).is_text() ? std::string_view(a.bytes(0)) : "", at);
      value const* const found =
          a.get(0).is_text() ? object.as<std::shared_ptr<mapping const>>()->find(a.bytes(0)) : nullptr;
      return found ? *found : a.has(1) ? a.get(1) : value(none{});
    }
    if (name == "items") {
      take({});
      for (auto const& [key, v] : object.entries()) out.push_back(made_list({made_text(key, at), v}, at, true));
      return made_list(std::move(out), at);
    }
    if (name == "keys" || name == "values") {
      take({});
      for (auto const& [key, v] : object.entries()) out.push_back(name == "keys" ? made_text(key, at) : v);
      return made_list(std::move(out), at);
    }
  }
  if (object.is_list() && (name == "index" || name == "count")) {
    auto const a = take({"value"});
    std::int64_t count = 0;
    for (std::size_t i = 0; i < object.items().size(); ++i) {
      if (!equal(object.items()[i], a.get(0), at)) continue;
      if (name == "index") return std::int64_t(i);
      ++count;
    }
    if (name == "index") refuse(at.line, "looks with index for what is not in the list");
    return count;
  }
  if (object.is<std::shared_ptr<loop_state const>>() && name == "cycle") {
    if (arguments.in_order.empty() || !arguments.named.empty()) refuse(at.line, "gives cycle nothing to choose from");
    auto const& loop = *object.as<std::shared_ptr<loop_state const>>();
    return arguments.in_order[std::size_t(loop.index0) % arguments.in_order.size()];
  }
  if (object.is<undefined>())
    refuse(at.line, "calls the method \"{}\" of \"{}\", which is undefined", shown(name),
           shown(object.as<undefined>().name));
  refuse(at.line, "uses the method \"{}\" of {}, which is not followed here", shown(name), kind_name(object));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
