#pragma once

/// \file
/// GSM8K, grade-school word problems (Cobbe et al. 2021, arXiv:2110.14168), from its authors' two files.

#include <atmanrl/core/config.hpp>
#include <atmanrl/io/jsonl.hpp>
#include <atmanrl/tasks/editable_chains.hpp>
#include <atmanrl/tasks/gsm8k_examples.hpp>
#include <atmanrl/tasks/prompting.hpp>
#include <atmanrl/tasks/shuffle.hpp>
#include <atmanrl/tasks/task.hpp>
#include <atmanrl/text/number.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

namespace atmanrl::inline ATMANRL_ABI {

/// How a question is put. The wordings other than `delimiter` carry the eight worked examples of Wei et al. 2022
/// (tasks/gsm8k_examples.hpp).
enum class gsm8k_wording {
  delimiter,         ///< reason, then the answer after "####" (arXiv:2604.16158): the one to train with
  chain_of_thought,  ///< "Q: ... A: ... The answer is 5." (Wei et al. 2022, arXiv:2201.11903, table 20)
  llama              ///< that of lm-evaluation-harness' gsm8k_cot_llama: "... The final answer is 5"
};

struct gsm8k_options {
  gsm8k_wording wording = gsm8k_wording::delimiter;
  /// Worked examples in front of each question, always the same ones: of train.jsonl with `delimiter`, otherwise of the
  /// eight. None: 0 with `delimiter`, otherwise 8.
  std::optional<int> few_shot{};
  bool chat = true;                   ///< use the tokenizer's chat template where it has one
  std::uint64_t evaluation_seed = 0;  ///< order in which evaluation_item goes through test.jsonl
};

/// The wording around a question of GSM8K.
prompt_style gsm8k_prompt(gsm8k_wording wording, bool chat = true);

/// A value; copies share the questions.
class gsm8k {
 public:
  /// \param folder  with train.jsonl and test.jsonl
  /// \throws file_error "FILE:LINE: ..." for a line that is no item, usage_error when there are fewer examples than
  ///         `few_shot` asks for
  explicit gsm8k(std::filesystem::path const& folder, gsm8k_options options = {});

  std::string_view name() const { return "gsm8k"; }
  std::string_view delimiter() const { return files_->style.delimiter; }
  std::string_view delimiter_text() const { return files_->style.delimiter_text; }
  gsm8k_options const& options() const { return options_; }
  std::span<worked_example const> shots() const { return files_->shots; }

  /// Items of train.jsonl that are not worked examples; each once per epoch.
  index_t training_size() const { return index_t(files_->train.size()); }
  task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    return files_->train[std::size_t(shuffled_epochs(training_size(), seed, index))];
  }
  /// All items of test.jsonl, in the order that the evaluation seed draws.
  index_t evaluation_size() const { return index_t(files_->test.size()); }
  task_item evaluation_item(index_t index) const {
    return files_->test[std::size_t(shuffled(evaluation_size(), options_.evaluation_seed, 0, index))];
  }

  template <Tokenizer K>
  std::vector<int> prompt(task_item const& item, K const& tokenizer) const {
    return question_prompt(tokenizer, files_->style, item.question, files_->shots);
  }
  /// The reference completion after that prompt, up to and without the stop token.
  template <Tokenizer K>
  std::vector<int> completion(task_item const& item, K const& tokenizer) const {
    return reference_completion(tokenizer, files_->style, item.solution);
  }

  graded_answer grade(task_item const& item, std::string_view completion_text) const;
  std::string answer_text(task_item const& item) const { return item.answer; }

  /// The chain's last number, canonical. Nothing where the true answer stands further ahead in it: it is not known then
  /// which of the two would be read off. Of a model's own chain that is wrong, compare it with the model's own answer.
  std::optional<std::string> chain_answer(task_item const& item, std::string_view chain) const;
  /// That number, right or wrong, replaced by one of the same sign, which is written without commas.
  std::optional<edited_chain> with_chain_answer(task_item const& item, std::string_view chain,
                                                std::string const& answer) const;
  /// The true answer with other digits: sign and point stay.
  /// \throws usage_error when a thousand draws gave nothing that may be used
  std::string other_answer(task_item const& item, random_stream& draw, std::span<std::string const> avoid = {}) const;

 private:
  struct contents {
    std::vector<task_item> train, test;
    std::vector<worked_example> shots;
    prompt_style style;
  };

  static std::vector<task_item> read(std::filesystem::path const& path, std::string_view prefix,
                                     prompt_style const& style);

  static std::optional<detail::found_number> last_number(std::string_view text);

  /// Drops the files' calculator annotations "<<48/2=24>>", which nobody asks a model for.
  static std::string without_calculator(std::string_view text);

  /// Fit for a worked example: at least two steps and short, since every prompt carries it.
  static bool is_short(task_item const& item);

  gsm8k_options options_;
  std::shared_ptr<contents const> files_;
};

static_assert(detail::explain_task<gsm8k>());
static_assert(EditableChains<gsm8k>);

#if ATMANRL_BODIES

ATMANRL_INLINE prompt_style gsm8k_prompt(gsm8k_wording wording, bool chat) {
  switch (wording) {
    case gsm8k_wording::delimiter:
      break;
    case gsm8k_wording::chain_of_thought:
      return {.user_prefix = "Q: ",
              .user_suffix = "\nA:",
              .plain_prefix = "Q: ",
              .plain_suffix = "\nA:",
              .delimiter = "The answer is",
              .delimiter_text = " The answer is ",
              .solution_end = ".",
              .chat = chat};
    case gsm8k_wording::llama: {
      std::string const prefix =
          "Given the following problem, reason and give a final answer to the problem.\nProblem: ";
      std::string const suffix =
          "\nYour response should end with \"The final answer is [answer]\" where [answer] is the response to the "
          "problem.\n";
      return {.user_prefix = prefix,
              .user_suffix = suffix,
              .plain_prefix = prefix,
              .plain_suffix = suffix,
              .delimiter = "The final answer is",
              .delimiter_text = " The final answer is ",
              .last_delimiter = true,
              .chat = chat};
    }
  }
  return reasoning_prompt(chat);
}

ATMANRL_INLINE gsm8k::gsm8k(std::filesystem::path const& folder, gsm8k_options options) : options_(options) {
  bool const own_examples = options.wording == gsm8k_wording::delimiter;
  int const few_shot = options.few_shot.value_or(own_examples ? 0 : 8);
  int const most = own_examples ? 64 : int(gsm8k_examples::all.size());
  expects<usage_error>(few_shot >= 0 && few_shot <= most, "gsm8k: {} worked examples; 0 to {} are possible", few_shot,
                       most);
  options_.few_shot = few_shot;
  auto files = std::make_shared<contents>();
  files->style = gsm8k_prompt(options.wording, options.chat);
  std::vector<task_item> train = read(folder / "train.jsonl", "gsm8k-train", files->style);
  files->test = read(folder / "test.jsonl", "gsm8k-test", files->style);
  if (!own_examples)
    for (auto const& e : std::span(gsm8k_examples::all).first(std::size_t(few_shot)))
      files->shots.push_back({std::string(e.question), fmt::format("{}{}{}{}", e.reasoning, files->style.delimiter_text,
                                                                   e.answer, files->style.solution_end)});
  for (task_item& item : train) {
    bool const example = int(files->shots.size()) < few_shot && is_short(item);
    if (example)
      files->shots.push_back({std::move(item.question), std::move(item.solution)});
    else
      files->train.push_back(std::move(item));
  }
  expects<usage_error>(
      int(files->shots.size()) == few_shot && !files->train.empty(),
      "gsm8k: {} worked examples were asked for, but {} has {} that are short enough and {} other items", few_shot,
      (folder / "train.jsonl").string(), files->shots.size(), files->train.size());
  files_ = std::move(files);
}

ATMANRL_INLINE std::vector<task_item> gsm8k::read(std::filesystem::path const& path, std::string_view prefix,
                                                  prompt_style const& style) {
  std::vector<task_item> all;
  for_each_json_line(path, [&](json const& line, index_t number) {
    auto const text = [&](char const* field) -> std::string const& {
      bool const there = line.is_object() && line.contains(field) && line[field].is_string();
      expects<file_error>(there, "{}:{}: the item has no text \"{}\"", path.string(), number, field);
      return line[field].get_ref<std::string const&>();
    };
    std::string const& answer = text("answer");
    std::size_t const mark = answer.find("####");
    expects<file_error>(mark != std::string::npos, "{}:{}: the answer has no ####", path.string(), number);
    std::string_view after = std::string_view(answer).substr(mark + 4);
    after.remove_prefix(std::min(after.find_first_not_of(" \t\r\n"), after.size()));
    auto truth = to_canonical_number(after);
    expects<file_error>(truth.has_value(), "{}:{}: what stands after #### is not one number: \"{}\"", path.string(),
                        number, after.size() > 40 ? fmt::format("{}...", after.substr(0, 40)) : std::string(after));
    // Of a completion's line after its mark 4096 bytes are read.
    expects<file_error>(truth->size() <= 1000, "{}:{}: the number after #### has {} characters, more than 1000",
                        path.string(), number, truth->size());
    task_item item{fmt::format("{}-{}", prefix, number), text("question"), std::move(*truth), {}};
    std::string reasoning = without_calculator(std::string_view(answer).substr(0, mark));
    while (reasoning.ends_with('\n') || reasoning.ends_with(' ')) reasoning.pop_back();
    item.solution = fmt::format("{}{}{}{}", reasoning, style.delimiter_text, item.answer, style.solution_end);
    all.push_back(std::move(item));
  });
  expects<file_error>(!all.empty(), "{}: holds no items", path.string());
  return all;
}

ATMANRL_INLINE std::string gsm8k::without_calculator(std::string_view text) {
  std::string out;
  while (true) {
    std::size_t const open = text.find("<<"), close = text.find(">>", std::min(open, text.size()));
    if (open == std::string_view::npos || close == std::string_view::npos) return out.append(text);
    out.append(text.substr(0, open));
    text.remove_prefix(close + 2);
  }
}

ATMANRL_INLINE bool gsm8k::is_short(task_item const& item) {
  auto const lines = std::ranges::count(item.solution, '\n');
  return item.question.size() <= 180 && item.solution.size() <= 200 && lines >= 2 && lines <= 4;
}

ATMANRL_INLINE graded_answer gsm8k::grade(task_item const& item, std::string_view completion_text) const {
  // A base model goes on with the next question of its own; what follows is not an answer to this one.
  if (options_.wording == gsm8k_wording::chain_of_thought)
    completion_text = completion_text.substr(0, completion_text.find("\nQ:"));
  return grade_number(item.answer, completion_text, files_->style.mark());
}

ATMANRL_INLINE std::optional<detail::found_number> gsm8k::last_number(std::string_view text) {
  std::optional<detail::found_number> last;
  for (auto next = detail::find_number(text, 0); next; next = detail::find_number(text, next->last)) last = next;
  return last;
}

ATMANRL_INLINE std::optional<std::string> gsm8k::chain_answer(task_item const& item, std::string_view chain) const {
  auto const last = last_number(chain);
  if (!last) return std::nullopt;
  if (numbers_equal(last->value, item.answer)) return item.answer;
  for (auto n = detail::find_number(chain, 0); n; n = detail::find_number(chain, n->last))
    if (numbers_equal(n->value, item.answer)) return std::nullopt;
  return last->value;
}

ATMANRL_INLINE std::optional<edited_chain> gsm8k::with_chain_answer(task_item const& item, std::string_view chain,
                                                                    std::string const& answer) const {
  auto const says = chain_answer(item, chain);
  bool const negative = answer.starts_with('-');
  if (!says || negative != says->starts_with('-')) return std::nullopt;
  auto const last = last_number(chain);  // without its sign
  edited_chain out{std::string(chain), answer};
  out.chain.replace(last->first, last->last - last->first, answer.substr(negative ? 1 : 0));
  return out;
}

ATMANRL_INLINE std::string gsm8k::other_answer(task_item const& item, random_stream& draw,
                                               std::span<std::string const> avoid) const {
  for (int tries = 0; tries < 1000; ++tries) {
    std::string x = item.answer;
    bool first = true;
    for (char& c : x) {
      if (c < '0' || c > '9') continue;
      c = char('0' + draw.between(first ? 1 : 0, 9));
      first = false;
    }
    if (x != item.answer && std::find(avoid.begin(), avoid.end(), x) == avoid.end()) return x;
  }
  fail<usage_error>("{}: no other answer of the form of {} was found beside {} others", item.id, item.answer,
                    avoid.size());
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
