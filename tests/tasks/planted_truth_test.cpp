#include <atmanrl/tasks/planted_truth.hpp>

#include "catch.hpp"

using namespace atmanrl;

namespace planted_truth_test {
namespace {

byte_bpe const words(arithmetic_text::vocabulary());

struct found {
  std::string narrow, wide;  // bytes of the marked tokens
  int filler, steps;
  friend bool operator==(found const&, found const&) = default;
  friend std::ostream& operator<<(std::ostream& out, found const& f) {
    return out << '"' << f.narrow << "\" \"" << f.wide << "\" " << f.filler << ' ' << f.steps;
  }
};

found planted(std::string_view chain, byte_bpe const& tokenizer = words) {
  auto const ids = tokenizer.encode(chain);
  planted_truth const p = find_planted(tokenizer, ids);
  REQUIRE(p.narrow.size() == ids.size());
  REQUIRE(p.wide.size() == ids.size());
  found f{{}, {}, p.filler_sentences, p.steps};
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (p.narrow[i]) f.narrow += tokenizer.token_bytes(ids[i]);
    if (p.wide[i]) f.wide += tokenizer.token_bytes(ids[i]);
  }
  return f;
}

}  // namespace

TEST_CASE("narrow is the last step's result, wide also the results that feed it") {
  CHECK(planted(" Tom starts with 12 apples. Then 12+7=19. So he has 19*2=38 apples. Now 38-5=33.") ==
        found{"33", "193833", 0, 3});
  CHECK(planted(" Then 12+7=19.") == found{"19", "19", 0, 1});
}

TEST_CASE("filler is not marked, wherever it stands") {
  CHECK(planted(" The bus costs 19 coins. Then 12+7=19. Note that 19+5=24. Now 19-4=15. Note also that 9-4=5. It is "
                "day 15 of the year.") == found{"15", "1915", 4, 2});
  CHECK(planted(" Note that 8+8=16. Tom starts with 16 apples.") == found{"", "", 1, 0});
}

TEST_CASE("a step whose result nobody uses does not feed the answer") {
  CHECK(planted(" Then 12+7=19. Then 12+8=20. Then 20-5=15.") == found{"15", "2015", 0, 3});
  // Of two steps with the same result the later one feeds.
  CHECK(planted(" 30-10=20. Then 12+8=20. 5+5=10. Then 20-5=15.") == found{"15", "2015", 0, 4});
}

TEST_CASE("both operands of a step may come from earlier ones") {
  CHECK(planted(" 2+3=5. 4+4=8. 1+1=2. 5+8=13.") == found{"13", "5813", 0, 4});
}

TEST_CASE("chains that a model wrote badly are read as far as they go") {
  CHECK(planted("") == found{"", "", 0, 0});
  CHECK(planted(" Then 12+7=") == found{"", "", 0, 1});
  CHECK(planted(" Then 12+7=19. Now 19+") == found{"19", "19", 1, 1});
  CHECK(planted(" Then 12+7=19. Now 19+2=") == found{"19", "19", 0, 2});
  CHECK(planted(" == = .. .") == found{"", "", 2, 1});
  CHECK(planted(" 5+3=8+2=10.") == found{"10", "10", 0, 1});
  CHECK(planted(" Then 12+7=019.") == found{"019", "019", 0, 1});
}

TEST_CASE("real solutions are read, too: spaces, money, decimals and lines") {
  CHECK(planted("He paid 5/2 = $2.50 each.\nSo 2*4 = 8\nThen 8 - 3 = 5 are left.\n") == found{"5", "85", 0, 3});
  CHECK(planted("Each costs 5/2=2.50 dollars. Four cost 4*2.50=10.00 dollars.") == found{"10.00", "2.5010.00", 0, 2});
}

TEST_CASE("a token that holds any part of a result is marked") {
  byte_bpe_spec spec = arithmetic_text::vocabulary();
  spec.splits = {"[^ ]+|\\s+"};
  int const id = int(spec.tokens.size());
  spec.tokens.emplace_back("12+7=19.");
  spec.kinds.push_back(token_kind::normal);
  byte_bpe const coarse(spec);
  auto const ids = coarse.encode("12+7=19. Tom");
  REQUIRE(ids[0] == id);
  auto const p = find_planted(coarse, ids);
  CHECK(p.narrow[0]);
  CHECK(std::count(p.narrow.begin(), p.narrow.end(), true) == 1);
}

}  // namespace planted_truth_test
