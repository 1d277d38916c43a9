#include <atmanrl/io/jsonl.hpp>
#include <atmanrl/text/answer.hpp>

#include "catch.hpp"
#include "test_data.hpp"

#include <ctime>
#include <optional>
#include <string>

using namespace atmanrl;
namespace answer_test {

using atmanrl_test::fixture;

namespace {

constexpr char const* none = nullptr;

std::optional<std::string> expected(char const* text) { return text ? std::optional<std::string>(text) : std::nullopt; }

struct row {
  char const *completion, *strict, *flexible;
};

}  // namespace

TEST_CASE("extract_number: forms that mean a number") {
  row const rows[] = {
      {"so 30. #### 30", "30", "30"},
      {"#### [30]", "30", "30"},
      {"#### [31,800]", "31800", "31800"},
      {"#### $31,800", "31800", "31800"},
      {"#### 30.00", "30", "30"},
      {"#### 30.50.", "30.5", "30.5"},
      {"#### -5", "-5", "-5"},
      {"####-5", "-5", "-5"},
      {"#### \xe2\x88\x92"
       "5",
       "-5", "-5"},
      {"#### \xe2\x88\x92 5", "-5", "-5"},
      {"#### -$1,234.50", "-1234.5", "-1234.5"},
      {"#### $-5", "-5", "-5"},
      {"#### -\\$5", "-5", "-5"},
      {"#### (-5)", "-5", "-5"},
      {"#### x = -5", "-5", "-5"},
      {"#### - 5", "5", "5"},  // a bullet
      {"#### +5", "5", "5"},
      {"#### .5", "0.5", "0.5"},
      {"#### $.50", "0.5", "0.5"},
      {"#### 007", "7", "7"},
      {"#### -0.0", "0", "0"},
      {"#### 1,000,000", "1000000", "1000000"},
      {"#### 12%", "12", "12"},
      {"#### 3/4", "3/4", "3/4"},
      {"#### 5/day", "5", "5"},
      {"#### 72 apples.", "72", "72"},
      {"#### 72km", "72", "72"},
      {"####\n\n72", "72", "72"},
      {"#### **72**", "72", "72"},
      {"#### \\boxed{72}", "72", "72"},
      {"#### \xe2\x82\xac"
       "72",
       "72", "72"},
      {"#### Rs.500", "500", "500"},
      {"###### 5", "5", "5"},
  };
  for (row const& r : rows) {
    INFO(r.completion);
    CHECK(extract_number(r.completion).strict == expected(r.strict));
    CHECK(extract_number(r.completion).flexible == expected(r.flexible));
  }
}

TEST_CASE("extract_number: one reading after a mark, otherwise the last number of all") {
  row const rows[] = {
      {"#### 5 apples + 3", none, none},
      {"#### 1,2,3", none, none},
      {"#### 5/0", none, none},
      {"1 #### 2 #### 3", "2", "2"},
      {"It is 7 or 8.", none, "8"},
      {"", none, none},
      {"####", none, none},
      {"#### none", none, none},
      {"7 apples #### none", none, "7"},
      {"### 7", none, "7"},
      {"10-5", none, "5"},
      {"10 - 5", none, "5"},
      {"#### 7 \xe2\x88\x92 5", none, none},
      {"7 \xe2\x88\x92 5", none, "5"},
      {"5 - 7 = -2", none, "-2"},
      {"answer --5", none, "5"},
      {"so...5", none, "5"},
      {"50 m^2", none, "50"},
      {"x2", none, none},
      {"#### x2 is 9", "9", "9"},
      {"1.2.3", none, "1.2"},
      {"#### 1e5", none, none},
      {"#### 1e5 or 6", "6", "6"},
      {"6 eggs, 1e-5", none, "6"},
      {"5e", none, "5"},
      {"1,0000", none, "0"},
      {"#### 1234,567", none, none},
      {"page 3/4.5", none, "4.5"},
      {"\xff\xfe 3 \xc3", none, "3"},
  };
  for (row const& r : rows) {
    INFO(r.completion);
    CHECK(extract_number(r.completion).strict == expected(r.strict));
    CHECK(extract_number(r.completion).flexible == expected(r.flexible));
  }
}

TEST_CASE("extract_number: 51 completions are read as a person reads them") {
  std::vector<json> const rows = read_json_lines(fixture("text/answers/gsm8k_answers.jsonl"));
  CHECK(rows.size() == 51);
  for (json const& row : rows) {
    auto const completion = row.at("completion").get<std::string>();
    INFO(row.dump());
    extracted_answer const found = extract_number(completion);
    INFO(found.strict.value_or("none") << " | " << found.flexible.value_or("none"));
    // Names, ranges and lists are no numbers.
    auto const person = row["a_person_reads"].is_string()
                            ? to_canonical_number(row["a_person_reads"].get<std::string>())
                            : std::nullopt;
    std::string const note = row.at("note");
    bool const none_here = !person || note == "range" || note == "list" || note == "name";
    CHECK(found.flexible.has_value() == !none_here);
    if (!none_here) CHECK(numbers_equal(*found.flexible, *person));
    if (note != "no mark") CHECK(found.strict == found.flexible);
    CHECK((found.flexible && numbers_equal(*found.flexible, row.at("truth").get<std::string>())) ==
          row.at("correct").get<bool>());
  }
}

TEST_CASE("extract_number: equations, conversions and explanations after a mark") {
  row const rows[] = {
      {"#### 18 = 3*6", "18", "18"},
      {"#### 2 hours = 120 minutes", none, none},
      {"#### x = 18, y = 7", none, none},
      {"#### a = b = 9", "9", "9"},
      {"#### 18 (9 eggs at $2)", "18", "18"},
      {"#### 10 (or 12)", none, none},
      {"#### 18. She sells 9 eggs for $2.", "18", "18"},
      {"#### 18 because 9 * 2 = 18", "18", "18"},
      {"#### 3*6", none, none},
      {"#### 10 to 12", none, none},
      {"#### 12:30", none, none},
      {"#### 7 or 8", none, none},
      {"#### 18 dollars, or $18.00", "18", "18"},
      {"#### 3,5", none, none},
      {"#### 1.234,56", none, none},
      {"#### 5 thousand", "5000", "5000"},
      {"#### $2.5 million", "2500000", "2500000"},
      {"#### 3\\frac{1}{2}", "7/2", "7/2"},
      {"#### \xc2\xbd", "1/2", "1/2"},
      {"#### 10^{-3}", none, none},
      {"#### \\sqrt{15}", none, none},
      {"#### \\frac{x}{2}", none, none},
      {"#### 5\xc2\xb2", "25", "25"},
      {"#### 12,34,567", "1234567", "1234567"},
      {"#### 5 \xc2\xb1 1", none, none},
      {"#### minus 5", "-5", "-5"},
      {"#### USD500", "500", "500"},
      {"#### The answer to part 2 is 18", "18", "18"},
      {"#### 1. Find the price\n3*6\n#### 2. Add\n#### 18", "18", "18"},
      {"#### 18\n\nProblem 2: 3+4?\n#### 7", "18", "18"},
      {"#### 17\nThe waiter is here.\n#### 18", "17", "17"},
      {"#### 17\nSorry:\n#### 3 or 4", none, none},
      {"7 #### A7", none, none},
  };
  for (row const& r : rows) {
    INFO(r.completion);
    CHECK(extract_number(r.completion).strict == expected(r.strict));
    CHECK(extract_number(r.completion).flexible == expected(r.flexible));
  }
  CHECK(extract_number("The final answer is 8. The final answer is 7", {"The final answer is", true}).strict == "7");
}

TEST_CASE("numbers_equal: exact values decide, not spellings and not doubles") {
  struct {
    char const *a, *b;
    bool equal;
  } const rows[] = {
      {"0.1", "0.10", true},
      {"31,800", "$31800.00", true},
      {"-5",
       "\xe2\x88\x92"
       "5.",
       true},
      {"18", "18 dollars", true},
      {"0", "-0.000", true},
      {".5", "0.5", true},
      {"12%", "12", true},
      {"3/4", "0.75", true},
      {"-6/8", "-3/4", true},
      {"1/3", "0.333333333333333333", false},
      {"8/2", "4", true},
      {"3/4", "3", false},
      {"5", "-5", false},
      {"1/2", "-1/2", false},
      {"0.1", "0.1000000000000000055511151231257827", false},  // one double for both
      {"9007199254740993", "9007199254740992", false},         // likewise
      {"100000000000000000000000000000000000001", "100000000000000000000000000000000000002", false},
      {"1e5", "100000", false},
      {"1e5", "1e5", false},
      {"1,2", "1", false},
      {"", "", false},
      {"ten", "10", false},
  };
  for (auto const& r : rows) {
    INFO(r.a << " and " << r.b);
    CHECK(numbers_equal(r.a, r.b) == r.equal);
    CHECK(numbers_equal(r.b, r.a) == r.equal);
  }
  CHECK_FALSE(numbers_equal("1/3", std::string(5000, '1')));
  CHECK(numbers_equal(std::string(100'000, '7'), std::string(100'000, '7') + ".0"));
}

TEST_CASE("gsm8k_truth: the number after the mark of an answer field") {
  CHECK(gsm8k_truth("He pays 3*5=<<3*5=15>>15.\n#### 31,800") == "31800");
  CHECK(gsm8k_truth("lost\n#### -10") == "-10");
  CHECK_FALSE(gsm8k_truth("no mark, 15"));
}

TEST_CASE("extract_letter: forms that mean a choice") {
  row const rows[] = {
      {"#### B", "B", "B"},
      {"#### (B)", "B", "B"},
      {"#### B.", "B", "B"},
      {"#### B) 42", "B", "B"},
      {"#### B.The rest", "B", "B"},
      {"####it's wrong.B", "B", "B"},
      {"#### b", "B", "B"},
      {"#### b)", "B", "B"},
      {"####[C]", "C", "C"},
      {"#### **D**", "D", "D"},
      {"#### \\boxed{D}", "D", "D"},
      {"#### \xe2\x80\x9c"
       "A\xe2\x80\x9d",
       "A", "A"},
      {"#### Answer: C", "C", "C"},
      {"#### The answer is A because", "A", "A"},
      {"#### a", "A", "A"},
      {"#### a dog: B", "B", "B"},  // an article
      {"#### none of the above, D", "D", "D"},
      {"#### B-cells: C", "C", "C"},
      {"#### I say B", "B", "B"},
  };
  for (row const& r : rows) {
    INFO(r.completion);
    CHECK(extract_letter(r.completion).strict == expected(r.strict));
    CHECK(extract_letter(r.completion).flexible == expected(r.flexible));
  }
}

TEST_CASE("extract_letter: the last \"answer is\", otherwise the last lone letter") {
  row const rows[] = {
      {"The answer is B. No, the answer is (c). A is wrong.", none, "C"},
      {"The correct ANSWER IS: **D**", none, "D"},
      {"the answer is option A", none, "A"},
      {"the answer is \\boxed{\\text{B}}", none, "B"},
      {"The answer is a dog. So C.", none, "C"},
      {"The answer is 5. So C.", none, "C"},
      {"#### E; the answer is B", "B", "B"},
      {"#### none. The answer is not here, D is", "D", "D"},
      {"A and B fail, so C", none, "C"},
      {"A dog barks.", none, none},
      {"It barks. A dog.", none, none},
      {"A is correct.", none, "A"},
      {"Clearly (b) holds", none, "B"},
      {"let b be a number", none, none},
      {"B-cell, C++, C#, D.C., A's", none, none},
      {"caf\xc3\xa9"
       "A \xc3\x84"
       "B",
       none, none},
      {"#### E", none, none},
      {"#### A B", none, none},
      {"", none, none},
  };
  for (row const& r : rows) {
    INFO(r.completion);
    CHECK(extract_letter(r.completion).strict == expected(r.strict));
    CHECK(extract_letter(r.completion).flexible == expected(r.flexible));
  }
}

TEST_CASE("extract_letter: completions are read as a person reads them") {
  std::vector<json> const rows = read_json_lines(fixture("text/answers/mmlu_letters.jsonl"));
  CHECK(rows.size() == 37);
  for (json const& row : rows) {
    auto const completion = row.at("completion").get<std::string>();
    INFO(row.dump());
    extracted_answer const found = extract_letter(completion);
    INFO(found.strict.value_or("none") << " | " << found.flexible.value_or("none"));
    auto const& person = row.at("a_person_reads");
    auto const wanted = person.is_string() ? std::optional(person.get<std::string>()) : std::nullopt;
    CHECK(found.flexible == wanted);
    if (completion.find("####") != std::string::npos) CHECK(found.strict == wanted);
  }
}

TEST_CASE("extract_letter: two choices, negations and further questions") {
  row const rows[] = {
      {"#### B/C", none, none},
      {"#### The answer is A or B", none, none},
      {"#### B is right and A is wrong", "B", "B"},
      {"#### A, because B fails", "A", "A"},
      {"#### A cell", none, none},
      {"#### \xef\xbc\xa2", "B", "B"},  // full-width B
      {"The answer is A or B.", none, none},
      {"The answer is not A.", none, none},
      {"Not A. The correct choice seems to be (d).", none, "D"},
      {"Answer: B\n\nQuestion: next?\nAnswer: C", none, "B"},
      {"#### B\nWait, that is wrong.\n#### C", "C", "C"},
      {"#### B\n\nQuestion: next?\n#### C", "B", "B"},
      {"I would go with C", none, "C"},
  };
  for (row const& r : rows) {
    INFO(r.completion);
    CHECK(extract_letter(r.completion).strict == expected(r.strict));
    CHECK(extract_letter(r.completion).flexible == expected(r.flexible));
  }
  CHECK(extract_letter("The answer is I think unclear", 10).flexible == std::nullopt);
}

TEST_CASE("extract_letter: the number of choices bounds the letters") {
  CHECK(extract_letter("#### E", 5).strict == "E");
  CHECK_FALSE(extract_letter("#### E", 4).strict);
  CHECK_THROWS_AS(extract_letter("x", 0), usage_error);
  CHECK_THROWS_AS(extract_letter("x", 27), usage_error);
}

TEST_CASE("answers: megabytes of digits, letters and marks take linear time") {
  for (char const* const part :
       {"1",  "1,",       "A ",       "-",  "answer is ", "####", "a.",  " ",      "$",   "\\frac{",
        "<<", "#### 1\n", "#### A\n", ":A", "^1",         "1 ",   "(",   "not A ", "= 1", "\xef\xbc\x91",
        "{",  "**",       "\\boxed{", "} ", "1{",         "A**",  "\\,", "_ "}) {
    std::string text;
    while (text.size() < 400'000) text += part;
    INFO(part);
    std::clock_t const begin = std::clock();
    extract_number(text);
    extract_letter(text);
    extract_number("####" + text);
    extract_letter("####" + text);
    CHECK(double(std::clock() - begin) / CLOCKS_PER_SEC < 10);
  }
}

}  // namespace answer_test
