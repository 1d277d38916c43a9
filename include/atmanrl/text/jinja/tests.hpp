#pragma once

/// \file
/// Jinja's tests: what stands after `is`.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/jinja/arguments.hpp>
#include <atmanrl/text/jinja/methods.hpp>

namespace atmanrl::inline ATMANRL_ABI::jinja {

/// `v is name(arguments)`
bool passes_test(value const& v, std::string_view name, call_arguments const& arguments, place at);

#if ATMANRL_BODIES

ATMANRL_INLINE bool passes_test(value const& v, std::string_view name, call_arguments const& arguments, place at) {
  read_texts(v, arguments, at);
  auto const other = [&]() -> value const& {
    if (arguments.in_order.size() != 1 || !arguments.named.empty())
      refuse(at.line, "gives the test \"{}\" not exactly one argument", shown(name));
    return arguments.in_order[0];
  };
  if (name == "eq" || name == "equalto" || name == "==") return equal(v, other(), at);
  if (name == "ne" || name == "!=") return !equal(v, other(), at);
  if (name == "lt" || name == "lessthan" || name == "<") return compare(v, other(), at) < 0;
  if (name == "le" || name == "<=") return compare(v, other(), at) <= 0;
  if (name == "gt" || name == "greaterthan" || name == ">") return compare(v, other(), at) > 0;
  if (name == "ge" || name == ">=") return compare(v, other(), at) >= 0;
  if (name == "in") return contains(other(), v, at);
  if (name == "sameas") {
    value const& o = other();
    bool const simple = v.is<bool>() || v.is<none>() || o.is<bool>() || o.is<none>();
    if (!simple) refuse(at.line, "asks whether {} and {} are the same object", kind_name(v), kind_name(o));
    return v.is<bool>() == o.is<bool>() && v.is<none>() == o.is<none>() && equal(v, o, at);
  }
  if (name == "divisibleby") return equal(combine("%", v, other(), at), value(std::int64_t(0)), at);
  if (!arguments.in_order.empty() || !arguments.named.empty())
    refuse(at.line, "gives the test \"{}\" an argument", shown(name));
  if (name == "defined") return !v.is<undefined>();
  if (name == "undefined") return v.is<undefined>();
  if (name == "none") return v.is<none>();
  if (name == "boolean") return v.is<bool>();
  if (name == "true") return v.is<bool>() && v.as<bool>();
  if (name == "false") return v.is<bool>() && !v.as<bool>();
  if (name == "integer") return v.is<std::int64_t>();
  if (name == "float") return v.is<double>();
  if (name == "number") return v.is_number();
  if (name == "string") return v.is_text();
  if (name == "mapping") return v.is_mapping();
  if (name == "iterable" || name == "sequence")
    return v.is_text() || v.is_list() || v.is_mapping() || v.is<undefined>();
  if (name == "callable") return v.is<builtin>() || v.is<macro>();
  if (name == "odd" || name == "even") {
    if (!v.is_integer()) refuse(at.line, "asks whether {} is {}", kind_name(v), name);
    return (v.integer() % 2 != 0) == (name == "odd");
  }
  if (name == "upper" || name == "lower")
    return v.is_text() && is_true(call_method(v, name == "upper" ? "isupper" : "islower", {}, at));
  refuse(at.line, "uses the test \"{}\", which is not followed here", shown(name));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
