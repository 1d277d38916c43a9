// Files with a JSON value per line: read, kept up to a line, wound back, and as questions of GSM8K.
#include <atmanrl/io/jsonl.hpp>
#include <atmanrl/tasks/gsm8k.hpp>

#include "fuzz/harness.hpp"

namespace atmanrl_fuzz::jsonl_target {
namespace {

using namespace atmanrl;

void run(std::string const& input) {
  static scratch_file const file("f.jsonl"), train("gsm8k/train.jsonl"), test("gsm8k/test.jsonl");
  file.holding(input);
  index_t const breaks = std::ranges::count(input, '\n');
  accepted(file.text(), [&] {
    index_t values = 0;
    for_each_json_line(file.path(), [&](json const& value, index_t line) {
      promise(line <= breaks + 1, "lines are counted");
      values += dump_json(value).find('\n') == std::string::npos;
    });
    promise(values <= breaks + 1, "a value is printed on one line");
  });
  for (index_t const keep : {breaks, breaks + 1}) {
    bool const kept =
        accepted(file.text(), [&] { for_each_kept_line(file.path(), keep, [](json const&, index_t) {}); });
    promise(!kept || keep <= breaks, "only complete lines are kept");
  }
  accepted(file.text(), [&] {
    jsonl_writer out(file.path(), jsonl_writer::all_lines);
    out.append(json{{"x", 1}});
    promise(out.lines() == breaks + 1, "complete lines are kept");
  });
  static std::filesystem::path const& beside = train.holding(R"({"question":"q","answer":"1\n#### 1"})");
  test.holding(input);
  accepted("gsm8k/", [&] {
    gsm8k const task(beside.parent_path());
    for (index_t i = 0; i < task.evaluation_size(); ++i) {
      task_item const item = task.evaluation_item(i);
      promise(task.grade(item, item.solution).correct_strict, "a reference solution is right");
    }
  });
}

void corpus(seeds& out) {
  out.fixture("tasks/gsm8k/train.jsonl");
  out.fixture("tasks/gsm8k/test.jsonl");
  out.fixture("text/answers/mmlu_letters.jsonl");
  out.add("{\"question\":\"q\",\"answer\":\"1 + 1 = <<1+1=2>>2\\n#### 2\"}\n\n  \r\n");
  out.add("1\n[2]\n{\"a\":null}\n{\"half");
}

registered const here{{.name = "jsonl", .run = run, .corpus = corpus, .times = json_times}};

}  // namespace
}  // namespace atmanrl_fuzz::jsonl_target
