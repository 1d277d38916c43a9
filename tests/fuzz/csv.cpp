// Comma-separated values: fields that are written again are read again; and questions of MMLU.
#include <atmanrl/io/csv.hpp>
#include <atmanrl/tasks/mmlu.hpp>

#include "fuzz/harness.hpp"

namespace atmanrl_fuzz::csv_target {
namespace {

using namespace atmanrl;

void run(std::string const& input) {
  static scratch_file const test("mmlu/test/x_test.csv"), dev("mmlu/dev/x_dev.csv"), val("mmlu/val/x_val.csv");
  static bool const beside = [] {
    dev.holding("Is this one in no other file?,yes,no,both,neither,A\n");
    val.holding("And this one?,yes,no,both,neither,B\n");
    return true;
  }();
  bool const read = accepted("f.csv", [&] {
    auto const records = parse_csv(input, "f.csv");
    std::string again;
    for (csv_record const& r : records) {
      for (std::size_t i = 0; i < r.fields.size(); ++i) {
        again += i == 0 ? "\"" : ",\"";
        for (char const c : r.fields[i]) again.append(c == '"' ? 2 : 1, c);
        again += '"';
      }
      again += '\n';
    }
    auto const back = parse_csv(again, "again.csv");
    promise(back.size() == records.size(), "as many records are read again");
    for (std::size_t i = 0; i < back.size(); ++i)
      promise(back[i].fields == records[i].fields, "the same fields are read again");
  });
  if (!read || !beside) return;
  test.holding(input);
  static std::string const folder = test.path().parent_path().parent_path().string();
  accepted(folder, [&] {
    mmlu const task(folder, {.evaluation_questions = 0});
    for (index_t i = 0; i < task.evaluation_size(); ++i) {
      task_item const item = task.evaluation_item(i);
      promise(task.grade(item, "#### " + item.answer).correct_strict, "the true letter is right");
    }
  });
}

void corpus(seeds& out) {
  out.add("question,choice 1,choice 2,choice 3,choice 4,answer\nWhat?,a,b,c,d,A\n\"Who, \"\"he\"\"?\",1,2,3,4,3\r\n");
  out.add("What?,a,b,c,d,A\nWho?,1,\"2\n3\",,4,0\n");
  out.add(
      "\xef\xbb\xbf"
      "a,b\n\n\"c\"\n");
}

registered const here{{.name = "csv", .run = run, .corpus = corpus, .times = csv_times}};

}  // namespace
}  // namespace atmanrl_fuzz::csv_target
