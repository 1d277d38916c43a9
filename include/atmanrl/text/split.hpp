#pragma once

/// \file
/// The token-exact split of a completion into chain of thought, delimiter δ and answer (docs/method.md#a-rollout):
/// made on token ids with a map of byte offsets, so that generated text is never tokenised a second time.

#include <atmanrl/core/error.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>

#include <algorithm>

namespace atmanrl::inline ATMANRL_ABI {

/// Token positions [first, last).
struct token_span {
  index_t first = 0;
  index_t last = 0;

  constexpr index_t size() const { return last - first; }
  constexpr bool empty() const { return first == last; }
  friend bool operator==(token_span, token_span) = default;
};

/// Adjacent parts of one completion: `cot.last == delimiter.first`, `delimiter.last == answer.first`. The stop token
/// and what follows it belong to none of them.
struct completion_spans {
  token_span cot, delimiter, answer;
  bool has_delimiter = false;
  friend bool operator==(completion_spans const&, completion_spans const&) = default;
};

/// Finds the first `delimiter` in the text of `ids` and assigns every token:
///  - a token that holds any part of it is delimiter, and so are whitespace-only tokens next to it on both sides;
///  - a token that mixes space and answer (" B") belongs to the answer, which ends before the first of `stop_ids`;
///  - without a delimiter everything before the stop token is chain of thought.
/// \throws usage_error when `delimiter` is empty or an id is not in the vocabulary
template <Tokenizer T>
completion_spans split_completion(T const& tokenizer, std::span<int const> ids, std::span<int const> stop_ids,
                                  std::string_view delimiter = "####") {
  expects<usage_error>(!delimiter.empty(), "split_completion: the delimiter is empty");
  auto const stop = std::ranges::find_first_of(ids, stop_ids);
  auto const count = std::size_t(stop - ids.begin());

  std::string text;
  std::vector<std::size_t> start(count + 1);  // start[i]: offset of token i's first byte
  for (std::size_t i = 0; i < count; ++i) {
    start[i] = text.size();
    text += tokenizer.token_bytes(ids[i]);
  }
  start[count] = text.size();

  index_t const end = index_t(count);
  std::size_t const found = text.find(delimiter);
  if (found == std::string::npos) return {{0, end}, {end, end}, {end, end}, false};

  auto const blank = [&](index_t i) {
    auto const bytes = std::string_view(text).substr(start[i], start[i + 1] - start[i]);
    return bytes.find_first_not_of(" \t\n\v\f\r") == std::string_view::npos;
  };
  // The token that holds byte b is the last one that starts at or before b.
  auto const holding = [&](std::size_t b) { return index_t(std::ranges::upper_bound(start, b) - start.begin()) - 1; };
  index_t first = holding(found), last = holding(found + delimiter.size() - 1) + 1;
  while (first > 0 && blank(first - 1)) --first;
  while (last < end && blank(last)) ++last;
  return {{0, first}, {first, last}, {last, end}, true};
}

/// The tokens of `ids` that hold any of the bytes [first, last) of their text.
/// \throws usage_error when the bytes do not lie in the text, or an id is not in the vocabulary
template <Tokenizer T>
token_span tokens_of_bytes(T const& tokenizer, std::span<int const> ids, std::size_t first, std::size_t last) {
  token_span out;
  std::size_t end = 0;  // of token i
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::size_t const begin = end;
    end += tokenizer.token_bytes(ids[i]).size();
    if (first >= last || end <= first || begin >= last) continue;
    if (out.empty()) out.first = index_t(i);
    out.last = index_t(i) + 1;
  }
  expects<usage_error>(first <= last && last <= end, "tokens_of_bytes: [{}, {}) does not lie in a text of {} bytes",
                       first, last, end);
  return out;
}

/// Ids of δ and of an answer after it.
struct delimited_answer {
  std::vector<int> delimiter, answer;
};

/// Encodes `delimiter_text` and `answer` in one go, as the answer would follow δ in generated text, and divides the ids
/// by the rule of `split_completion`. So the space between them goes wherever this vocabulary puts it: " 42" may be one
/// token of the answer, or " " the last token of δ.
/// \param answer          without the stop token
/// \param delimiter_text  holds `delimiter`, with the white space that the prompt asks for around it
/// \throws usage_error when `delimiter_text` does not hold `delimiter`
template <Tokenizer T>
delimited_answer encode_answer_after_delimiter(T const& tokenizer, std::string_view answer,
                                               std::string_view delimiter_text = "#### ",
                                               std::string_view delimiter = "####") {
  expects<usage_error>(delimiter_text.find(delimiter) != std::string_view::npos,
                       "encode_answer_after_delimiter: \"{}\" does not hold the delimiter \"{}\"", delimiter_text,
                       delimiter);
  std::vector<int> const ids = tokenizer.encode(std::string(delimiter_text).append(answer));
  completion_spans const spans = split_completion(tokenizer, ids, {}, delimiter);
  auto const part = [&](token_span s) { return std::vector<int>(ids.begin() + s.first, ids.begin() + s.last); };
  delimited_answer out{part({0, spans.delimiter.last}), part(spans.answer)};
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
