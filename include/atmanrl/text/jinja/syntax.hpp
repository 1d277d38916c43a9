#pragma once

/// \file
/// The syntax tree of a chat template. One kind of node for expressions and statements alike: what its parts mean
/// stands beside its kind.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/jinja/value.hpp>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::jinja {

enum class node_kind {
  // expressions
  constant,    ///< `constant`
  name,        ///< `word`
  list,        ///< parts: items
  tuple,       ///< parts: items
  mapping,     ///< parts: key, value, key, value ...
  attribute,   ///< parts: object; `word`
  item,        ///< parts: object, key
  slice,       ///< parts: object, first, last, step; each of the last three may be null
  call,        ///< parts: function, arguments ...; `named`
  filter,      ///< parts: value, arguments ...; `word`, `named`; a null value: the block that it stands after
  test,        ///< parts: value, arguments ...; `word`
  unary,       ///< parts: value; `word`: not, -, +
  binary,      ///< parts: left, right; `word`: and, or, +, -, *, /, //, %, **, ~
  comparison,  ///< parts: first, second, ...; `words`: one operator fewer
  choice,      ///< parts: value, condition, other value or null
  // statements
  data,          ///< `constant`: text as it stands
  output,        ///< parts: value
  block,         ///< parts: statements
  each,          ///< parts: items, condition or null, body, body for no items or null; `words`: names of an item
  branch,        ///< parts: condition, body, condition, body ..., body of else or null
  assign,        ///< parts: value; `words`: names, or a namespace and its attribute where `word` is "."
  assign_block,  ///< parts: body, filter or null; `words` as above
  macro,         ///< parts: body, default values (null for none) ...; `word`; `words`: parameters
  leave_loop,    ///< break
  next_item      ///< continue
};

struct node {
  node_kind kind;
  int line = 1;
  int depth = 1;  ///< of the tree below, itself included
  std::string word{};
  std::vector<std::string> words{};
  value constant{};
  std::vector<std::unique_ptr<node>> parts{};
  std::vector<std::pair<std::string, std::unique_ptr<node>>> named{};  ///< arguments with a name
};

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
