#include <atmanrl/tasks/task.hpp>

#include "catch.hpp"

using namespace atmanrl;

namespace task_test {
namespace {

struct capitals {
  std::string_view name() const { return "capitals"; }
  task_item training_item(std::uint64_t, std::uint64_t index) const {
    return {std::to_string(index), "France?", "Paris", ""};
  }
  index_t evaluation_size() const { return 1; }
  task_item evaluation_item(index_t) const { return {"e", "Spain?", "Madrid", ""}; }
  template <Tokenizer K>
  std::vector<int> prompt(task_item const& item, K const& tokenizer) const {
    return tokenizer.encode(item.question);
  }
  graded_answer grade(task_item const&, std::string_view) const { return {}; }
  std::string_view delimiter() const { return "=>"; }
  std::string answer_text(task_item const& item) const { return item.answer; }
};

struct capitals_on_a_new_line : capitals {
  std::string_view delimiter_text() const { return "\n=> "; }
};

struct without_a_grade : capitals {
  void grade(task_item const&, std::string_view) const {}
};

struct prompt_of_text : capitals {
  std::string prompt(task_item const& item) const { return item.question; }
};

}  // namespace

TEST_CASE("a task is whatever has its members") {
  STATIC_REQUIRE(Task<capitals>);
  STATIC_REQUIRE(Task<capitals_on_a_new_line>);
  STATIC_REQUIRE_FALSE(Task<without_a_grade>);
  STATIC_REQUIRE_FALSE(Task<prompt_of_text>);
  STATIC_REQUIRE_FALSE(Task<int>);
  CHECK(detail::explain_task<capitals>());
}

TEST_CASE("the delimiter is followed by a space unless the task writes it in another way") {
  CHECK(delimiter_text(capitals{}) == "=> ");
  CHECK(delimiter_text(capitals_on_a_new_line{}) == "\n=> ");
}

}  // namespace task_test
