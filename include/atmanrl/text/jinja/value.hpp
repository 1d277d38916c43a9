#pragma once

/// \file
/// The values that a chat template computes with: Python's, as far as Jinja templates of chats see them. Texts, lists
/// and mappings are immutable and shared; a namespace is the one thing that can be changed.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/chat_text.hpp>

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::jinja {

/// A name that has no value. It prints as nothing, counts as false, and arithmetic with it is an error.
struct undefined {
  std::string name;

  /// Only for errors, which show less of it: the name that a template asks for may be a text of megabytes.
  static undefined called(std::string_view name) { return {std::string(name.substr(0, 256))}; }
};
struct none {};
struct list;
struct mapping;
struct name_space;
struct loop_state;
struct node;

/// A function of the template's surroundings, by its name.
struct builtin {
  std::string_view name;
};
/// A macro of the template, by its place in the syntax tree.
struct macro {
  node const* definition;
};

using text = std::shared_ptr<chat_text const>;

/// One value. `is<T>` and `as<T>` tell and give its kind.
class value {
 public:
  using kinds =
      std::variant<undefined, none, bool, std::int64_t, double, text, std::shared_ptr<list const>,
                   std::shared_ptr<mapping const>, name_space*, std::shared_ptr<loop_state const>, builtin, macro>;

  value() : kind_(undefined{}) {}
  template <class T>
  requires(!std::same_as<T, value> && std::is_constructible_v<kinds, std::in_place_type_t<T>, T>) value(T v)
      : kind_(std::in_place_type<T>, std::move(v)) {}
  value(chat_text t) : kind_(std::make_shared<chat_text const>(std::move(t))) {}

  /// A text of the template's own.
  static value own(std::string_view words) { return value(chat_text().control(words)); }

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(kind_);
  }
  template <class T>
  T const& as() const {
    return std::get<T>(kind_);
  }
  bool is_text() const { return is<text>(); }
  bool is_list() const { return is<std::shared_ptr<list const>>(); }
  bool is_mapping() const { return is<std::shared_ptr<mapping const>>(); }
  bool is_integer() const { return is<std::int64_t>() || is<bool>(); }
  bool is_number() const { return is_integer() || is<double>(); }

  chat_text const& words() const { return *as<text>(); }
  std::string const& bytes() const { return words().bytes(); }
  std::vector<value> const& items() const;
  std::vector<std::pair<chat_text, value>> const& entries() const;
  std::int64_t integer() const { return is<bool>() ? std::int64_t(as<bool>()) : as<std::int64_t>(); }
  double real() const { return is<double>() ? as<double>() : double(integer()); }
  /// How deep lists and mappings are nested in it.
  int depth() const;

 private:
  kinds kind_;
};

struct list {
  std::vector<value> items;
  int depth = 1;
  bool is_tuple = false;  ///< prints with round brackets
};
struct mapping {
  std::vector<std::pair<chat_text, value>> entries;  ///< in the order of insertion
  int depth = 1;

  value const* find(std::string_view key) const {
    for (auto const& [name, v] : entries)
      if (name.bytes() == key) return &v;
    return nullptr;
  }
};
struct name_space {
  std::vector<std::pair<std::string, value>> entries;

  value const* find(std::string_view key) const {
    for (auto const& [name, v] : entries)
      if (name == key) return &v;
    return nullptr;
  }
};
/// What `loop` is inside a for.
struct loop_state {
  std::shared_ptr<list const> items;
  std::int64_t index0 = 0;
};

inline std::vector<value> const& value::items() const { return as<std::shared_ptr<list const>>()->items; }
inline std::vector<std::pair<chat_text, value>> const& value::entries() const {
  return as<std::shared_ptr<mapping const>>()->entries;
}
inline int value::depth() const {
  return is_list()      ? as<std::shared_ptr<list const>>()->depth
         : is_mapping() ? as<std::shared_ptr<mapping const>>()->depth
                        : 0;
}

/// A list, or a mapping, with the depth that its items give it.
inline value list_of(std::vector<value> items, bool is_tuple = false) {
  int depth = 1;
  for (value const& v : items) depth = std::max(depth, v.depth() + 1);
  return std::make_shared<list const>(list{std::move(items), depth, is_tuple});
}
inline value mapping_of(std::vector<std::pair<chat_text, value>> entries) {
  int depth = 1;
  for (auto const& [name, v] : entries) depth = std::max(depth, v.depth() + 1);
  return std::make_shared<mapping const>(mapping{std::move(entries), depth});
}

/// What Python calls the kind of a value, for errors.
inline std::string_view kind_name(value const& v) {
  if (v.is<undefined>()) return "nothing (undefined)";
  if (v.is<none>()) return "none";
  if (v.is<bool>()) return "a truth value";
  if (v.is_integer()) return "a whole number";
  if (v.is<double>()) return "a number";
  if (v.is_text()) return "a text";
  if (v.is_list()) return "a list";
  if (v.is_mapping()) return "a mapping";
  if (v.is<name_space*>()) return "a namespace";
  if (v.is<std::shared_ptr<loop_state const>>()) return "the state of a loop";
  return "a function";
}

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
