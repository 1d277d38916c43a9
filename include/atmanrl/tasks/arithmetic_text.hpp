#pragma once

/// \file
/// The sentences of the arithmetic task and the vocabulary that covers them.

#include <atmanrl/text/byte_bpe.hpp>

#include <array>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::arithmetic_text {

struct person {
  std::string_view name, he, him, his;
};

inline constexpr std::array people{
    person{"Tom", "he", "him", "his"},  person{"Ann", "she", "her", "her"}, person{"Ben", "he", "him", "his"},
    person{"Mia", "she", "her", "her"}, person{"Leo", "he", "him", "his"},  person{"Eva", "she", "her", "her"},
    person{"Sam", "he", "him", "his"},  person{"Zoe", "she", "her", "her"},
};
inline constexpr auto objects =
    std::to_array<std::string_view>({"apples", "pens", "coins", "cards", "shells", "books", "marbles", "stickers"});
inline constexpr auto colours = std::to_array<std::string_view>({"red", "blue", "green", "yellow"});

// Placeholders: {n} name, {o} another name, {i} objects, {h}/{H} he or she, {m} him or her, {s} his or her, {c} colour,
// {x} a number, {e} an equation "12+7=19".
inline constexpr std::string_view question_start = "{n} has {x} {i}.";
inline constexpr auto question_plus = std::to_array<std::string_view>(
    {"{H} buys {x} more.", "{H} finds {x} more {i}.", "A friend gives {m} {x} more.", "{H} wins {x} {i} in a game."});
inline constexpr auto question_minus = std::to_array<std::string_view>(
    {"{H} loses {x} of them.", "{H} gives {x} to {o}.", "{H} sells {x} {i}.", "{o} takes {x} of them."});
inline constexpr auto question_double =
    std::to_array<std::string_view>({"{H} doubles the number of {i}.", "Then the number of {i} doubles."});
inline constexpr auto question_triple =
    std::to_array<std::string_view>({"{H} triples the number of {i}.", "Then the number of {i} triples."});
inline constexpr auto question_end = std::to_array<std::string_view>(
    {"How many {i} does {h} have now?", "How many {i} does {n} have in the end?", "How many {i} are there now?"});

/// First sentence of some chains; no filler, because the first step takes its number from it.
inline constexpr std::string_view chain_start = "{n} starts with {x} {i}.";
inline constexpr std::string_view chain_start_mark = "starts with";
inline constexpr auto chain_steps =
    std::to_array<std::string_view>({"{e}.", "Then {e}.", "So {e}.", "Now {e}.", "Next {e}.", "That makes {e} {i}.",
                                     "So {h} has {e} {i}.", "After that there are {e} {i}."});
inline constexpr auto filler_plain = std::to_array<std::string_view>(
    {"Let us think step by step.", "This is a nice problem.", "We must be careful here.",
     "I like this kind of problem.", "{n} is happy today.", "{n} likes {i} a lot.", "{H} likes the colour {c}.",
     "The weather is nice today.", "{o} is a good friend.", "{H} keeps them in {s} {c} box."});
inline constexpr auto filler_number =
    std::to_array<std::string_view>({"The shop opens at {x}.", "It is day {x} of the year.", "The bus costs {x} coins.",
                                     "{n} lives at number {x}.", "{o} is {x} years old."});
/// Irrelevant equations are told from steps by this word.
inline constexpr std::string_view filler_equation_mark = "Note";
inline constexpr auto filler_equation = std::to_array<std::string_view>({"Note that {e}.", "Note also that {e}."});

inline constexpr std::string_view begin_of_text = "<|begin_of_text|>", end_of_text = "<|end_of_text|>",
                                  padding = "<|pad|>";

/// Digits and signs stand alone, words take the space before them along, as in byte-level tokenizers of large models.
inline constexpr std::string_view split_pattern = R"(\p{N}| ?\p{L}+|[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// The vocabulary: 256 bytes, "####", every word of the sentences above, three special tokens. There are no merges: a
/// piece that is a token is taken whole, any other text falls apart into bytes.
inline byte_bpe_spec vocabulary() {
  std::set<std::string> words{"####"};
  // Letters of `sentence` outside placeholders, each with the space before it; all but a prompt's first word have one.
  auto const add = [&](std::string_view sentence) {
    bool in_placeholder = false;
    std::string word;
    for (char const c : sentence) {
      bool const letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
      if (letter && !in_placeholder) {
        word += c;
        continue;
      }
      if (!word.empty()) words.insert(' ' + word);
      word.clear();
      if (c == '{') in_placeholder = true;
      if (c == '}') in_placeholder = false;
    }
    if (!word.empty()) words.insert(' ' + word);
  };
  auto const add_all = [&](std::span<std::string_view const> sentences) {
    for (std::string_view const s : sentences) add(s);
  };
  add(question_start);
  for (std::span<std::string_view const> const list :
       {std::span<std::string_view const>(question_plus), std::span<std::string_view const>(question_minus),
        std::span<std::string_view const>(question_double), std::span<std::string_view const>(question_triple),
        std::span<std::string_view const>(question_end), std::span<std::string_view const>(chain_steps),
        std::span<std::string_view const>(filler_plain), std::span<std::string_view const>(filler_number),
        std::span<std::string_view const>(filler_equation), std::span<std::string_view const>(objects),
        std::span<std::string_view const>(colours)})
    add_all(list);
  add(chain_start);
  for (person const& p : people)
    for (std::string_view const word : {p.name, p.he, p.him, p.his}) add(word);
  for (std::string_view const word : {"He", "She"}) add(word);
  for (char const* const word : {"Question", "Answer"}) words.insert(word);

  byte_bpe_spec spec;
  spec.origin = "the arithmetic vocabulary";
  for (int b = 0; b < 256; ++b) spec.tokens.emplace_back(1, char(b));
  spec.tokens.insert(spec.tokens.end(), words.begin(), words.end());
  spec.kinds.assign(spec.tokens.size(), token_kind::normal);
  auto const special = [&](std::string_view text) {
    spec.tokens.emplace_back(text);
    spec.kinds.push_back(token_kind::special);
    return int(spec.tokens.size()) - 1;
  };
  spec.bos = special(begin_of_text);
  spec.eos = special(end_of_text);
  special(padding);
  spec.splits.emplace_back(split_pattern);
  spec.ignore_merges = true;
  return spec;
}

}  // namespace atmanrl::inline ATMANRL_ABI::arithmetic_text
