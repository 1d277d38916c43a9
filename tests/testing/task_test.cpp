// Tasks that break what a task promises, and the sentence about each.
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/testing/task.hpp>
#include <atmanrl/text/byte_bpe.hpp>

#include "catch.hpp"
#include "strangers.hpp"
#include "toy_task.hpp"

#include <atomic>

using namespace atmanrl;

namespace task_test {
namespace {

using strangers::byte_tokens;
using strangers::next_digit;

struct by_the_clock : next_digit {
  mutable std::atomic<int> calls = 0;
  task_item training_item(std::uint64_t seed, std::uint64_t) const {
    return next_digit::training_item(seed, std::uint64_t(++calls));
  }
};

struct strict : next_digit {
  graded_answer grade(task_item const& item, std::string_view completion) const {
    graded_answer g = next_digit::grade(item, completion);
    g.correct_strict = g.correct_strict && completion.ends_with(".");
    return g;
  }
};

struct generous : next_digit {
  graded_answer grade(task_item const& item, std::string_view completion) const {
    graded_answer g = next_digit::grade(item, completion);
    g.correct_strict = g.extracted.has_value();
    return g;
  }
};

struct one_id : next_digit {
  task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    task_item item = next_digit::training_item(seed, index);
    item.id = "digit";
    return item;
  }
};

struct beyond_the_vocabulary : next_digit {
  template <Tokenizer K>
  std::vector<int> prompt(task_item const& item, K const& tokenizer) const {
    auto ids = next_digit::prompt(item, tokenizer);
    ids.push_back(int(tokenizer.vocab_size()));
    return ids;
  }
};

}  // namespace

TEST_CASE("check_task: what keeps its promises passes") {
  testing::check_task(next_digit{}, byte_tokens{});
  testing::check_task(arithmetic{}, byte_bpe(arithmetic_text::vocabulary()));
}

TEST_CASE("check_task: each broken promise is found and named") {
  CHECK_THROWS_WITH(testing::check_task(by_the_clock{}, byte_tokens{}),
                    ATMANRL_CONTAINS("training item") && ATMANRL_CONTAINS("the first time and \"A"));
  CHECK_THROWS_WITH(
      testing::check_task(strict{}, byte_tokens{}),
      ATMANRL_CONTAINS("its own answer after the delimiter") && ATMANRL_CONTAINS("is not graded as right"));
  CHECK_THROWS_WITH(testing::check_task(generous{}, byte_tokens{}), ATMANRL_CONTAINS("graded as right"));
  CHECK_THROWS_WITH(testing::check_task(one_id{}, byte_tokens{}), ATMANRL_CONTAINS("have the same id digit"));
  CHECK_THROWS_WITH(testing::check_task(beyond_the_vocabulary{}, byte_tokens{}),
                    ATMANRL_CONTAINS("its prompt has the id 257, which is no token of 257"));
  CHECK_THROWS_WITH(testing::check_task(atmanrl_test::toy_task{}, atmanrl_test::toy_tokenizer{}, {}),
                    ATMANRL_CONTAINS("evaluation item 0 asks \"0\", and so does training"));
}

}  // namespace task_test
