#include <atmanrl/text/split_pattern.hpp>

#include "catch.hpp"

#include <string>
#include <vector>

using namespace atmanrl;

namespace split_pattern_test {
namespace {

std::vector<std::string> pieces(std::string const& pattern, std::string_view text) {
  std::vector<std::string> out;
  split_pattern(pattern, "test").for_each_piece(text, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

using list = std::vector<std::string>;

}  // namespace

TEST_CASE("split_pattern: matches and the text between them are the pieces") {
  CHECK(pieces(R"(\p{N})", "ab12c") == list{"ab", "1", "2", "c"});
  CHECK(pieces("x", "") == list{});
  CHECK(pieces("x*", "axxb") == list{"a", "xx", "b"});
  CHECK(pieces("x", "yyy") == list{"yyy"});
}

TEST_CASE("split_pattern: empty matches cut where they lie") {
  CHECK(pieces(R"((?=(\d{3})+(?!\d)))", "1234567") == list{"1", "234", "567"});
  CHECK(pieces(R"((?=(\d{3})+(?!\d)))", "123456") == list{"123", "456"});
  CHECK(pieces(R"((?=(\d{3})+(?!\d)))", "a1234567b") == list{"a1", "234", "567b"});
  CHECK(pieces("(?=b)", "abbc") == list{"a", "b", "bc"});
  CHECK(pieces("(?:)", "a\xc3\xa9z") == list{"a", "\xc3\xa9", "z"});
  CHECK(pieces("b*", "abba") == list{"a", "bb", "a"});  // the empty match after "bb" cuts nothing more
  CHECK(pieces("(?<=,)", "a,b,") == list{"a,", "b,"});
}

TEST_CASE("split_pattern: the built-in patterns cut as their models do") {
  CHECK(pieces(std::string(gpt2_split), "I'm  here 123\n\n x") == list{"I", "'m", " ", " here", " 123", "\n\n", " x"});
  CHECK(pieces(std::string(llama3_split), "I'M 12345?\r\n\n  y") ==
        list{"I", "'M", " ", "123", "45", "?\r\n\n", " ", " y"});
  CHECK(pieces(std::string(qwen2_split), "a123") == list{"a", "1", "2", "3"});
}

TEST_CASE("split_pattern: white space is Unicode's White_Space, which U+180E is not") {
  CHECK(pieces(R"(\s+)",
               "a\xc2\xa0\xe3\x80\x80"
               "b") == list{"a", "\xc2\xa0\xe3\x80\x80", "b"});
  CHECK(pieces(R"(\s+)",
               "a\xe1\xa0\x8e"
               "b") == list{"a\xe1\xa0\x8e"
                            "b"});
  CHECK(pieces(R"([^\s]+)", "a\xe1\xa0\x8e b") == list{"a\xe1\xa0\x8e", " ", "b"});
  CHECK(pieces(R"(\S+)", "a\xe1\xa0\x8e b") == list{"a\xe1\xa0\x8e", " ", "b"});
  CHECK(pieces(R"(\v)", "a\nb\vc") == list{"a\nb", "\v", "c"});  // the one character, not all vertical space
}

TEST_CASE("split_pattern: constructs that both engines read alike are kept") {
  CHECK(pieces(R"((?i:ab)|\u0063d|\x{65}|(?<=f)g|[\p{Lu}\]]+)", "xABcdefg]Z") ==
        list{"x", "AB", "cd", "e", "f", "g", "]Z"});
  CHECK(pieces("^b", "a\nb") == list{"a\n", "b"});
}

TEST_CASE("split_pattern: a script's name is the script alone, as in Oniguruma, not where else its characters go") {
  // The ideographic comma U+3001 and the long-vowel mark U+30FC are of several scripts, so their own is Common.
  std::string const comma = "\u3001", han = "\u6f22", mark = "\u30fc", kana = "\u30ab";
  CHECK(pieces(R"(\p{Han}+)", han + comma + han) == list{han, comma, han});
  CHECK(pieces(R"([\p{Katakana}x]+)", kana + mark + "x" + kana) == list{kana, mark, "x" + kana});
  CHECK(pieces(R"(\P{Han}+)", comma + mark + han) == list{comma + mark, han});
  CHECK(pieces(R"(\p{^Han}+)", comma + han) == list{comma, han});
  CHECK(pieces(R"([^\p{Han}]+)", comma + "a" + han) == list{comma + "a", han});
  CHECK(pieces(R"(\p{Latin}+|\p{Lu}|\p{L})", "ab" + kana + kana) == list{"ab", kana, kana});
}

TEST_CASE("split_pattern: what would be read with another meaning is refused with the place and the construct") {
  struct {
    char const *pattern, *construct;
  } const cases[] = {{R"(\w+)", "\\w"},
                     {R"(\h)", "\\h"},
                     {R"([\S])", "\\S inside a character class"},
                     {"[a&&b]", "&&"},
                     {"[a[b]]", "["},
                     {R"(\p{N}{1,3}+)", "}+"},
                     {"a{,2}", "{,"},
                     {"(?i)a", "(?i)"},
                     {"(?<n>a)", "(?<n"},
                     {R"(\u12)", "\\u"},
                     {"(*UTF)a", "(*"},
                     {"a\\", "backslash"},
                     {"(a", "split pattern"},
                     {R"(\p{Nonsense})", "wrong"}};
  for (auto const& c : cases) {
    INFO(c.pattern);
    CHECK_THROWS_WITH(split_pattern(c.pattern, "file.json: field"),
                      ATMANRL_CONTAINS("file.json: field") && ATMANRL_CONTAINS(c.construct));
    CHECK_THROWS_AS(split_pattern(c.pattern, "x"), file_error);
  }
}

TEST_CASE("split_pattern: long runs take linear time") {
  // A quadratic matcher would need minutes for these.
  for (char const c : {'a', ' ', '\n', '1', '\''}) {
    std::string const run(1 << 20, c);
    std::size_t bytes = 0;
    for (std::string_view const pattern : {gpt2_split, llama3_split})
      split_pattern(std::string(pattern), "test").for_each_piece(run + "x", [&](std::string_view p) {
        bytes += p.size();
      });
    CHECK(bytes == 2 * (run.size() + 1));
  }
}

TEST_CASE("split_pattern: a pattern that explodes ends with an error, not with a hang") {
  for (char const* const pattern : {"(a+)+$|b", "(?=(?:a|a)*c)a|x"}) {
    split_pattern const bad(pattern, "file.json: field");
    CHECK_THROWS_WITH(bad.for_each_piece(std::string(60, 'a') + "!", [](std::string_view) {}),
                      ATMANRL_CONTAINS("file.json: field: the split pattern cannot be matched in a text of 61 bytes") &&
                          ATMANRL_CONTAINS(pattern));
  }
}

}  // namespace split_pattern_test
