// expect: atmanrl: the task needs `atmanrl::task_item training_item\(std::uint64_t seed, std::uint64_t index\) const`
#include <atmanrl/tasks/task.hpp>

struct counted {
  int asked = 0;
  std::string_view name() const { return "counted"; }
  atmanrl::task_item training_item(std::uint64_t, std::uint64_t) { return {std::to_string(++asked), "?", "1", ""}; }
};
static_assert(atmanrl::detail::explain_task<counted>());
