#pragma once

/// \file
/// What Python does with the values of a template: truth, equality, order, arithmetic, printing.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/jinja/strings.hpp>
#include <atmanrl/text/jinja/value.hpp>

#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::jinja {

/// Where an operation stands, for errors, and the work that may still be done.
struct place {
  int line;
  budget& work;
};

/// Counts the work of looking for a key among so many.
inline void lookup_work(std::size_t keys, std::string_view key, place at) {
  at.work.step(at.line, keys * (1 + key.size() / 64));
}

/// Counts the work of looking for one text in another, which may be the product of their lengths.
inline void search_work(std::string_view in, std::string_view what, place at) {
  at.work.step(at.line, 1 + in.size() / 64 * (1 + what.size() / 64));
}

bool is_true(value const& v);
bool equal(value const& a, value const& b, place at);
/// \returns below, at or above 0, for numbers and for texts. \throws mistake for what has no order
int compare(value const& a, value const& b, place at);
/// `a in b`
bool contains(value const& b, value const& a, place at);
/// `a OPERATOR b` for + - * / // % ** ~
value combine(std::string_view sign, value const& a, value const& b, place at);

/// str(v), which is what {{ }} writes.
chat_text printed(value const& v, place at);
/// repr(v)
chat_text represented(value const& v, place at);
/// json.dumps(v, ensure_ascii=False). \param indent  below 0: on one line
chat_text json_of(value const& v, int indent, std::string_view comma, std::string_view colon, bool sort_keys, place at);

/// What a for goes through: items of a list, keys of a mapping, characters of a text, nothing of what is undefined.
std::vector<value> items_of(value const& v, place at);
std::int64_t length_of(value const& v, place at);

/// A list that is not nested too deep, its items counted as work.
value made_list(std::vector<value> items, place at, bool is_tuple = false);
value made_mapping(std::vector<std::pair<chat_text, value>> entries, place at);
/// A text that is not too long.
value made_text(chat_text t, place at);

#if ATMANRL_BODIES

ATMANRL_INLINE bool is_true(value const& v) {
  if (v.is<undefined>() || v.is<none>()) return false;
  if (v.is_integer()) return v.integer() != 0;
  if (v.is<double>()) return v.real() != 0;
  if (v.is_text()) return !v.words().empty();
  if (v.is_list()) return !v.items().empty();
  if (v.is_mapping()) return !v.entries().empty();
  return true;
}

ATMANRL_INLINE bool equal(value const& a, value const& b, place at) {
  at.work.step(at.line);
  if (a.is_number() && b.is_number())
    return a.is_integer() && b.is_integer() ? a.integer() == b.integer() : a.real() == b.real();
  if (a.is_text() && b.is_text()) {
    if (a.bytes().size() != b.bytes().size()) return false;
    at.work.step(at.line, a.bytes().size() / 64);
    return a.bytes() == b.bytes();
  }
  if (a.is_list() && b.is_list()) {
    if (a.items().size() != b.items().size()) return false;
    for (std::size_t i = 0; i < a.items().size(); ++i)
      if (!equal(a.items()[i], b.items()[i], at)) return false;
    return true;
  }
  if (a.is_mapping() && b.is_mapping()) {
    if (a.entries().size() != b.entries().size()) return false;
    auto const& other = *b.as<std::shared_ptr<mapping const>>();
    for (auto const& [key, v] : a.entries()) {
      lookup_work(other.entries.size(), key.bytes(), at);
      value const* const found = other.find(key.bytes());
      if (!found || !equal(v, *found, at)) return false;
    }
    return true;
  }
  return (a.is<none>() && b.is<none>()) || (a.is<undefined>() && b.is<undefined>()) ||
         (a.is<name_space*>() && b.is<name_space*>() && a.as<name_space*>() == b.as<name_space*>());
}

ATMANRL_INLINE int compare(value const& a, value const& b, place at) {
  if (a.is_number() && b.is_number())
    return a.is_integer() && b.is_integer() ? (a.integer() > b.integer()) - (a.integer() < b.integer())
                                            : (a.real() > b.real()) - (a.real() < b.real());
  if (a.is_text() && b.is_text()) {
    at.work.step(at.line, 1 + std::min(a.bytes().size(), b.bytes().size()) / 64);
    return a.bytes().compare(b.bytes());  // UTF-8 keeps the order of code points
  }
  refuse(at.line, "compares {} with {}", kind_name(a), kind_name(b));
}

ATMANRL_INLINE bool contains(value const& b, value const& a, place at) {
  if (b.is_text()) {
    if (!a.is_text()) refuse(at.line, "looks for {} in a text", kind_name(a));
    search_work(b.bytes(), a.bytes(), at);
    return b.bytes().find(a.bytes()) != std::string::npos;
  }
  if (b.is_mapping()) {
    lookup_work(b.entries().size(), a.is_text() ? std::string_view(a.bytes()) : "", at);
    return a.is_text() && b.as<std::shared_ptr<mapping const>>()->find(a.bytes()) != nullptr;
  }
  if (b.is_list()) {
    for (value const& v : b.items())
      if (equal(v, a, at)) return true;
    return false;
  }
  if (b.is<undefined>()) return false;
  refuse(at.line, "looks for something in {}", kind_name(b));
}

namespace detail {

inline value arithmetic(std::string_view sign, value const& a, value const& b, place at) {
  if (sign == "/" || sign == "//" || sign == "%")
    if (b.real() == 0) refuse(at.line, "divides by zero");
  if (a.is_integer() && b.is_integer() && sign != "/") {
    std::int64_t const x = a.integer(), y = b.integer();
    std::int64_t out = 0;
    bool overflow = false;
    if (sign == "+") overflow = __builtin_add_overflow(x, y, &out);
    if (sign == "-") overflow = __builtin_sub_overflow(x, y, &out);
    if (sign == "*") overflow = __builtin_mul_overflow(x, y, &out);
    if (sign == "//" || sign == "%") {
      // Python rounds down, and -2^63 / -1 does not fit.
      if (y == -1) {
        if (sign == "%") return std::int64_t(0);
        overflow = __builtin_sub_overflow(std::int64_t(0), x, &out);
      } else {
        std::int64_t const below = x % y != 0 && (x % y < 0) != (y < 0);
        out = sign == "//" ? x / y - below : x % y + (below ? y : 0);
      }
    }
    if (sign == "**") {
      if (y < 0 || y > 64) refuse(at.line, "takes a power of {}", y);
      out = 1;
      for (std::int64_t i = 0; i < y; ++i) overflow = overflow || __builtin_mul_overflow(out, x, &out);
    }
    if (overflow) refuse(at.line, "computes a number that is too large");
    return out;
  }
  double const x = a.real(), y = b.real();
  if (sign == "+") return x + y;
  if (sign == "-") return x - y;
  if (sign == "*") return x * y;
  if (sign == "/") return x / y;
  refuse(at.line, "computes \"{}\" of numbers that are not whole", sign);
}

inline std::string number_text(double x, int line) {
  std::string out = fmt::format("{}", x);
  if (out.find_first_of("en") != out.npos) refuse(line, "prints the number {}, whose form is not known here", out);
  if (out.find('.') == out.npos) out += ".0";
  return out;
}

}  // namespace detail

ATMANRL_INLINE value combine(std::string_view sign, value const& a, value const& b, place at) {
  if (sign == "~") {
    chat_text out = printed(a, at);
    return made_text(out.append(printed(b, at)), at);
  }
  if (a.is_number() && b.is_number()) return detail::arithmetic(sign, a, b, at);
  if (sign == "+" && a.is_text() && b.is_text()) {
    at.work.bytes(at.line, a.bytes().size() + b.bytes().size());
    chat_text out = a.words();
    return value(out.append(b.words()));
  }
  if (sign == "+" && a.is_list() && b.is_list()) {
    std::vector<value> out = a.items();
    out.insert(out.end(), b.items().begin(), b.items().end());
    return made_list(std::move(out), at);
  }
  if (sign == "*" && a.is_integer() && b.is_text()) return combine(sign, b, a, at);
  if (sign == "*" && a.is_text() && b.is_integer()) {
    std::size_t const times = std::size_t(std::max<std::int64_t>(b.integer(), 0)), each = a.bytes().size();
    at.work.bytes(at.line, each == 0 || times == 0         ? 0
                           : times > limits::output / each ? limits::output + 1
                                                           : times * each);
    chat_text out;
    for (std::size_t i = 0; each > 0 && i < times; ++i) out.append(a.words());
    return value(std::move(out));
  }
  for (value const* const v : {&a, &b})
    if (v->is<undefined>()) refuse(at.line, "uses \"{}\", which is undefined", shown(v->as<undefined>().name));
  refuse(at.line, "computes \"{}\" of {} and {}", sign, kind_name(a), kind_name(b));
}

ATMANRL_INLINE chat_text printed(value const& v, place at) {
  if (v.is<undefined>()) return {};
  if (v.is_text()) {
    at.work.bytes(at.line, v.bytes().size());
    return v.words();
  }
  return represented(v, at);
}

ATMANRL_INLINE chat_text represented(value const& v, place at) {
  at.work.step(at.line);
  chat_text out;
  if (v.is<none>()) return out.control("None");
  if (v.is<bool>()) return out.control(v.as<bool>() ? "True" : "False");
  if (v.is_integer()) return out.control(std::to_string(v.integer()));
  if (v.is<double>()) return out.control(detail::number_text(v.real(), at.line));
  if (v.is_text()) {
    at.work.bytes(at.line, v.bytes().size());
    return quoted(v.words());
  }
  if (v.is_list()) {
    auto const& l = *v.as<std::shared_ptr<list const>>();
    out.control(l.is_tuple ? "(" : "[");
    for (std::size_t i = 0; i < l.items.size(); ++i) {
      if (i > 0) out.control(", ");
      out.append(represented(l.items[i], at));
    }
    out.control(l.is_tuple ? l.items.size() == 1 ? ",)" : ")" : "]");
    at.work.bytes(at.line, out.size());
    return out;
  }
  if (v.is_mapping()) {
    out.control("{");
    for (auto const& [key, each] : v.entries()) {
      if (out.size() > 1) out.control(", ");
      out.append(quoted(key)).control(": ").append(represented(each, at));
    }
    at.work.bytes(at.line, out.size());
    return out.control("}");
  }
  refuse(at.line, "prints {}", kind_name(v));
}

namespace detail {

class json_writer {
 public:
  json_writer(int indent, std::string_view comma, std::string_view colon, bool sort_keys, place at)
      : indent_(indent), comma_(comma), colon_(colon), sort_keys_(sort_keys), at_(at) {}

  void write(value const& v, int level, chat_text& out) {
    at_.work.step(at_.line);
    if (v.is<none>()) {
      out.control("null");
    } else if (v.is<bool>()) {
      out.control(v.as<bool>() ? "true" : "false");
    } else if (v.is_number()) {
      out.append(represented(v, at_));
    } else if (v.is_text()) {
      at_.work.bytes(at_.line, v.bytes().size());
      out.append(json_quoted(v.words()));
    } else if (v.is_list()) {
      brackets('[', ']', v.items(), level, out, [&](value const& each) { write(each, level + 1, out); });
    } else if (v.is_mapping()) {
      auto entries = v.entries();
      if (sort_keys_)
        std::ranges::stable_sort(entries, {}, [](auto const& e) -> std::string const& { return e.first.bytes(); });
      brackets('{', '}', entries, level, out, [&](auto const& each) {
        out.append(json_quoted(each.first)).control(colon_);
        write(each.second, level + 1, out);
      });
    } else {
      refuse(at_.line, "writes {} as JSON", kind_name(v));
    }
  }

 private:
  template <class Items, class Write>
  void brackets(char open, char close, Items const& items, int level, chat_text& out, Write&& each) {
    auto const line_break = [&](int deep) {
      if (indent_ < 0) return;
      std::size_t const blanks = std::size_t(indent_) * std::size_t(deep);
      at_.work.bytes(at_.line, blanks);
      out.control("\n").control(std::string(blanks, ' '));
    };
    out.control(std::string_view(&open, 1));
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out.control(comma_);
      line_break(level + 1);
      each(items[i]);
    }
    if (!items.empty()) line_break(level);
    out.control(std::string_view(&close, 1));
  }

  int indent_;
  std::string_view comma_, colon_;
  bool sort_keys_;
  place at_;
};

}  // namespace detail

ATMANRL_INLINE chat_text json_of(value const& v, int indent, std::string_view comma, std::string_view colon,
                                 bool sort_keys, place at) {
  chat_text out;
  detail::json_writer(indent, comma, colon, sort_keys, at).write(v, 0, out);
  return out;
}

ATMANRL_INLINE std::vector<value> items_of(value const& v, place at) {
  std::vector<value> out;
  if (v.is_list()) {
    out = v.items();
  } else if (v.is_mapping()) {
    for (auto const& [key, each] : v.entries()) out.push_back(made_text(key, at));
  } else if (v.is_text()) {
    std::vector<std::size_t> const begins = characters(v.bytes());
    at.work.step(at.line, begins.size());
    for (std::size_t i = 0; i + 1 < begins.size(); ++i) out.emplace_back(v.words().part(begins[i], begins[i + 1]));
  } else if (!v.is<undefined>()) {
    refuse(at.line, "goes through {}", kind_name(v));
  }
  at.work.step(at.line, out.size());
  return out;
}

ATMANRL_INLINE std::int64_t length_of(value const& v, place at) {
  if (v.is_list()) return std::int64_t(v.items().size());
  if (v.is_mapping()) return std::int64_t(v.entries().size());
  if (v.is<undefined>()) return 0;
  if (!v.is_text()) refuse(at.line, "asks for the length of {}", kind_name(v));
  at.work.step(at.line, 1 + v.bytes().size() / 16);
  return std::int64_t(characters(v.bytes()).size()) - 1;
}

ATMANRL_INLINE value made_list(std::vector<value> items, place at, bool is_tuple) {
  at.work.step(at.line, 1 + items.size());
  value out = list_of(std::move(items), is_tuple);
  if (out.depth() > limits::value_depth) refuse(at.line, "nests lists more than {} deep", limits::value_depth);
  return out;
}

ATMANRL_INLINE value made_mapping(std::vector<std::pair<chat_text, value>> entries, place at) {
  at.work.step(at.line, 1 + entries.size());
  value out = mapping_of(std::move(entries));
  if (out.depth() > limits::value_depth) refuse(at.line, "nests mappings more than {} deep", limits::value_depth);
  return out;
}

ATMANRL_INLINE value made_text(chat_text t, place at) {
  at.work.bytes(at.line, t.size());
  return value(std::move(t));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
