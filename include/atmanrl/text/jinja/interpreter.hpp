#pragma once

/// \file
/// Walks the syntax tree of a template and writes its text. Names live in scopes as in Jinja: a loop's items and what
/// is set inside of it end with it, an `if` has no scope of its own, a macro sees its arguments and the outermost
/// names.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/jinja/filters.hpp>
#include <atmanrl/text/jinja/syntax.hpp>

#include <chrono>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::jinja {

/// Names and values that a template begins with.
using names = std::vector<std::pair<std::string, value>>;

/// Thrown by `raise_exception`: the template itself refuses the conversation.
struct raised {
  int line;
  std::string sentence;
};

/// What Python's strftime writes for midnight of that day.
std::string formatted_date(std::chrono::year_month_day day, std::string_view format, int line);

/// \param day  what strftime_now takes for today
/// \throws mistake, raised
chat_text run(node const& tree, names const& given, std::chrono::year_month_day day);

#if ATMANRL_BODIES

ATMANRL_INLINE std::string formatted_date(std::chrono::year_month_day day, std::string_view format, int line) {
  static constexpr std::string_view months[] = {"January", "February", "March",     "April",   "May",      "June",
                                                "July",    "August",   "September", "October", "November", "December"};
  static constexpr std::string_view days[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                              "Thursday", "Friday", "Saturday"};
  std::chrono::sys_days const at(day);
  std::string_view const month = months[unsigned(day.month()) - 1],
                         weekday = days[std::chrono::weekday(at).c_encoding()];
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    bool const bare = i + 1 < format.size() && format[i + 1] == '-';  // without the leading zero
    i += 1 + bare;
    char const c = i < format.size() ? format[i] : ' ';
    auto const two = [&](unsigned n) { return bare ? fmt::format("{}", n) : fmt::format("{:02}", n); };
    switch (c) {
      case 'Y':
        out += fmt::format("{:04}", int(day.year()));
        break;
      case 'y':
        out += two(unsigned(int(day.year()) % 100));
        break;
      case 'm':
        out += two(unsigned(day.month()));
        break;
      case 'd':
        out += two(unsigned(day.day()));
        break;
      case 'B':
        out += month;
        break;
      case 'b':
        out += month.substr(0, 3);
        break;
      case 'A':
        out += weekday;
        break;
      case 'a':
        out += weekday.substr(0, 3);
        break;
      case 'H':
      case 'M':
      case 'S':
        out += two(0);
        break;
      case 'I':
        out += "12";
        break;
      case 'p':
        out += "AM";
        break;
      case '%':
        out += '%';
        break;
      default:
        refuse(line, "writes a date as \"{}\", which is not followed here", shown(format));
    }
  }
  return out;
}

namespace detail {

class interpreter {
  enum class flow { on, leave_loop, next_item };

 public:
  interpreter(names const& given, std::chrono::year_month_day day) : day_(day), scopes_(1) { scopes_[0] = given; }

  chat_text render(node const& tree) {
    chat_text out;
    run(tree, out);
    return out;
  }

 private:
  place here(node const& n) { return {n.line, work_}; }

  /// Counts a step, and how deep evaluations stand inside each other.
  struct inside {
    inside(interpreter& i, node const& n) : i_(i) {
      i.work_.step(n.line);
      if (++i.depth_ > limits::call_depth) refuse(n.line, "calls itself more than {} deep", limits::call_depth);
    }
    ~inside() { --i_.depth_; }
    interpreter& i_;
  };

  // ---- names ----
  value const* find_in(names const& scope, std::string_view name, int line) {
    work_.step(line, scope.size() / 8);
    for (auto at = scope.rbegin(); at != scope.rend(); ++at)
      if (at->first == name) return &at->second;
    return nullptr;
  }
  value look_up(std::string const& name, int line) {
    for (std::size_t s = scopes_.size(); s-- > frame_;)
      if (value const* const v = find_in(scopes_[s], name, line)) return *v;
    if (value const* const v = find_in(scopes_[0], name, line)) return *v;
    for (std::string_view const f : {"range", "namespace", "dict", "raise_exception", "strftime_now"})
      if (name == f) return builtin{f};
    for (std::string_view const f : {"cycler", "joiner", "lipsum"})
      if (name == f) refuse(line, "uses the function \"{}\", which is not followed here", f);
    return undefined{name};
  }
  void set(std::string const& name, value v, int line) {
    names& scope = scopes_.back();
    work_.step(line, scope.size() / 8);
    for (auto& [known, old] : scope)
      if (known == name) {
        old = std::move(v);
        return;
      }
    scope.emplace_back(name, std::move(v));
  }
  void set_all(std::vector<std::string> const& targets, value const& v, int line) {
    if (targets.size() == 1) return set(targets[0], v, line);
    std::vector<value> const items = items_of(v, {line, work_});
    if (items.size() != targets.size()) refuse(line, "gives {} names {} values", targets.size(), items.size());
    for (std::size_t i = 0; i < items.size(); ++i) set(targets[i], items[i], line);
  }
  /// What an assignment's `words` name.
  void assign(node const& n, value v) {
    if (n.word != ".") return set_all(n.words, v, n.line);
    value const space = look_up(n.words[0], n.line);
    if (!space.is<name_space*>())
      refuse(n.line, "sets \"{}\" of \"{}\", which is no namespace", shown(n.words[1]), shown(n.words[0]));
    auto& entries = space.as<name_space*>()->entries;
    work_.step(n.line, entries.size());
    for (auto& [known, old] : entries)
      if (known == n.words[1]) {
        old = std::move(v);
        return;
      }
    entries.emplace_back(n.words[1], std::move(v));
  }

  // ---- statements ----
  flow run(node const& n, chat_text& out) {
    inside const guard(*this, n);
    switch (n.kind) {
      case node_kind::block:
        for (auto const& part : n.parts)
          if (flow const f = run(*part, out); f != flow::on) return f;
        return flow::on;
      case node_kind::data:
        write(n.constant.words(), n.line, out);
        return flow::on;
      case node_kind::output:
        write(printed(evaluate(*n.parts[0]), here(n)), n.line, out);
        return flow::on;
      case node_kind::branch:
        for (std::size_t i = 0; i + 1 < n.parts.size(); i += 2)
          if (is_true(evaluate(*n.parts[i]))) return run(*n.parts[i + 1], out);
        return n.parts.back() ? run(*n.parts.back(), out) : flow::on;
      case node_kind::each:
        return run_loop(n, out);
      case node_kind::assign:
        assign(n, evaluate(*n.parts[0]));
        return flow::on;
      case node_kind::assign_block: {
        value v = captured(*n.parts[0]);
        if (n.parts[1]) v = filtered(*n.parts[1], &v);
        assign(n, std::move(v));
        return flow::on;
      }
      case node_kind::macro:
        set(n.word, macro{&n}, n.line);
        return flow::on;
      case node_kind::leave_loop:
        return flow::leave_loop;
      case node_kind::next_item:
        return flow::next_item;
      default:
        refuse(n.line, "has an expression where a statement belongs");
    }
  }
  void write(chat_text const& t, int line, chat_text& out) {
    work_.bytes(line, out.size() + t.size() > limits::output ? limits::output + 1 : t.size());
    out.append(t);
  }
  value captured(node const& body) {
    chat_text words;
    scopes_.emplace_back();
    if (run(body, words) != flow::on) refuse(body.line, "leaves a loop from inside of a set");
    scopes_.pop_back();
    return value(std::move(words));
  }
  flow run_loop(node const& n, chat_text& out) {
    std::vector<value> items = items_of(evaluate(*n.parts[0]), here(n));
    if (n.parts[1]) {
      std::vector<value> chosen;
      for (value& v : items) {
        scopes_.emplace_back();
        set_all(n.words, v, n.line);
        if (is_true(evaluate(*n.parts[1]))) chosen.push_back(std::move(v));
        scopes_.pop_back();
      }
      items = std::move(chosen);
    }
    if (items.empty()) return n.parts[3] ? run(*n.parts[3], out) : flow::on;
    value const all = made_list(std::move(items), here(n));
    auto const list_of_items = all.as<std::shared_ptr<list const>>();
    for (std::size_t i = 0; i < list_of_items->items.size(); ++i) {
      scopes_.emplace_back();
      scopes_.back().emplace_back("loop",
                                  std::make_shared<loop_state const>(loop_state{list_of_items, std::int64_t(i)}));
      set_all(n.words, list_of_items->items[i], n.line);
      flow const f = run(*n.parts[2], out);
      scopes_.pop_back();
      if (f == flow::leave_loop) break;
    }
    return flow::on;
  }

  // ---- expressions ----
  value evaluate(node const& n) {
    inside const guard(*this, n);
    switch (n.kind) {
      case node_kind::constant:
        return n.constant;
      case node_kind::name:
        return look_up(n.word, n.line);
      case node_kind::list:
      case node_kind::tuple: {
        std::vector<value> items;
        for (auto const& part : n.parts) items.push_back(evaluate(*part));
        return made_list(std::move(items), here(n), n.kind == node_kind::tuple);
      }
      case node_kind::mapping:
        return evaluate_mapping(n);
      case node_kind::attribute:
        return attribute(evaluate(*n.parts[0]), n.word, here(n));
      case node_kind::item:
        return item(evaluate(*n.parts[0]), evaluate(*n.parts[1]), here(n));
      case node_kind::slice:
        return slice(n);
      case node_kind::call:
        return call(n);
      case node_kind::filter:
        return filtered(n, nullptr);
      case node_kind::test: {
        value const v = evaluate(*n.parts[0]);
        if (n.word == "filter" || n.word == "test") refuse(n.line, "asks whether a {} is known", n.word);
        return passes_test(v, n.word, arguments(n), here(n));
      }
      case node_kind::unary:
        return unary(n);
      case node_kind::binary:
        return binary(n);
      case node_kind::comparison:
        return comparison(n);
      case node_kind::choice:
        if (is_true(evaluate(*n.parts[1]))) return evaluate(*n.parts[0]);
        return n.parts[2] ? evaluate(*n.parts[2]) : value(undefined{"an if without else"});
      default:
        refuse(n.line, "has a statement where an expression belongs");
    }
  }
  value unary(node const& n) {
    value const v = evaluate(*n.parts[0]);
    if (n.word == "not") return !is_true(v);
    if (!v.is_number()) refuse(n.line, "computes \"{}\" of {}", n.word, kind_name(v));
    return combine(n.word, value(std::int64_t(0)), v, here(n));
  }
  value binary(node const& n) {
    value left = evaluate(*n.parts[0]);
    if (n.word == "and") return is_true(left) ? evaluate(*n.parts[1]) : left;
    if (n.word == "or") return is_true(left) ? left : evaluate(*n.parts[1]);
    return combine(n.word, left, evaluate(*n.parts[1]), here(n));
  }
  value comparison(node const& n) {
    value left = evaluate(*n.parts[0]);
    for (std::size_t i = 0; i < n.words.size(); ++i) {
      value right = evaluate(*n.parts[i + 1]);
      std::string_view const sign = n.words[i];
      place const at = here(n);
      bool const holds = sign == "=="       ? equal(left, right, at)
                         : sign == "!="     ? !equal(left, right, at)
                         : sign == "in"     ? contains(right, left, at)
                         : sign == "not in" ? !contains(right, left, at)
                         : sign == "<"      ? compare(left, right, at) < 0
                         : sign == "<="     ? compare(left, right, at) <= 0
                         : sign == ">"      ? compare(left, right, at) > 0
                                            : compare(left, right, at) >= 0;
      if (!holds) return false;
      left = std::move(right);
    }
    return true;
  }
  value evaluate_mapping(node const& n) {
    std::vector<std::pair<chat_text, value>> entries;
    for (std::size_t i = 0; i + 1 < n.parts.size(); i += 2) {
      value const key = evaluate(*n.parts[i]);
      if (!key.is_text()) refuse(n.line, "has a mapping with {} for a key", kind_name(key));
      put(entries, key.words(), evaluate(*n.parts[i + 1]), n.line);
    }
    return made_mapping(std::move(entries), here(n));
  }
  void put(std::vector<std::pair<chat_text, value>>& entries, chat_text const& key, value v, int line) {
    lookup_work(entries.size(), key.bytes(), {line, work_});
    work_.bytes(line, key.size());
    for (auto& [known, old] : entries)
      if (known.bytes() == key.bytes()) {
        old = std::move(v);
        return;
      }
    entries.emplace_back(key, std::move(v));
  }

  value attribute(value const& object, std::string const& name, place at) {
    work_.read(at.line, name.size());
    if (name.starts_with("_")) refuse(at.line, "asks for the hidden attribute \"{}\"", shown(name));
    if (is_method(object, name))
      refuse(at.line, "uses the method \"{}\" of {} without calling it", shown(name), kind_name(object));
    if (!object.is<std::shared_ptr<loop_state const>>()) return member(object, name, at);
    loop_state const& loop = *object.as<std::shared_ptr<loop_state const>>();
    std::int64_t const count = std::int64_t(loop.items->items.size()), i = loop.index0;
    if (name == "index") return i + 1;
    if (name == "index0") return i;
    if (name == "revindex") return count - i;
    if (name == "revindex0") return count - i - 1;
    if (name == "first") return i == 0;
    if (name == "last") return i == count - 1;
    if (name == "length") return count;
    if (name == "depth") return std::int64_t(1);  // only recursive loops are deeper
    if (name == "depth0") return std::int64_t(0);
    if (name == "previtem") return i > 0 ? loop.items->items[std::size_t(i - 1)] : value(undefined{"loop.previtem"});
    if (name == "nextitem")
      return i + 1 < count ? loop.items->items[std::size_t(i + 1)] : value(undefined{"loop.nextitem"});
    refuse(at.line, "uses loop.{}, which is not followed here", shown(name));
  }
  value item(value const& object, value const& key, place at) {
    if (key.is_text() && object.is_mapping()) return member(object, key.bytes(), at);
    if (key.is_text() && !object.is_text() && !object.is_list()) return attribute(object, key.bytes(), at);
    if (!key.is_integer()) {
      if (object.is<undefined>()) return member(object, "an item", at);
      if (key.is_text()) return undefined::called(key.bytes());
      refuse(at.line, "looks up {} in {}", kind_name(key), kind_name(object));
    }
    if (object.is<undefined>()) return member(object, std::to_string(key.integer()), at);
    auto const position = [&](std::size_t size) {
      std::int64_t const i = key.integer() < 0 ? key.integer() + std::int64_t(size) : key.integer();
      return i >= 0 && i < std::int64_t(size) ? i : -1;
    };
    undefined const nothing{fmt::format("item {}", key.integer())};
    if (object.is_list()) {
      std::int64_t const i = position(object.items().size());
      return i < 0 ? value(nothing) : object.items()[std::size_t(i)];
    }
    if (object.is_text()) {
      work_.step(at.line, 1 + object.bytes().size() / 16);
      std::vector<std::size_t> const begins = characters(object.bytes());
      std::int64_t const i = position(begins.size() - 1);
      if (i < 0) return nothing;
      return value(object.words().part(begins[std::size_t(i)], begins[std::size_t(i) + 1]));
    }
    if (object.is_mapping()) return nothing;
    refuse(at.line, "looks up an item of {}", kind_name(object));
  }
  /// Python's slices.
  value slice(node const& n) {
    value const object = evaluate(*n.parts[0]);
    auto const bound = [&](std::size_t i) -> std::optional<std::int64_t> {
      if (!n.parts[i]) return std::nullopt;
      value const v = evaluate(*n.parts[i]);
      if (v.is<none>()) return std::nullopt;
      if (!v.is_integer()) refuse(n.line, "cuts a part out by {}", kind_name(v));
      return v.integer();
    };
    auto const first = bound(1), last = bound(2);
    std::int64_t const step = bound(3).value_or(1);
    if (step == 0) refuse(n.line, "cuts a part out in steps of 0");
    if (object.is<undefined>()) return member(object, "a part", here(n));
    if (!object.is_list() && !object.is_text()) refuse(n.line, "cuts a part out of {}", kind_name(object));
    std::vector<value> items;
    std::vector<std::size_t> begins;
    if (object.is_text()) {
      work_.step(n.line, 1 + object.bytes().size() / 16);
      begins = characters(object.bytes());
    }
    std::int64_t const count = std::int64_t(object.is_list() ? object.items().size() : begins.size() - 1);
    auto const settle = [&](std::optional<std::int64_t> x, std::int64_t missing) {
      if (!x) return missing;
      std::int64_t const i = *x < 0 ? *x + count : *x;
      return step > 0 ? std::clamp<std::int64_t>(i, 0, count) : std::clamp<std::int64_t>(i, -1, count - 1);
    };
    std::int64_t const from = settle(first, step > 0 ? 0 : count - 1), to = settle(last, step > 0 ? count : -1);
    if (object.is_text() && step == 1)
      return made_text(object.words().part(begins[std::size_t(from)], begins[std::size_t(std::max(from, to))]),
                       here(n));
    chat_text words;
    std::int64_t const hop = std::clamp<std::int64_t>(step, -count - 1, count + 1);
    for (std::int64_t i = from; step > 0 ? i < to : i > to; i += hop) {
      work_.step(n.line);
      if (object.is_list())
        items.push_back(object.items()[std::size_t(i)]);
      else
        words.append(object.words().part(begins[std::size_t(i)], begins[std::size_t(i) + 1]));
    }
    return object.is_list() ? made_list(std::move(items), here(n)) : made_text(std::move(words), here(n));
  }

  // ---- calls ----
  call_arguments arguments(node const& n) {
    call_arguments out;
    for (std::size_t i = 1; i < n.parts.size(); ++i) out.in_order.push_back(evaluate(*n.parts[i]));
    for (auto const& [name, part] : n.named) out.named.emplace_back(name, evaluate(*part));
    return out;
  }
  /// \param block  the text of a block that the filters stand after; nullptr: the first of them has a value
  value filtered(node const& n, value const* block) {
    value const v = n.parts[0]
                        ? n.parts[0]->kind == node_kind::filter ? filtered(*n.parts[0], block) : evaluate(*n.parts[0])
                        : *block;
    return apply_filter(v, n.word, arguments(n), here(n));
  }
  value call(node const& n) {
    node const& callee = *n.parts[0];
    if (callee.kind == node_kind::attribute) {
      value const object = evaluate(*callee.parts[0]);
      if (object.is<name_space*>()) {
        value const v = member(object, callee.word, here(n));
        if (v.is<macro>()) return call_macro(*v.as<macro>().definition, n);
      }
      return call_method(object, callee.word, arguments(n), here(n));
    }
    value const f = evaluate(callee);
    if (f.is<macro>()) return call_macro(*f.as<macro>().definition, n);
    if (f.is<builtin>()) return call_builtin(f.as<builtin>().name, arguments(n), here(n));
    if (f.is<undefined>()) refuse(n.line, "calls \"{}\", which is undefined", shown(f.as<undefined>().name));
    refuse(n.line, "calls {}", kind_name(f));
  }
  value call_macro(node const& m, node const& n) {
    inside const guard(*this, n);
    call_arguments const given = arguments(n);
    std::size_t const count = m.words.size();
    if (given.in_order.size() > count)
      refuse(n.line, "gives the macro \"{}\" {} arguments", shown(m.word), given.in_order.size());
    for (auto const& [name, v] : given.named)
      if (std::find(m.words.begin(), m.words.end(), name) == m.words.end())
        refuse(n.line, "gives the macro \"{}\" the argument \"{}\", which it does not have", shown(m.word),
               shown(name));
    std::size_t const old_frame = frame_;
    frame_ = scopes_.size();
    scopes_.emplace_back();
    for (std::size_t i = 0; i < count; ++i) {
      value v = undefined{m.words[i]};
      bool found = i < given.in_order.size();
      if (found) v = given.in_order[i];
      for (auto const& [name, named] : given.named)
        if (name == m.words[i]) v = named, found = true;
      if (!found && m.parts[i + 1]) v = evaluate(*m.parts[i + 1]);
      set(m.words[i], std::move(v), n.line);
    }
    chat_text words;
    run(*m.parts[0], words);
    scopes_.pop_back();
    frame_ = old_frame;
    return value(std::move(words));
  }
  value call_builtin(std::string_view name, call_arguments const& given, place at) {
    if (name == "range") {
      taken_arguments const a("range", given, {"first", "last", "step"}, at);
      std::int64_t first = a.integer(0, 0), last = a.integer(1, 0);
      std::int64_t const step = a.integer(2, 1);
      if (!a.has(1)) last = std::exchange(first, 0);
      if (step == 0) refuse(at.line, "counts in steps of 0");
      std::vector<value> out;
      for (std::int64_t i = first; step > 0 ? i < last : i > last;) {
        if (out.size() >= limits::range) refuse(at.line, "counts through more than {} numbers", limits::range);
        out.emplace_back(i);
        if (__builtin_add_overflow(i, step, &i)) break;
      }
      return made_list(std::move(out), at);
    }
    if (name == "raise_exception") {
      taken_arguments const a("raise_exception", given, {"message"}, at);
      throw raised{at.line, shown(printed(a.get(0), at).bytes(), 200)};
    }
    if (name == "strftime_now") {
      taken_arguments const a("strftime_now", given, {"format"}, at);
      work_.bytes(at.line, a.bytes(0).size());
      return value::own(formatted_date(day_, a.bytes(0), at.line));
    }
    std::vector<std::pair<chat_text, value>> entries;
    if (given.in_order.size() > 1) refuse(at.line, "gives {} {} arguments", name, given.in_order.size());
    for (value const& v : given.in_order) {
      if (!v.is_mapping()) refuse(at.line, "makes a {} of {}", name, kind_name(v));
      for (auto const& [key, each] : v.entries()) work_.bytes(at.line, key.size());
      entries = v.entries();
    }
    for (auto const& [key, v] : given.named) put(entries, chat_text().control(key), v, at.line);
    if (name == "dict") return made_mapping(std::move(entries), at);
    name_space& made = spaces_.emplace_back();
    for (auto& [key, v] : entries) made.entries.emplace_back(key.bytes(), std::move(v));
    return &made;
  }

  budget work_;
  std::chrono::year_month_day day_;
  std::deque<name_space> spaces_;  // owned here, so that a namespace that holds itself is freed
  std::vector<names> scopes_;      // the first has what is given and what is set outside of loops and macros
  std::size_t frame_ = 0;          // the first scope of the macro that runs
  int depth_ = 0;
};

}  // namespace detail

ATMANRL_INLINE chat_text run(node const& tree, names const& given, std::chrono::year_month_day day) {
  return detail::interpreter(given, day).render(tree);
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
