#pragma once

/// \file
/// From a template's words to its syntax tree, by Jinja's grammar. Statements that no chat template needs (include,
/// extends, import ...) are refused by name.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/jinja/lexer.hpp>
#include <atmanrl/text/jinja/syntax.hpp>

#include <initializer_list>
#include <memory>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::jinja {

/// \throws mistake for what is not read here
std::unique_ptr<node> parse(std::string_view source);

#if ATMANRL_BODIES

namespace detail {

class parser {
  using part = std::unique_ptr<node>;
  using kinds = token::kinds;

 public:
  explicit parser(std::string_view source) : tokens_(tokens_of(source)) {}

  part run() { return statements({}); }

 private:
  // ---- words ----
  token const& now() const { return tokens_[at_]; }
  token const& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  token const& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool skip(std::string_view sign) {
    bool const there = now().is(sign);
    if (there) take();
    return there;
  }
  bool skip_name(std::string_view name) {
    bool const there = now().is_name(name);
    if (there) take();
    return there;
  }
  static std::string described(token const& t) {
    if (t.kind == kinds::end) return "the end of the template";
    if (t.kind == kinds::close_block || t.kind == kinds::close_output) return "the end of the tag";
    return fmt::format("\"{}\"", shown(t.text));
  }
  [[noreturn]] void unexpected() const { refuse(now().line, "has {} where it is not understood", described(now())); }
  void want(std::string_view sign) {
    if (!skip(sign)) refuse(now().line, "has {} where \"{}\" belongs", described(now()), sign);
  }
  void want_name(std::string_view name) {
    if (!skip_name(name)) refuse(now().line, "has {} where \"{}\" belongs", described(now()), name);
  }
  std::string name() {
    if (now().kind != kinds::name) refuse(now().line, "has {} where a name belongs", described(now()));
    return take().text;
  }
  void close() {
    if (now().kind != kinds::close_block) unexpected();
    take();
  }

  // ---- nodes ----
  part make(node_kind kind, int line) const {
    auto n = std::make_unique<node>();
    n->kind = kind;
    n->line = line;
    return n;
  }
  void add(node& to, part from) const {
    if (from) {
      to.depth = std::max(to.depth, from->depth + 1);
      if (to.depth > limits::syntax_depth) refuse(to.line, "is nested more than {} deep", limits::syntax_depth);
    }
    to.parts.push_back(std::move(from));
  }
  part binary(std::string_view sign, int line, part left, part right) const {
    part n = make(node_kind::binary, line);
    n->word = sign;
    add(*n, std::move(left));
    add(*n, std::move(right));
    return n;
  }
  /// Guards the recursion of the parser itself.
  struct inside {
    explicit inside(parser& p) : p_(p) {
      if (++p_.depth_ > limits::syntax_depth)
        refuse(p_.now().line, "is nested more than {} deep", limits::syntax_depth);
    }
    ~inside() { --p_.depth_; }
    parser& p_;
  };

  // ---- expressions, from the loosest to the tightest ----
  part expression(bool with_choice = true) {
    inside const guard(*this);
    part left = either();
    while (with_choice && now().is_name("if")) {
      part n = make(node_kind::choice, take().line);
      part condition = either(), other;
      if (skip_name("else")) other = expression();
      add(*n, std::move(left));
      add(*n, std::move(condition));
      add(*n, std::move(other));
      left = std::move(n);
    }
    return left;
  }
  part either() {
    part left = both();
    while (now().is_name("or")) {
      int const line = take().line;
      left = binary("or", line, std::move(left), both());
    }
    return left;
  }
  part both() {
    part left = negation();
    while (now().is_name("and")) {
      int const line = take().line;
      left = binary("and", line, std::move(left), negation());
    }
    return left;
  }
  part negation() {
    if (!now().is_name("not")) return comparison();
    inside const guard(*this);
    part n = make(node_kind::unary, take().line);
    n->word = "not";
    add(*n, negation());
    return n;
  }
  part comparison() {
    part left = sum(), n;
    while (true) {
      std::string sign;
      for (std::string_view const s : {"==", "!=", "<=", ">=", "<", ">"})
        if (now().is(s)) sign = s;
      if (now().is_name("in")) sign = "in";
      bool const not_in = now().is_name("not") && ahead().is_name("in");
      if (not_in) sign = "not in";
      if (sign.empty()) break;
      int const line = take().line;
      if (not_in) take();
      if (!n) {
        n = make(node_kind::comparison, line);
        add(*n, std::move(left));
      }
      n->words.push_back(sign);
      add(*n, sum());
    }
    return n ? std::move(n) : std::move(left);
  }
  /// One level of operators that group from the left.
  template <class Next>
  part chain(std::initializer_list<std::string_view> signs, Next&& next) {
    part left = next();
    while (true) {
      std::string_view found;
      for (std::string_view const s : signs)
        if (now().is(s)) found = s;
      if (found.empty()) return left;
      int const line = take().line;
      left = binary(found, line, std::move(left), next());
    }
  }
  part sum() {
    return chain({"+", "-"}, [&] { return chain({"~"}, [&] { return product(); }); });
  }
  part product() {
    return chain({"*", "/", "//", "%"}, [&] { return chain({"**"}, [&] { return unary(true); }); });
  }
  part unary(bool with_filters) {
    inside const guard(*this);
    part n;
    if (now().is("-") || now().is("+")) {
      n = make(node_kind::unary, now().line);
      n->word = take().text;
      add(*n, unary(false));
    } else {
      n = primary();
    }
    n = postfix(std::move(n));
    return with_filters ? filters(std::move(n)) : std::move(n);
  }
  part constant(value v, int line) const {
    part n = make(node_kind::constant, line);
    n->constant = std::move(v);
    return n;
  }
  part primary() {
    token const t = now();
    switch (t.kind) {
      case kinds::name:
        take();
        if (t.text == "true" || t.text == "True") return constant(true, t.line);
        if (t.text == "false" || t.text == "False") return constant(false, t.line);
        if (t.text == "none" || t.text == "None") return constant(none{}, t.line);
        {
          part n = make(node_kind::name, t.line);
          n->word = t.text;
          return n;
        }
      case kinds::text: {
        std::string words;
        while (now().kind == kinds::text) words += take().text;
        return constant(value::own(words), t.line);
      }
      case kinds::integer: {
        std::int64_t number = 0;
        auto const [end, problem] = std::from_chars(t.text.data(), t.text.data() + t.text.size(), number);
        if (problem != std::errc{}) refuse(t.line, "has a number that is too large");
        take();
        return constant(number, t.line);
      }
      case kinds::real: {
        double number = 0;
        auto const [end, problem] = std::from_chars(t.text.data(), t.text.data() + t.text.size(), number);
        if (problem != std::errc{}) refuse(t.line, "has a number that is too large");
        take();
        return constant(number, t.line);
      }
      default:
        break;
    }
    if (skip("(")) {
      part n = tuple(true, true);
      want(")");
      return n;
    }
    if (skip("[")) {
      part n = make(node_kind::list, t.line);
      while (!now().is("]")) {
        add(*n, expression());
        if (!skip(",")) break;
      }
      want("]");
      return n;
    }
    if (skip("{")) {
      part n = make(node_kind::mapping, t.line);
      while (!now().is("}")) {
        add(*n, expression());
        want(":");
        add(*n, expression());
        if (!skip(",")) break;
      }
      want("}");
      return n;
    }
    unexpected();
  }
  /// One expression, or several between commas.
  part tuple(bool with_choice, bool may_be_empty) {
    int const line = now().line;
    auto const ends = [&] {
      return now().is(")") || now().kind == kinds::close_block || now().kind == kinds::close_output;
    };
    part first, n;
    if (may_be_empty && ends()) return make(node_kind::tuple, line);
    first = expression(with_choice);
    if (!now().is(",")) return first;
    n = make(node_kind::tuple, line);
    add(*n, std::move(first));
    while (skip(",") && !ends()) add(*n, expression(with_choice));
    return n;
  }
  part postfix(part n) {
    while (true) {
      int const line = now().line;
      if (skip(".")) {
        part to = make(now().kind == kinds::integer ? node_kind::item : node_kind::attribute, line);
        add(*to, std::move(n));
        if (now().kind == kinds::integer)
          add(*to, primary());
        else
          to->word = name();
        n = std::move(to);
      } else if (skip("[")) {
        n = subscript(std::move(n), line);
      } else if (now().is("(")) {
        n = call(std::move(n));
      } else {
        return n;
      }
    }
  }
  part subscript(part object, int line) {
    part first, n;
    if (!now().is(":")) first = expression();
    if (!now().is(":")) {
      n = make(node_kind::item, line);
      add(*n, std::move(object));
      add(*n, std::move(first));
      if (now().is(",")) refuse(line, "looks something up by several keys at once");
    } else {
      n = make(node_kind::slice, line);
      add(*n, std::move(object));
      add(*n, std::move(first));
      for (int i = 0; i < 2; ++i) {
        part bound;
        if (skip(":") && !now().is("]") && !now().is(":")) bound = expression();
        add(*n, std::move(bound));
      }
    }
    want("]");
    return n;
  }
  /// Arguments in brackets, after what stands in `to` already.
  void arguments(node& to) {
    want("(");
    while (!now().is(")")) {
      if (now().is("*") || now().is("**")) refuse(now().line, "hands a list over as arguments (*)");
      if (now().kind == kinds::name && ahead().is("=")) {
        std::string const key = take().text;
        take();
        part n = expression();
        to.depth = std::max(to.depth, n->depth + 1);
        to.named.emplace_back(key, std::move(n));
      } else {
        if (!to.named.empty()) unexpected();
        add(to, expression());
      }
      if (!skip(",")) break;
    }
    want(")");
  }
  part call(part function) {
    part n = make(node_kind::call, now().line);
    add(*n, std::move(function));
    arguments(*n);
    return n;
  }
  std::string dotted_name() {
    std::string out = name();
    while (skip(".")) out += "." + name();
    return out;
  }
  part filters(part n) {
    while (true) {
      if (now().is("|")) {
        n = filter(std::move(n));
      } else if (now().is_name("is")) {
        n = test(std::move(n));
      } else if (now().is("(")) {
        n = call(std::move(n));
      } else {
        return n;
      }
    }
  }
  part filter(part object) {
    part n = make(node_kind::filter, take().line);
    n->word = dotted_name();
    add(*n, std::move(object));
    if (now().is("(")) arguments(*n);
    return n;
  }
  part test(part object) {
    int const line = take().line;
    bool const negated = skip_name("not");
    part n = make(node_kind::test, line);
    n->word = dotted_name();
    add(*n, std::move(object));
    bool const word = now().kind == kinds::name || now().kind == kinds::text || now().kind == kinds::integer ||
                      now().kind == kinds::real || now().is("[") || now().is("{");
    if (now().is("(")) {
      arguments(*n);
    } else if (word && !now().is_name("else") && !now().is_name("or") && !now().is_name("and")) {
      if (now().is_name("is")) refuse(now().line, "has a test of a test");
      if (!now().is_name("if") && !now().is_name("not") && !now().is_name("in")) add(*n, postfix(primary()));
    }
    if (!negated) return n;
    part turned = make(node_kind::unary, line);
    turned->word = "not";
    add(*turned, std::move(n));
    return turned;
  }

  // ---- statements ----
  /// Statements up to a tag of one of these names, which is left standing after its open bracket.
  part statements(std::initializer_list<std::string_view> ends) {
    inside const guard(*this);
    part out = make(node_kind::block, now().line);
    while (true) {
      token const& t = now();
      if (t.kind == kinds::end) {
        if (ends.size() == 0) return out;
        refuse(out->line, "has a block that begins here and does not end: \"{}\" is missing", *(ends.end() - 1));
      } else if (t.kind == kinds::data) {
        part n = make(node_kind::data, t.line);
        n->constant = value::own(take().text);
        add(*out, std::move(n));
      } else if (t.kind == kinds::open_output) {
        part n = make(node_kind::output, take().line);
        add(*n, tuple(true, false));
        if (now().kind != kinds::close_output) unexpected();
        take();
        add(*out, std::move(n));
      } else {
        take();
        for (std::string_view const end : ends)
          if (now().is_name(end)) return out;
        add(*out, statement());
      }
    }
  }
  part statement() {
    int const line = now().line;
    std::string const word = name();
    if (word == "for") return each(line);
    if (word == "if") return branch(line);
    if (word == "set") return assign(line);
    if (word == "macro") return macro(line);
    if (word == "generation") {  // marks the assistant's words for training; the text is that of the body
      close();
      part body = statements({"endgeneration"});
      take();
      close();
      return body;
    }
    if (word == "break" || word == "continue") {
      if (loops_ == 0) refuse(line, "has \"{}\" outside of a loop", word);
      close();
      return make(word == "break" ? node_kind::leave_loop : node_kind::next_item, line);
    }
    refuse(line, "uses the statement \"{}\", which is not followed here", shown(word));
  }
  /// Names that a value is given to.
  std::vector<std::string> targets() {
    std::vector<std::string> out;
    bool const bracket = skip("(");
    do {
      if (now().is(")") || now().is_name("in")) break;
      std::string const each = name();
      for (std::string_view const fixed : {"true", "false", "none", "True", "False", "None", "loop"})
        if (each == fixed) refuse(now().line, "gives \"{}\" a value", each);
      out.push_back(each);
    } while (skip(","));
    if (bracket) want(")");
    return out;
  }
  part each(int line) {
    part n = make(node_kind::each, line);
    n->words = targets();
    want_name("in");
    add(*n, tuple(false, false));
    part condition, nothing;
    if (skip_name("if")) condition = expression();
    if (now().is_name("recursive")) refuse(line, "has a loop that calls itself (recursive)");
    add(*n, std::move(condition));
    close();
    ++loops_;
    add(*n, statements({"else", "endfor"}));
    --loops_;
    if (skip_name("else")) {
      close();
      nothing = statements({"endfor"});
    }
    take();
    close();
    add(*n, std::move(nothing));
    return n;
  }
  part branch(int line) {
    part n = make(node_kind::branch, line), other;
    while (true) {
      add(*n, tuple(true, false));
      close();
      add(*n, statements({"elif", "else", "endif"}));
      if (!skip_name("elif")) break;
    }
    if (skip_name("else")) {
      close();
      other = statements({"endif"});
    }
    take();
    close();
    add(*n, std::move(other));
    return n;
  }
  part assign(int line) {
    std::vector<std::string> names;
    bool const attribute = now().kind == kinds::name && ahead().is(".");
    if (attribute) {
      names.push_back(name());
      take();
      names.push_back(name());
    } else {
      names = targets();
    }
    part n;
    if (skip("=")) {
      n = make(node_kind::assign, line);
      add(*n, tuple(true, false));
      close();
    } else {
      n = make(node_kind::assign_block, line);
      part chain;
      while (now().is("|")) chain = filter(std::move(chain));
      close();
      add(*n, statements({"endset"}));
      take();
      close();
      add(*n, std::move(chain));
    }
    n->words = std::move(names);
    if (attribute) n->word = ".";
    return n;
  }
  part macro(int line) {
    if (loops_ > 0 || in_macro_) refuse(line, "has a macro inside of a loop or a macro");
    part n = make(node_kind::macro, line);
    n->word = name();
    want("(");
    std::vector<part> defaults;
    while (!now().is(")")) {
      n->words.push_back(name());
      defaults.push_back(skip("=") ? expression() : nullptr);
      if (!skip(",")) break;
    }
    want(")");
    close();
    in_macro_ = true;
    add(*n, statements({"endmacro"}));
    in_macro_ = false;
    take();
    if (now().kind == kinds::name) take();
    close();
    for (part& d : defaults) add(*n, std::move(d));
    return n;
  }

  std::vector<token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0, loops_ = 0;
  bool in_macro_ = false;
};

}  // namespace detail

ATMANRL_INLINE std::unique_ptr<node> parse(std::string_view source) { return detail::parser(source).run(); }

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
