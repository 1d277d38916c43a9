#pragma once

/// \file
/// Jinja's filters: what stands after `|`. tojson is that of transformers, which escapes nothing for web pages.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/jinja/arguments.hpp>
#include <atmanrl/text/jinja/methods.hpp>
#include <atmanrl/text/jinja/tests.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace atmanrl::inline ATMANRL_ABI::jinja {

/// `v | name(arguments)`
value apply_filter(value const& v, std::string_view name, call_arguments const& arguments, place at);

/// `object.name` of what has no methods in that place: a key of a mapping, an entry of a namespace, or undefined.
value member(value const& object, std::string_view name, place at);

#if ATMANRL_BODIES

ATMANRL_INLINE value member(value const& object, std::string_view name, place at) {
  at.work.read(at.line, name.size());
  if (object.is_mapping()) {
    lookup_work(object.entries().size(), name, at);
    if (value const* const found = object.as<std::shared_ptr<mapping const>>()->find(name)) return *found;
  }
  if (object.is<name_space*>())
    if (value const* const found = object.as<name_space*>()->find(name)) return *found;
  if (object.is<undefined>())
    refuse(at.line, "asks for \"{}\" of \"{}\", which is undefined", shown(name), shown(object.as<undefined>().name));
  return undefined::called(name);
}

namespace detail {

/// `a.b` of each item, as the filters with `attribute=` look it up.
inline value member_on_path(value const& object, std::string_view path, place at) {
  value out = object;
  while (true) {
    std::size_t const dot = std::min(path.find('.'), path.size());
    std::string_view const name = path.substr(0, dot);
    if (!name.empty() && name.find_first_not_of("0123456789") == name.npos)
      refuse(at.line, "takes \"{}\" for an attribute, which is not followed here", shown(path));
    out = member(out, name, at);
    if (dot == path.size()) return out;
    path.remove_prefix(dot + 1);
  }
}

/// Items whose attribute, or who themselves, pass a test: select, reject, selectattr, rejectattr.
inline value selected(value const& v, std::string_view name, call_arguments const& arguments, place at) {
  bool const by_attribute = name.ends_with("attr"), keeps = name.starts_with("select");
  call_arguments rest = arguments;
  auto const front = [&]() -> std::string {
    if (rest.in_order.empty() || !rest.in_order[0].is_text()) refuse(at.line, "gives {} too few arguments", name);
    std::string out = rest.in_order[0].bytes();
    rest.in_order.erase(rest.in_order.begin());
    return out;
  };
  std::string const attribute = by_attribute ? front() : std::string();
  std::string const test = rest.in_order.empty() ? std::string() : front();
  std::vector<value> out;
  for (value& each : items_of(v, at)) {
    value const looked_at = by_attribute ? member_on_path(each, attribute, at) : each;
    bool const passes = test.empty() ? is_true(looked_at) : passes_test(looked_at, test, rest, at);
    if (passes == keeps) out.push_back(std::move(each));
  }
  return made_list(std::move(out), at);
}

inline value mapped(value const& v, call_arguments const& arguments, place at) {
  std::vector<value> out;
  call_arguments rest = arguments;
  if (rest.in_order.empty()) {
    taken_arguments const a("map", arguments, {"attribute", "default"}, at);
    for (value const& each : items_of(v, at)) {
      value found = member_on_path(each, a.bytes(0), at);
      if (found.is<undefined>() && a.has(1)) found = a.get(1);
      out.push_back(std::move(found));
    }
    return made_list(std::move(out), at);
  }
  if (!rest.in_order[0].is_text())
    refuse(at.line, "gives map {} where a filter's name belongs", kind_name(rest.in_order[0]));
  std::string const filter = rest.in_order[0].bytes();
  rest.in_order.erase(rest.in_order.begin());
  for (value const& each : items_of(v, at)) out.push_back(apply_filter(each, filter, rest, at));
  return made_list(std::move(out), at);
}

inline value indented(value const& v, call_arguments const& arguments, place at) {
  taken_arguments const a("indent", arguments, {"width", "first", "blank"}, at);
  std::int64_t const width = a.integer(0, 4);
  if (width < 0 || width > 1000) refuse(at.line, "indents by {}", width);
  chat_text const t = printed(v, at);
  std::string const blanks(std::size_t(width), ' ');
  std::vector<chat_text> lines = split_lines(t);
  if (t.empty() || t.bytes().back() == '\n') lines.emplace_back();
  at.work.bytes(at.line, t.size() + lines.size() * blanks.size());
  chat_text out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.control("\n");
    bool const moves = i == 0 ? a.truth(1, false) : a.truth(2, false) || !lines[i].empty();
    if (moves) out.control(blanks);
    out.append(lines[i]);
  }
  return value(std::move(out));
}

inline value sorted(value const& v, call_arguments const& arguments, place at) {
  taken_arguments const a("sort", arguments, {"reverse", "case_sensitive", "attribute"}, at);
  std::vector<value> out = items_of(v, at);
  at.work.step(at.line, 32 * out.size());
  bool const exact = a.truth(1, false);
  std::vector<std::pair<value, value>> keyed;
  for (value& each : out) {
    value key = a.has_any(2) ? member_on_path(each, a.bytes(2), at) : each;
    if (!exact && key.is_text()) key = made_text(change_case(key.words(), letter_case::lower, at.line), at);
    keyed.emplace_back(std::move(key), std::move(each));
  }
  bool const falling = a.truth(0, false);
  std::ranges::stable_sort(keyed, [&](auto const& x, auto const& y) {
    return falling ? compare(y.first, x.first, at) < 0 : compare(x.first, y.first, at) < 0;
  });
  out.clear();
  for (auto& [key, each] : keyed) out.push_back(std::move(each));
  return made_list(std::move(out), at);
}

inline value json_filter(value const& v, call_arguments const& arguments, place at) {
  taken_arguments const a("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}, at);
  if (a.truth(0, false)) refuse(at.line, "uses tojson with ensure_ascii, which is not followed here");
  std::int64_t const indent = a.integer(1, -1);
  if (indent > 64) refuse(at.line, "indents by {}", indent);
  std::string comma = indent >= 0 ? "," : ", ", colon = ": ";
  if (a.has_any(2)) {
    value const& two = a.get(2);
    bool const fits = two.is_list() && two.items().size() == 2 && two.items()[0].is_text() && two.items()[1].is_text();
    if (!fits) refuse(at.line, "gives tojson separators that are not two texts");
    comma = two.items()[0].bytes();
    colon = two.items()[1].bytes();
  }
  return made_text(json_of(v, int(indent), comma, colon, a.truth(3, false), at), at);
}

inline value converted(value const& v, std::string_view name, call_arguments const& arguments, place at) {
  taken_arguments const a(name, arguments, {"default"}, at);
  bool const whole = name == "int";
  if (v.is_integer()) return whole ? value(v.integer()) : value(v.real());
  if (v.is<double>() && !whole) return v;
  if (v.is<double>() && std::abs(v.real()) < 9e15) return std::int64_t(v.real());
  if (v.is_text()) {
    std::string const text = strip(v.words(), std::nullopt, true, true).bytes();
    char const* const end = text.data() + text.size();
    std::int64_t number = 0;
    auto const read = std::from_chars(text.data(), end, number);
    if (read.ec == std::errc{} && read.ptr == end) return whole ? value(number) : value(double(number));
    double real = 0;
    auto const read_real = std::from_chars(text.data(), end, real);
    if (read_real.ec == std::errc{} && read_real.ptr == end && std::abs(real) < 9e15)
      return whole ? value(std::int64_t(real)) : value(real);
  }
  return a.has(0) ? a.get(0) : whole ? value(std::int64_t(0)) : value(0.0);
}

}  // namespace detail

ATMANRL_INLINE value apply_filter(value const& v, std::string_view name, call_arguments const& arguments, place at) {
  read_texts(v, arguments, at);
  auto const take = [&](std::initializer_list<std::string_view> names) {
    return taken_arguments(name, arguments, names, at);
  };
  if (name == "trim") {
    auto const a = take({"chars"});
    std::optional<std::string_view> chars;
    if (a.has_any(0)) chars = a.bytes(0);
    return made_text(strip(printed(v, at), chars, true, true), at);
  }
  if (name == "length" || name == "count") {
    take({});
    return length_of(v, at);
  }
  if (name == "default" || name == "d") {
    auto const a = take({"default_value", "boolean"});
    bool const missing = v.is<undefined>() || (a.truth(1, false) && !is_true(v));
    return !missing ? v : a.has(0) ? a.get(0) : value::own("");
  }
  if (name == "tojson") return detail::json_filter(v, arguments, at);
  if (name == "string") {
    take({});
    return value(printed(v, at));
  }
  if (name == "safe") {
    take({});
    return v;
  }
  if (name == "join") {
    auto const a = take({"d", "attribute"});
    chat_text const between = a.has(0) ? printed(a.get(0), at) : chat_text();
    chat_text out;
    bool first = true;
    for (value const& each : items_of(v, at)) {
      if (!first) out.append(between);
      first = false;
      out.append(printed(a.has_any(1) ? detail::member_on_path(each, a.bytes(1), at) : each, at));
      at.work.bytes(at.line, between.size());
    }
    return made_text(std::move(out), at);
  }
  for (auto const& [filter, to] :
       {std::pair{"upper", letter_case::upper}, std::pair{"lower", letter_case::lower},
        std::pair{"capitalize", letter_case::capitalize}, std::pair{"title", letter_case::title_filter}})
    if (name == filter) {
      take({});
      return made_text(change_case(printed(v, at), to, at.line), at);
    }
  if (name == "replace") {
    auto const a = take({"old", "new", "count"});
    return call_method(value(printed(v, at)), "replace",
                       {{value(printed(a.get(0), at)), value(printed(a.get(1), at)), value(a.integer(2, -1))}, {}}, at);
  }
  if (name == "indent") return detail::indented(v, arguments, at);
  if (name == "first" || name == "last") {
    take({});
    std::vector<value> const all = items_of(v, at);
    if (all.empty()) return undefined{fmt::format("the {} item of nothing", name)};
    return name == "first" ? all.front() : all.back();
  }
  if (name == "list") {
    take({});
    return made_list(items_of(v, at), at);
  }
  if (name == "reverse") {
    take({});
    std::vector<value> all = items_of(v, at);
    std::ranges::reverse(all);
    if (!v.is_text()) return made_list(std::move(all), at);
    chat_text out;
    for (value const& c : all) out.append(c.words());
    return made_text(std::move(out), at);
  }
  if (name == "unique") {
    take({});
    std::vector<value> out, keys;
    for (value& each : items_of(v, at)) {
      value key = each.is_text() ? made_text(change_case(each.words(), letter_case::lower, at.line), at) : each;
      if (std::ranges::any_of(keys, [&](value const& k) { return equal(k, key, at); })) continue;
      keys.push_back(std::move(key));
      out.push_back(std::move(each));
    }
    return made_list(std::move(out), at);
  }
  if (name == "sort") return detail::sorted(v, arguments, at);
  if (name == "min" || name == "max") {
    take({});
    std::vector<value> const all = items_of(v, at);
    if (all.empty()) return undefined{fmt::format("the {} of nothing", name)};
    value const* best = &all[0];
    for (value const& each : all)
      if (name == "min" ? compare(each, *best, at) < 0 : compare(each, *best, at) > 0) best = &each;
    return *best;
  }
  if (name == "items") {
    take({});
    if (v.is<undefined>()) return made_list({}, at);
    if (!v.is_mapping()) refuse(at.line, "asks for the items of {}", kind_name(v));
    return call_method(v, "items", {}, at);
  }
  if (name == "dictsort") {
    take({});
    if (!v.is_mapping()) refuse(at.line, "sorts {} by its keys", kind_name(v));
    std::vector<std::pair<std::string, value>> keyed;
    value const pairs = call_method(v, "items", {}, at);
    for (value const& pair : pairs.items()) {
      at.work.bytes(at.line, pair.items()[0].bytes().size());
      keyed.emplace_back(change_case(pair.items()[0].words(), letter_case::lower, at.line).bytes(), pair);
    }
    at.work.step(at.line, 32 * keyed.size());
    std::ranges::stable_sort(keyed, {}, [](auto const& k) -> std::string const& { return k.first; });
    std::vector<value> out;
    for (auto& [key, pair] : keyed) out.push_back(std::move(pair));
    return made_list(std::move(out), at);
  }
  if (name == "map") return detail::mapped(v, arguments, at);
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr")
    return detail::selected(v, name, arguments, at);
  if (name == "int" || name == "float") return detail::converted(v, name, arguments, at);
  if (name == "abs") {
    take({});
    if (v.is_integer()) return v.integer() < 0 ? combine("-", value(std::int64_t(0)), v, at) : value(v.integer());
    if (v.is<double>()) return std::abs(v.real());
    refuse(at.line, "takes the absolute value of {}", kind_name(v));
  }
  refuse(at.line, "uses the filter \"{}\", which is not followed here", shown(name));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
