// expect: atmanrl: the task needs `atmanrl::graded_answer grade\(atmanrl::task_item const&, std::string_view completion\) const`
#include <atmanrl/tasks/task.hpp>

struct riddles {
  std::string_view name() const { return "riddles"; }
  std::string_view delimiter() const { return "####"; }
  atmanrl::task_item training_item(std::uint64_t, std::uint64_t) const { return {}; }
  atmanrl::index_t evaluation_size() const { return 1; }
  atmanrl::task_item evaluation_item(atmanrl::index_t) const { return {}; }
  template <atmanrl::Tokenizer K>
  std::vector<int> prompt(atmanrl::task_item const&, K const&) const {
    return {};
  }
  bool grade(atmanrl::task_item const&, std::string_view) const { return true; }
  std::string answer_text(atmanrl::task_item const& item) const { return item.answer; }
};
static_assert(atmanrl::detail::explain_task<riddles>());
