// A task of one's own: where questions come from, how they are asked, how an answer is graded. This one is made of the
// library's parts, so that the bundled model can answer it: one calculation, told in one sentence.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/evaluation/table.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/tasks/prompting.hpp>
#include <atmanrl/testing/task.hpp>
#include <atmanrl/text/tokenizer.hpp>

// [task]
struct one_sum {
  std::string_view name() const { return "one_sum"; }
  std::string_view delimiter() const { return "####"; }
  std::string_view delimiter_text() const { return "\n#### "; }

  // Endless training items, and evaluation items that are never among them: 7, 17, 27 .. are held out.
  atmanrl::task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    atmanrl::random_stream draw(atmanrl::random_key{.seed = seed, .prompt = std::uint32_t(index)});
    int apples = draw.between(2, 40);
    while (apples % 10 == 7) apples = draw.between(2, 40);
    return make(apples, draw.between(2, 19));
  }
  atmanrl::index_t evaluation_size() const { return 3 * 18; }
  atmanrl::task_item evaluation_item(atmanrl::index_t i) const { return make(7 + 10 * int(i % 3), 2 + int(i / 3)); }

  // Ids that a completion continues: the chat template where the tokenizer has one, else "Question: .. Answer:".
  template <atmanrl::Tokenizer K>
  std::vector<int> prompt(atmanrl::task_item const& item, K const& tokenizer) const {
    atmanrl::prompt_style style = atmanrl::reasoning_prompt();
    style.plain_head.clear();
    return atmanrl::question_prompt(tokenizer, style, item.question);
  }
  atmanrl::graded_answer grade(atmanrl::task_item const& item, std::string_view completion) const {
    return atmanrl::grade_number(item.answer, completion);
  }
  std::string answer_text(atmanrl::task_item const& item) const { return item.answer; }

 private:
  static atmanrl::task_item make(int apples, int more) {
    return {
        .id = fmt::format("{}+{}", apples, more),
        .question = fmt::format("Tom has {} apples. He buys {} more. How many apples does he have now?", apples, more),
        .answer = std::to_string(apples + more),
        .solution = fmt::format("Then {}+{}={}.\n#### {}", apples, more, apples + more, apples + more)};
  }
};
static_assert(atmanrl::Task<one_sum>);
// [/task]

int main() {
  try {
    // [prove]
    // The same items again, none of them in training and evaluation, its own answers right and prompts of tokens.
    atmanrl::testing::check_task(one_sum{}, atmanrl::tokenizer::load("examples/models/tiny"));
    // [/prove]
    // [evaluate]
    std::filesystem::path const folder = "examples/models/tiny";
    atmanrl::cpu_backend backend;
    auto model = atmanrl::llama<atmanrl::cpu_backend>::load(backend, folder);
    auto const words = atmanrl::tokenizer::load(folder);
    fmt::print("{}",
               evaluation_table(evaluate(model, words, one_sum{}, {.questions = 54, .samples = 2, .on_progress = {}})));
    // [/evaluate]
  } catch (atmanrl::error const& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 2;
  }
}
