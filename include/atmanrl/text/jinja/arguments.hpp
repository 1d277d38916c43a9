#pragma once

/// \file
/// The arguments of a call, put to the parameters of what is called.

#include <atmanrl/text/jinja/operations.hpp>

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::jinja {

struct call_arguments {
  std::vector<value> in_order;
  std::vector<std::pair<std::string, value>> named;
};

/// The work of a filter or a test, which looks through the texts that it is given.
inline void read_texts(value const& v, call_arguments const& arguments, place at) {
  auto const read = [&](value const& each) { at.work.read(at.line, each.is_text() ? each.bytes().size() : 0); };
  read(v);
  for (value const& each : arguments.in_order) read(each);
  for (auto const& [name, each] : arguments.named) read(each);
}

/// Arguments of one call of `what`, by the names of its parameters.
class taken_arguments {
 public:
  /// \throws mistake when there are more than `names`, or one has another name
  taken_arguments(std::string_view what, call_arguments const& from, std::initializer_list<std::string_view> names,
                  place at)
      : what_(what), at_(at) {
    if (from.in_order.size() > names.size()) refuse(at.line, "gives {} {} arguments", what, from.in_order.size());
    std::size_t i = 0;
    for (std::string_view const name : names) {
      value const* found = i < from.in_order.size() ? &from.in_order[i] : nullptr;
      for (auto const& [given, v] : from.named)
        if (given == name) found = &v;
      given_.push_back(found);
      ++i;
    }
    for (auto const& [given, v] : from.named)
      if (std::find(names.begin(), names.end(), given) == names.end())
        refuse(at.line, "gives {} the argument \"{}\", which is not known here", what, shown(given));
  }

  bool has(std::size_t i) const { return given_[i] != nullptr; }
  bool has_any(std::size_t i) const { return has(i) && !given_[i]->is<none>(); }
  value const& get(std::size_t i) const {
    if (!has(i)) refuse(at_.line, "gives {} too few arguments", what_);
    return *given_[i];
  }
  chat_text const& words(std::size_t i) const {
    if (!get(i).is_text()) wrong(i, "a text");
    return get(i).words();
  }
  std::string const& bytes(std::size_t i) const { return words(i).bytes(); }
  std::int64_t integer(std::size_t i, std::int64_t missing) const {
    if (!has_any(i)) return missing;
    if (!get(i).is_integer()) wrong(i, "a whole number");
    return get(i).integer();
  }
  bool truth(std::size_t i, bool missing) const { return has(i) ? is_true(get(i)) : missing; }

 private:
  [[noreturn]] void wrong(std::size_t i, std::string_view wanted) const {
    refuse(at_.line, "gives {} {} where {} belongs", what_, kind_name(*given_[i]), wanted);
  }

  std::string what_;
  place at_;
  std::vector<value const*> given_;
};

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
