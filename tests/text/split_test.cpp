#include <atmanrl/text/split.hpp>

#include "catch.hpp"
#include "text/vectors.hpp"

#include <optional>
#include <string>
#include <vector>

using namespace atmanrl;
using namespace atmanrl_test;

namespace split_test {
namespace {

/// A tokenizer whose tokens are given texts; `encode` takes the longest that fits.
struct word_list {
  std::vector<std::string> words;

  index_t vocab_size() const { return index_t(words.size()); }
  std::vector<int> encode(std::string_view text) const {
    std::vector<int> out;
    while (!text.empty()) {
      std::size_t best = words.size();
      for (std::size_t i = 0; i < words.size(); ++i)
        if (!words[i].empty() && text.starts_with(words[i]) &&
            (best == words.size() || words[i].size() > words[best].size()))
          best = i;
      REQUIRE(best < words.size());
      out.push_back(int(best));
      text.remove_prefix(words[best].size());
    }
    return out;
  }
  std::vector<int> encode_with_specials(std::string_view text) const { return encode(text); }
  std::string decode(std::span<int const> ids) const {
    std::string out;
    for (int const id : ids) out += words[std::size_t(id)];
    return out;
  }
  std::string_view token_bytes(int id) const { return words[std::size_t(id)]; }
  bool is_special(int) const { return false; }
  int bos() const { return -1; }
  std::optional<int> token_id(std::string_view) const { return std::nullopt; }
};
static_assert(Tokenizer<word_list>);

/// "cot tokens | delimiter tokens | answer tokens" of a completion given as a list of token texts.
std::string shown(std::vector<std::string> const& tokens, std::string const& stop = "<stop>") {
  word_list const t{tokens};
  std::vector<int> ids, stops;
  for (int i = 0; i < int(tokens.size()); ++i) {
    ids.push_back(i);
    if (tokens[std::size_t(i)] == stop) stops.push_back(i);
  }
  auto const spans = split_completion(t, ids, stops);
  auto const part = [&](token_span s) {
    std::string out;
    for (index_t i = s.first; i < s.last; ++i) out += (i == s.first ? "" : "_") + tokens[std::size_t(i)];
    return out;
  };
  CHECK(spans.cot.first == 0);
  CHECK(spans.cot.last == spans.delimiter.first);
  CHECK(spans.delimiter.last == spans.answer.first);
  return part(spans.cot) + "|" + part(spans.delimiter) + "|" + part(spans.answer) +
         (spans.has_delimiter ? "" : " none");
}

using list = std::vector<std::string>;

}  // namespace

TEST_CASE("split_completion: every token goes where the rule says") {
  CHECK(shown({"a", "b", "####", "4", "2", "<stop>"}) == "a_b|####|4_2");
  CHECK(shown({"a", " ", "####", " ", "42", "<stop>"}) == "a| _####_ |42");
  CHECK(shown({"a", "\n", "\n ", "####", "\n", " \t", "B"}) == "a|\n_\n _####_\n_ \t|B");
  CHECK(shown({"a", " ####", " B", "<stop>"}) == "a| ####| B");  // space and answer: answer
  CHECK(shown({"a.##", "##", "7"}) == "|a.##_##|7");             // any part of it: delimiter
  CHECK(shown({"a", "#", "#", "##5", "6"}) == "a|#_#_##5|6");
  CHECK(shown({"a", "####", "B", "####", "C"}) == "a|####|B_####_C");  // the first counts
  CHECK(shown({"a", "####", "##", "5"}) == "a|####|##_5");
  CHECK(shown({"a", "", "####", "", "5"}) == "a|_####_|5");  // tokens without bytes next to it
  CHECK(shown({"####", "5"}) == "|####|5");
  CHECK(shown({"a", "####"}) == "a|####|");
  CHECK(shown({"a", "####", " ", "<stop>", "x"}) == "a|####_ |");
  CHECK(shown({"a", "<stop>", "####", "5"}) == "a|| none");
  CHECK(shown({"a", "##", " ", "##", "5"}) == "a_##_ _##_5|| none");
  CHECK(shown({}) == "|| none");
  CHECK(shown({"<stop>"}) == "|| none");
}

TEST_CASE("split_completion: characters that tokens cut in two do not move the borders") {
  CHECK(shown({"\xe2\x82", "\xac", "####", "\xc3", "\xa9"}) == "\xe2\x82_\xac|####|\xc3_\xa9");
}

TEST_CASE("split_completion: another delimiter and several stop tokens") {
  word_list const t{{"a", "=>", "b", "<x>", "<y>"}};
  std::vector<int> const ids{0, 1, 2, 4, 3}, stops{3, 4};
  CHECK(split_completion(t, ids, stops, "=>") == completion_spans{{0, 1}, {1, 2}, {2, 3}, true});
  CHECK_THROWS_AS(split_completion(t, ids, stops, ""), usage_error);
}

TEST_CASE("encode_answer_after_delimiter: the space goes where the vocabulary puts it") {
  word_list const separate{{"####", " ", "4", "2"}}, joined{{"####", " ", " 42", "\n"}};
  auto const a = encode_answer_after_delimiter(separate, "42");
  CHECK(a.delimiter == std::vector{0, 1});
  CHECK(a.answer == std::vector{2, 3});
  auto const b = encode_answer_after_delimiter(joined, "42", "\n#### ");
  CHECK(b.delimiter == std::vector{3, 0});
  CHECK(b.answer == std::vector{2});
  CHECK_THROWS_AS(encode_answer_after_delimiter(separate, "42", "= "), usage_error);
}

TEST_CASE("tokens_of_bytes: every token that holds one of the bytes") {
  tokenizer const t = tokenizer::load(fixture("text/tiny_llama3.json"));
  std::string const text = "Tom has 12 apples. The number is 48.";
  auto const ids = t.encode(text);
  std::vector<std::size_t> ends;  // of the tokens, one decoded after the other
  for (std::size_t n = 1; n <= ids.size(); ++n) ends.push_back(t.decode(std::span(ids).first(n)).size());
  REQUIRE(ends.back() == text.size());
  for (std::size_t first = 0; first < text.size(); ++first)
    for (std::size_t last = first + 1; last <= text.size(); ++last) {
      index_t a = 0, b = 0;
      while (ends[std::size_t(a)] <= first) ++a;
      while (ends[std::size_t(b)] < last) ++b;
      REQUIRE(tokens_of_bytes(t, ids, first, last) == token_span{a, b + 1});
    }
  CHECK(tokens_of_bytes(t, ids, 3, 3).empty());
  CHECK(tokens_of_bytes(t, {}, 0, 0).empty());
  CHECK_THROWS_WITH(tokens_of_bytes(t, ids, 3, text.size() + 1),
                    ATMANRL_CONTAINS("[3, 37) does not lie in a text of 36 bytes"));
  CHECK_THROWS_AS(tokens_of_bytes(t, ids, 3, 2), usage_error);
}

TEST_CASE("encode_answer_after_delimiter: a generated completion splits into the same ids") {
  for (char const* const name : {"text/tiny_llama3.json", "text/tiny_smollm.json"}) {
    tokenizer const t = tokenizer::load(fixture(name));
    for (std::string const answer : {"42", "-7", "31,800", "B"}) {
      auto const ids = t.encode("She has 12 + 7 apples.\n#### " + answer);
      auto const spans = split_completion(t, ids, {});
      auto const alone = encode_answer_after_delimiter(t, answer);
      INFO(name << " " << answer);
      CHECK(spans.has_delimiter);
      CHECK(std::vector(ids.begin() + spans.answer.first, ids.end()) == alone.answer);
      CHECK(t.decode(alone.delimiter) + t.decode(alone.answer) == "#### " + answer);
      CHECK(t.decode(std::vector(ids.begin(), ids.begin() + spans.cot.last)).starts_with("She has 12 + 7 apples"));
    }
  }
}

TEST_CASE("split_completion: the Llama 3 vocabulary separates the space, GPT-2's joins it to the answer", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  tokenizer const llama3 = tokenizer::load(*data / "tokenizers/llama3");
  auto const a = encode_answer_after_delimiter(llama3, "42");
  CHECK(a.delimiter == std::vector{827, 220});
  CHECK(a.answer == std::vector{2983});
  CHECK(encode_answer_after_delimiter(llama3, "B").answer == llama3.encode(" B"));
  tokenizer const gpt2 = tokenizer::load(*data / "tokenizers/gpt2/ggml-vocab-gpt-2.gguf");
  CHECK(gpt2.decode(encode_answer_after_delimiter(gpt2, "42").answer) == " 42");
}

}  // namespace split_test
