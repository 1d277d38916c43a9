#pragma once

/// \file
/// How much of a text is numbers, stop words and symbols: the shares that the paper reports (arXiv:2604.16158, table
/// 1). There they come from spaCy's part-of-speech tagger; here they come from the rules of this file, a proxy. Words
/// are looked up without their context, so the figures are comparable between runs of this library and not with the
/// paper's.

#include <atmanrl/core/view.hpp>
#include <atmanrl/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// Counts over the words of a text in the linguist's sense (not the tokens of a model): runs of letters with inner
/// apostrophes, numbers, and every other sign by itself. What is in no class is a content word or punctuation.
struct token_classes {
  index_t all = 0;
  index_t numbers = 0;     ///< "7", "31,800.50", and the cardinals "seven", "hundred"
  index_t stop_words = 0;  ///< articles, pronouns, prepositions, conjunctions, auxiliaries, common adverbs of English
  index_t symbols = 0;     ///< operators and relations, currency and percent signs, "#", "&", "@"; no punctuation

  token_classes& operator+=(token_classes const& o) {
    all += o.all;
    numbers += o.numbers;
    stop_words += o.stop_words;
    symbols += o.symbols;
    return *this;
  }
  friend bool operator==(token_classes const&, token_classes const&) = default;
};

namespace detail {

// Ascending, for binary search.
inline constexpr auto number_words = std::to_array<std::string_view>(
    {"billion",   "eight",    "eighteen", "eighty",  "eleven", "fifteen",  "fifty",    "five",   "forty",
     "four",      "fourteen", "hundred",  "million", "nine",   "nineteen", "ninety",   "one",    "seven",
     "seventeen", "seventy",  "six",      "sixteen", "sixty",  "ten",      "thirteen", "thirty", "thousand",
     "three",     "trillion", "twelve",   "twenty",  "two",    "zero"});

inline constexpr auto stop_words = std::to_array<std::string_view>(
    {"a",         "about",   "above",  "after",   "again",      "against", "all",     "almost",    "also",
     "although",  "always",  "am",     "among",   "an",         "and",     "another", "any",       "are",
     "around",    "as",      "at",     "be",      "because",    "been",    "before",  "being",     "below",
     "between",   "both",    "but",    "by",      "can",        "cannot",  "could",   "did",       "do",
     "does",      "doing",   "done",   "down",    "during",     "each",    "either",  "else",      "enough",
     "even",      "ever",    "every",  "few",     "for",        "from",    "further", "had",       "has",
     "have",      "having",  "he",     "hence",   "her",        "here",    "hers",    "herself",   "him",
     "himself",   "his",     "how",    "however", "i",          "if",      "in",      "into",      "is",
     "it",        "its",     "itself", "just",    "least",      "less",    "many",    "may",       "me",
     "might",     "mine",    "more",   "most",    "much",       "must",    "my",      "myself",    "neither",
     "never",     "next",    "no",     "nor",     "not",        "nothing", "now",     "of",        "off",
     "often",     "on",      "once",   "only",    "or",         "other",   "others",  "our",       "ours",
     "ourselves", "out",     "over",   "own",     "per",        "perhaps", "quite",   "rather",    "same",
     "she",       "should",  "since",  "so",      "some",       "still",   "such",    "than",      "that",
     "the",       "their",   "theirs", "them",    "themselves", "then",    "there",   "therefore", "these",
     "they",      "this",    "those",  "though",  "through",    "thus",    "to",      "together",  "too",
     "toward",    "towards", "under",  "until",   "up",         "upon",    "us",      "very",      "was",
     "we",        "well",    "were",   "what",    "whatever",   "when",    "where",   "whether",   "which",
     "while",     "who",     "whom",   "whose",   "why",        "will",    "with",    "within",    "without",
     "would",     "yet",     "you",    "your",    "yours",      "yourself"});

static_assert(std::ranges::is_sorted(number_words) && std::ranges::is_sorted(stop_words));

enum class sign_kind { blank, letter, digit, symbol, other };

inline sign_kind kind_of(char32_t c) {
  if (c < 0x80) {
    char const ascii = char(c);
    if (ascii >= '0' && ascii <= '9') return sign_kind::digit;
    if ((ascii >= 'a' && ascii <= 'z') || (ascii >= 'A' && ascii <= 'Z')) return sign_kind::letter;
    if (std::string_view(" \t\n\v\f\r").find(ascii) != std::string_view::npos) return sign_kind::blank;
    return std::string_view("+-*/=<>^%$#&@|~\\").find(ascii) != std::string_view::npos ? sign_kind::symbol
                                                                                       : sign_kind::other;
  }
  if (is_unicode_space(c)) return sign_kind::blank;
  bool const latin_symbol = (c >= 0xa2 && c <= 0xa5) || c == 0xac || c == 0xb0 || c == 0xb1 || c == 0xd7 || c == 0xf7;
  bool const higher_symbol =
      (c >= 0x20a0 && c <= 0x20cf) || (c >= 0x2190 && c <= 0x22ff);  // currency; arrows, mathematics
  if (latin_symbol || higher_symbol) return sign_kind::symbol;
  return (c >= 0xc0 && c < 0x2000) || (c >= 0x3041 && c < 0xe000) ? sign_kind::letter : sign_kind::other;
}

}  // namespace detail

/// Counts the classes of a text. A hyphen between letters is punctuation, elsewhere it is a minus sign.
inline token_classes count_token_classes(std::string_view text) {
  using detail::sign_kind;
  token_classes out;
  auto const at = [&](std::size_t i) {
    if (i >= text.size()) return std::pair(sign_kind::blank, std::size_t{1});
    utf8_unit const unit = next_utf8(text.substr(i));
    if (unit.kind != utf8_unit::state::valid) return std::pair(sign_kind::other, std::max<std::size_t>(1, unit.length));
    return std::pair(detail::kind_of(unit.code), std::size_t(unit.length));
  };
  sign_kind before = sign_kind::blank;
  for (std::size_t i = 0; i < text.size();) {
    auto const [kind, length] = at(i);
    std::size_t end = i + length;
    if (kind == sign_kind::digit) {
      // A point or comma belongs to the number when another digit follows it.
      while (at(end).first == sign_kind::digit ||
             (end < text.size() && (text[end] == '.' || text[end] == ',') && at(end + 1).first == sign_kind::digit))
        ++end;
      ++out.numbers;
    } else if (kind == sign_kind::letter) {
      std::string word;
      std::size_t from = i;
      while (true) {
        auto const [next, bytes] = at(end);
        bool const apostrophe = end < text.size() && text[end] == '\'' && at(end + 1).first == sign_kind::letter;
        if (next != sign_kind::letter && !apostrophe) break;
        end += bytes;
      }
      for (; from < end; ++from)
        word += text[from] >= 'A' && text[from] <= 'Z' ? char(text[from] - 'A' + 'a') : text[from];
      // "don't" and "it's" are counted as what stands in front of the apostrophe, where that is a stop word.
      std::string_view const stem = std::string_view(word).substr(0, word.find('\''));
      bool const negated = word.ends_with("n't");
      if (std::ranges::binary_search(detail::number_words, std::string_view(word)))
        ++out.numbers;
      else if (negated || std::ranges::binary_search(detail::stop_words, stem))
        ++out.stop_words;
    } else if (kind == sign_kind::symbol) {
      bool const hyphen = text[i] == '-' && before == sign_kind::letter && at(end).first == sign_kind::letter;
      if (!hyphen) ++out.symbols;
    }
    if (kind != sign_kind::blank) ++out.all;
    before = kind;
    i = end;
  }
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
