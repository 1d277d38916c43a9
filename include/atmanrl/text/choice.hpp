#pragma once

/// \file
/// Letters that name a choice, in text: which are words of their own and no article, which one a phrase such as "the
/// answer is" points at, and where two of them leave the choice open.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/number_reading.hpp>
#include <atmanrl/text/utf8.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

constexpr bool is_word_character(char32_t c) {
  if (c < 0x80) return is_digit(char(c)) || is_letter(char(c)) || c == '_';
  return c >= 0xc0 && c < 0x2000 && c != 0xd7 && c != 0xf7;  // letters; above are punctuation, symbols and ideographs
}

/// True when text[at] is a letter that is a word of its own. In "B-cell", "C++", "A's", "D.C." and beside "é" it is
/// not.
inline bool is_lone_letter(std::string_view text, std::size_t at) {
  if (!is_letter(text[at])) return false;
  auto const letter_at = [&](std::size_t i) { return i < text.size() && is_letter(text[i]); };
  // Whether the sign text[sign] ties the letter to another one; a full stop does so in "D.C." but not in "B.The".
  auto const ties = [&](std::size_t sign, std::size_t neighbour, std::size_t after_neighbour) {
    if (sign >= text.size() || !letter_at(neighbour)) return false;
    return text[sign] == '-' || text[sign] == '\'' || (text[sign] == '.' && !letter_at(after_neighbour));
  };
  if (at > 0) {
    std::size_t begin = at - 1;
    while (begin > 0 && at - begin < 4 && (std::uint8_t(text[begin]) & 0xc0) == 0x80) --begin;
    utf8_unit const before = next_utf8(text.substr(begin, at - begin));
    bool const whole = before.kind == utf8_unit::state::valid && before.length == at - begin;
    if (whole && is_word_character(before.code)) return false;
    // Positions before the text wrap around to huge ones, where no letter is.
    if (ties(at - 1, at - 2, at - 3)) return false;
  }
  std::string_view const rest = text.substr(at + 1);
  if (rest.empty()) return true;
  utf8_unit const after = next_utf8(rest);
  if (after.kind == utf8_unit::state::valid && is_word_character(after.code)) return false;
  return !ties(at + 1, at + 2, at + 3) && rest[0] != '+' && rest[0] != '#';
}

/// Finds the choices that a text names.
/// \param text     of `plain_math`
/// \param choices  letters from A on that are answers
class choice_reader {
 public:
  choice_reader(std::string_view text, int choices) : text_(text), lower_(lower_case(text)), choices_(choices) {}

  /// The last phrase that introduces an answer ("the answer is B", "I choose B", "-> B", "Final: B" at a line's end);
  /// once there is one, nothing after the next question of a text that goes on counts.
  reading introduced() const {
    reading out;
    for (std::size_t at = 0; at < text_.size(); ++at) {
      if (out.kind != reading::state::nothing && next_question_at(at)) break;
      std::size_t const after = introduction_at(at);
      if (after == 0) continue;
      if (reading found = pointed_at(after); found.kind != reading::state::nothing) out = std::move(found);
    }
    return out;
  }

  /// The choice of one line after a mark.
  reading line() const {
    if (reading out = introduced(); out.kind != reading::state::nothing) return out;
    std::size_t const front = skip_openers(0);
    if (front < text_.size() && is_lone_letter(text_, front)) {
      bool const article = !names_choice(front) || (text_[front] == 'A' && noun_follows(front));
      if (!article) return is_choice(front) ? with_rivals(front) : reading{reading::state::unclear};
    }
    // "option B"
    for (std::size_t at = 0; at < text_.size(); ++at)
      for (std::string_view const word : {"option", "choice", "letter", "answer", "\xe9\x80\x89\xe9\xa1\xb9"})
        if (word_at(at, word))
          if (reading found = pointed_at(at + word.size()); found.kind != reading::state::nothing) return found;
    reading out;
    for (std::size_t at = 0; at < text_.size(); ++at) {
      if (!is_choice(at) || !names_choice(at) || is_leading_article(at) || is_negated(at)) continue;
      std::string letter(1, to_upper(text_[at]));
      if (out.kind == reading::state::value && out.value != letter) return {reading::state::unclear};
      out = {reading::state::value, std::move(letter), false};
    }
    return out;
  }

  /// The last letter that stands alone. A small letter is an answer only in brackets, as in "(b)"; elsewhere it may be
  /// a variable or an article.
  reading last_alone() const {
    for (std::size_t at = text_.size(); at-- > 0;) {
      if (!is_choice(at) || !names_choice(at) || is_negated(at)) continue;
      bool const capital = text_[at] <= 'Z';
      bool const bracketed = at > 0 && at + 1 < text_.size() && text_[at - 1] == '(' && text_[at + 1] == ')';
      if (bracketed || (capital && !is_leading_article(at)))
        return {reading::state::value, std::string(1, to_upper(text_[at])), false};
    }
    return {};
  }

 private:
  static bool is_opener(char c) { return std::string_view(" \t:*_\"'([<$\x1a\x1f").find(c) != std::string_view::npos; }

  bool word_at(std::size_t at, std::string_view word) const {
    if (!std::string_view(lower_).substr(at).starts_with(word)) return false;
    std::size_t const end = at + word.size();
    return (at == 0 || !is_letter(lower_[at - 1])) && (end >= lower_.size() || !is_letter(lower_[end]));
  }
  bool is_choice(std::size_t at) const { return is_lone_letter(text_, at) && to_upper(text_[at]) - 'A' < choices_; }

  std::string_view word_after(std::size_t at) const {
    std::size_t const begin = std::min(lower_.find_first_not_of(" \x1a", at), lower_.size());
    std::size_t end = begin;
    while (end < lower_.size() && (is_letter(lower_[end]) || lower_[end] == '\'')) ++end;
    return std::string_view(lower_).substr(begin, end - begin);
  }
  static bool is_verb(std::string_view word) {
    for (std::string_view const verb : {"is", "isn't", "was", "are", "would", "fails", "fail", "can", "cannot", "can't",
                                        "has", "does", "doesn't", "could", "seems", "contradicts"})
      if (word == verb) return true;
    return false;
  }
  /// A word that goes on after "A" as a letter, not as an article.
  static bool continues(std::string_view word) {
    return is_verb(word) || word == "and" || word == "or" || word == "because" || word == "since" || word == "but" ||
           word == "as";
  }
  bool noun_follows(std::size_t at) const {
    if (at + 2 >= text_.size() || text_[at + 1] != ' ' || text_[at + 2] < 'a' || text_[at + 2] > 'z') return false;
    return !continues(word_after(at + 1));
  }
  /// False for the article "a" and, in a long list of choices, for "I".
  bool names_choice(std::size_t at) const {
    if (text_[at] == 'I') return !noun_follows(at);
    if (text_[at] != 'a' && text_[at] != 'i') return true;
    return at + 1 == text_.size() || text_[at + 1] != ' ' || continues(word_after(at + 1));
  }
  /// True for "A" that begins a sentence and is followed by a noun, as in "A dog barks", but not in "A is right".
  bool is_leading_article(std::size_t at) const {
    if (text_[at] != 'A') return false;
    std::string_view before = text_.substr(0, at);
    while (before.ends_with(' ')) before.remove_suffix(1);
    if (!before.empty() && std::string_view(".!?:#\n\x1a").find(before.back()) == std::string_view::npos) return false;
    return noun_follows(at);
  }
  /// True after "not" and "isn't".
  bool is_negated(std::size_t at) const {
    while (at > 0 && is_opener(text_[at - 1])) --at;
    std::string_view const before = std::string_view(lower_).substr(0, at);
    if (before.ends_with("n't")) return true;
    return before.ends_with("not") && (before.size() == 3 || !is_letter(before[before.size() - 4]));
  }

  /// Brackets, quotes, emphasis and blanks may stand in front of a letter, of a bounded number.
  std::size_t skip_openers(std::size_t at) const {
    for (int i = 0; i < 80 && at < text_.size(); ++i) {
      bool const foreign = std::uint8_t(text_[at]) >= 0x80;
      if (!foreign && !is_opener(text_[at])) break;
      ++at;
    }
    return at;
  }

  bool next_question_at(std::size_t at) const {
    if (at > 0 && text_[at - 1] != '\n') return false;
    for (std::string_view const label : {"question", "q", "problem"})
      if (word_at(at, label) && at + label.size() < text_.size() && text_[at + label.size()] == ':') return true;
    return false;
  }

  /// Offset after a phrase at `at` that introduces an answer; 0 for none.
  std::size_t introduction_at(std::size_t at) const {
    std::string_view const rest = std::string_view(lower_).substr(at);
    if (rest.starts_with("->") || rest.starts_with("=>")) return at + 2;
    if (rest.starts_with("\xe7\xad\x94\xe6\xa1\x88")) return at + 6;  // "answer" in Chinese
    if (rest[0] == ':') return ends_line_with_letter(at + 1) ? at + 1 : 0;
    for (std::string_view const verb : {"choose", "chose", "pick", "select", "go with"})
      if (word_at(at, verb)) return at + verb.size();
    for (std::string_view const noun : {"answer", "option", "choice", "solution"})
      if (word_at(at, noun)) return after_copula(at + noun.size());
    return 0;
  }
  bool ends_line_with_letter(std::size_t at) const {
    std::size_t const letter = skip_openers(at);
    if (letter >= text_.size() || !is_lone_letter(text_, letter)) return false;
    std::string_view const near = text_.substr(letter + 1, 20), after = near.substr(0, near.find('\n'));
    return after.size() < 20 && after.find_first_not_of(" .)]*_\"'$\r\x1a\x1f") == std::string_view::npos;
  }
  /// After ":", "is", "would be", "seems to be", "isn't"; 0 where the sentence goes on otherwise.
  std::size_t after_copula(std::size_t at) const {
    while (at < text_.size() && (text_[at] == markup || text_[at] == '*')) ++at;
    std::size_t const sign = std::min(text_.find_first_not_of(' ', at), text_.size());
    if (sign < text_.size() && (text_[sign] == ':' || text_[sign] == '=')) return sign + 1;
    std::string_view const first = word_after(at);
    std::size_t const end = std::size_t(first.data() - lower_.data()) + first.size();
    if (first == "is" || first == "was") return end;
    if (first == "isn't") return end - 3;  // "n't" is left for the negation
    for (std::string_view const verb : {"would", "should", "must", "will", "could", "has", "seems", "appears"})
      if (first == verb) {
        std::string_view next = word_after(end);
        if (next == "to") next = word_after(std::size_t(next.data() - lower_.data()) + 2);
        if (next == "be") return std::size_t(next.data() - lower_.data()) + 2;
      }
    return 0;
  }

  static bool is_filler(std::string_view word) {
    for (std::string_view const filler : {"the", "option", "choice", "letter", "answer", "most", "likely", "therefore",
                                          "thus", "indeed", "then", "just", "also", "correct", "best"})
      if (word == filler) return true;
    return word.size() > 3 && word.ends_with("ly");
  }

  /// The letter after an introduction. "not B but D" points at D.
  reading pointed_at(std::size_t at) const {
    bool negated = false;
    for (int words = 0; words < 8 && at < text_.size(); ++words) {
      at = skip_openers(at);
      if (at >= text_.size()) break;
      std::string_view const word = word_after(at);
      if (std::string_view(lower_).substr(at).starts_with("n't")) {
        negated = true;
        at += 3;
      } else if (is_lone_letter(text_, at) && !(word == "a" && !names_choice(at))) {
        if (!negated) return is_choice(at) && names_choice(at) ? with_rivals(at) : reading{};
        ++at;
        while (at < text_.size() && std::string_view(" ,)\x1a").find(text_[at]) != std::string_view::npos) ++at;
        if (word_after(at) != "but") return {};
        negated = false;
        at = std::size_t(word_after(at).data() - lower_.data()) + 3;
      } else if (word == "not") {
        negated = true;
        at += 3;
      } else if (is_letter(text_[at]) && is_filler(word)) {
        at += word.size();
      } else {
        break;
      }
    }
    return {};
  }

  /// The choice at `at`, unless another one is put beside it: "A or B", "b) and c)", "A, B", "A B".
  reading with_rivals(std::size_t at) const {
    std::string const letter(1, to_upper(text_[at]));
    std::size_t i = at + 1;
    auto const skip = [&](std::string_view signs) {
      while (i < text_.size() && i < at + 40 && signs.find(text_[i]) != std::string_view::npos) ++i;
    };
    skip(" )]*\"'$\x1a\x1f");
    bool joined = false, either = false;
    if (i < text_.size() && (text_[i] == ',' || text_[i] == '/' || text_[i] == '&')) {
      either = text_[i] == '/';
      joined = true;
      ++i;
      skip(" ");
    }
    for (std::string_view const word : {"or", "and"})
      if (word_at(i, word)) {
        either = either || word == "or";
        joined = true;
        i += word.size();
      }
    skip(" ([*\"'$\x1a\x1f");
    for (std::string_view const word : {"option", "choice", "the"})
      if (joined && word_at(i, word)) {
        i += word.size();
        skip(" (");
      }
    bool const other = i < text_.size() && is_choice(i) && to_upper(text_[i]) != letter[0] && names_choice(i) &&
                       !noun_follows(i) && (either || !is_verb(word_after(i + 1)));
    // Without a word or comma between them only capitals are two answers: "A B".
    if (other && (joined || text_[i] <= 'Z')) return {reading::state::unclear};
    return {reading::state::value, letter};
  }

  std::string_view text_;
  std::string lower_;
  int choices_;
};

}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
