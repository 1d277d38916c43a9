#pragma once

/// \file
/// MMLU, multiple-choice questions from 57 subjects (Hendrycks et al. 2021, arXiv:2009.03300), from CSV files as its
/// authors publish them (no header, answers A to D) or as exported elsewhere (a header, answers 0 to 3).

#include <atmanrl/core/config.hpp>
#include <atmanrl/io/csv.hpp>
#include <atmanrl/tasks/prompting.hpp>
#include <atmanrl/tasks/shuffle.hpp>
#include <atmanrl/tasks/task.hpp>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

namespace atmanrl::inline ATMANRL_ABI {

/// How a question is put to a model that generates its answer.
enum class mmlu_wording {
  delimiter,  ///< reason, then the letter after "####" (arXiv:2604.16158): the one to train with
  llama       ///< that of lm-evaluation-harness' mmlu_cot_llama: "... The best answer is B."
};

struct mmlu_options {
  mmlu_wording wording = mmlu_wording::delimiter;
  bool chat = true;                     ///< use the tokenizer's chat template where it has one
  index_t evaluation_questions = 1000;  ///< drawn from all test questions by the seed; 0: all of them
  std::uint64_t evaluation_seed = 0;
  std::filesystem::path auxiliary_train{};  ///< folder whose CSV files are trained on; empty: the folders val and dev
};

/// The wording around a question of MMLU.
prompt_style mmlu_prompt(mmlu_wording wording, bool chat = true);

/// A value; copies share the questions. An item's question holds its four choices as lines "A. ..", its subject is the
/// file's name without "_test.csv".
class mmlu {
 public:
  static constexpr int choices = 4;

  /// \param folder  with dev/, val/ and test/, each with a SUBJECT_dev.csv (val, test) for every subject
  /// \throws file_error "FILE:LINE: ..." for a line that is no item, or when a subject lacks one of its three files
  explicit mmlu(std::filesystem::path const& folder, mmlu_options options = {});

  std::string_view name() const { return "mmlu"; }
  std::string_view delimiter() const { return files_->style.delimiter; }
  std::string_view delimiter_text() const { return files_->style.delimiter_text; }
  mmlu_options const& options() const { return options_; }

  index_t training_size() const { return index_t(files_->train.size()); }
  task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    return files_->train[std::size_t(shuffled_epochs(training_size(), seed, index))];
  }
  /// Test questions in the order that the evaluation seed draws.
  index_t evaluation_size() const {
    index_t const all = test_size();
    return options_.evaluation_questions == 0 ? all : std::min(options_.evaluation_questions, all);
  }
  task_item evaluation_item(index_t index) const {
    expects<shape_error>(index >= 0 && index < evaluation_size(), "evaluation item {} of {}", index, evaluation_size());
    return files_->test[std::size_t(shuffled(test_size(), options_.evaluation_seed, 0, index))];
  }
  index_t test_size() const { return index_t(files_->test.size()); }
  /// Subject by subject in alphabetic order, each in its file's order.
  task_item const& test_item(index_t index) const { return files_->test.at(std::size_t(index)); }
  std::vector<std::string> subjects() const;

  template <Tokenizer K>
  std::vector<int> prompt(task_item const& item, K const& tokenizer) const {
    return question_prompt(tokenizer, files_->style, item.question);
  }
  graded_answer grade(task_item const& item, std::string_view completion_text) const {
    return grade_letter(item.answer, completion_text, choices, files_->style.mark());
  }
  std::string answer_text(task_item const& item) const { return item.answer; }

  /// The prompt whose next token is a letter, as the benchmark's authors put it: questions of the dev file with their
  /// letters, then the question and "Answer:". Always plain text.
  /// \param shots  how many dev questions of the item's subject, at most all of them
  template <Tokenizer K>
  std::vector<int> letter_prompt(task_item const& item, K const& tokenizer, int shots = 5) const {
    auto const subject = files_->dev.find(item.subject);
    expects<usage_error>(subject != files_->dev.end(), "mmlu: there is no subject \"{}\"", item.subject);
    std::string spaced = item.subject;
    std::ranges::replace(spaced, '_', ' ');
    std::string text = fmt::format("The following are multiple choice questions (with answers) about {}.\n\n", spaced);
    for (task_item const& shot :
         std::span(subject->second).first(std::min(std::size_t(std::max(0, shots)), subject->second.size())))
      text += fmt::format("{}\nAnswer: {}\n\n", shot.question, shot.answer);
    text += item.question + "\nAnswer:";
    std::vector<int> ids = tokenizer.encode(text);
    if (tokenizer.bos() >= 0) ids.insert(ids.begin(), tokenizer.bos());
    return ids;
  }

 private:
  struct contents {
    std::vector<task_item> train, test;
    std::map<std::string, std::vector<task_item>> dev;
    prompt_style style;
  };

  static std::vector<std::filesystem::path> csv_files(std::filesystem::path const& folder);

  static std::vector<std::string> subjects_of(std::filesystem::path const& folder);

  static std::vector<task_item> read(std::filesystem::path const& path, std::string const& subject,
                                     std::string_view split) {
    std::vector<task_item> all;
    std::vector<csv_record> const records = read_csv(path, 6);
    for (std::size_t i = 0; i < records.size(); ++i) {
      auto const& [line, f] = records[i];
      if (i == 0 && f[0] == "question" && f[5] == "answer") continue;  // the header
      bool const digit = f[5].size() == 1 && f[5][0] >= '0' && f[5][0] <= '3',
                 letter = f[5].size() == 1 && f[5][0] >= 'A' && f[5][0] <= 'D';
      expects<file_error>(digit || letter, "{}:{}: the answer is \"{}\", it must be 0 to 3 or A to D", path.string(),
                          line, f[5].substr(0, 40));
      all.push_back({.id = fmt::format("mmlu-{}-{}-{}", split, subject, line),
                     .question = fmt::format("{}\nA. {}\nB. {}\nC. {}\nD. {}", f[0], f[1], f[2], f[3], f[4]),
                     .answer = std::string(1, digit ? char(f[5][0] - '0' + 'A') : f[5][0]),
                     .solution = {},
                     .subject = subject});
    }
    expects<file_error>(!all.empty(), "{}: holds no questions", path.string());
    return all;
  }

  mmlu_options options_;
  std::shared_ptr<contents const> files_;
};

static_assert(detail::explain_task<mmlu>());

#if ATMANRL_BODIES

ATMANRL_INLINE prompt_style mmlu_prompt(mmlu_wording wording, bool chat) {
  if (wording == mmlu_wording::delimiter)
    return {
        .user_suffix = "\nThink step by step. Then write #### and the letter of the final answer.",
        .plain_head = "Each question is answered step by step; the letter of the final answer stands after ####.\n\n",
        .chat = chat};
  std::string const prefix =
      "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\n\nQuestion: ";
  std::string const suffix =
      "\n\n- For simple problems:\nDirectly provide the answer with minimal explanation.\n\n- For complex "
      "problems:\nUse this step-by-step "
      "format:\n## Step 1: [Concise description]\n[Brief explanation]\n## Step 2: [Concise description]\n[Brief "
      "explanation]\n\nRegardless of the "
      "approach, always conclude with:\nThe best answer is [the_answer_letter].\nwhere the [the_answer_letter] is one "
      "of A, B, C or D.\n\nLet's "
      "think step by step.";
  return {.user_prefix = prefix,
          .user_suffix = suffix,
          .plain_prefix = prefix,
          .plain_suffix = suffix,
          .delimiter = "best answer is",
          .delimiter_text = "\nThe best answer is ",
          .solution_end = ".",
          .last_delimiter = true,
          .chat = chat};
}

ATMANRL_INLINE mmlu::mmlu(std::filesystem::path const& folder, mmlu_options options) : options_(std::move(options)) {
  expects<usage_error>(options_.evaluation_questions >= 0, "mmlu: {} evaluation questions",
                       options_.evaluation_questions);
  auto files = std::make_shared<contents>();
  files->style = mmlu_prompt(options_.wording, options_.chat);
  std::vector<task_item> train;
  std::set<std::string> held_out;
  for (std::string const& subject : subjects_of(folder / "test")) {
    for (task_item& item : read(folder / "test" / (subject + "_test.csv"), subject, "test")) {
      held_out.insert(item.question);
      files->test.push_back(std::move(item));
    }
    std::vector<task_item> dev = read(folder / "dev" / (subject + "_dev.csv"), subject, "dev");
    if (options_.auxiliary_train.empty()) {
      for (task_item& item : read(folder / "val" / (subject + "_val.csv"), subject, "val"))
        train.push_back(std::move(item));
      train.insert(train.end(), dev.begin(), dev.end());
    }
    files->dev.emplace(subject, std::move(dev));
  }
  if (!options_.auxiliary_train.empty())
    for (auto const& path : csv_files(options_.auxiliary_train)) {
      std::string const name = path.stem().string();
      for (task_item& item : read(path, name, "auxiliary_train")) train.push_back(std::move(item));
    }
  // A few questions stand in several files; what is asked in the test is not trained on.
  for (task_item& item : train)
    if (!held_out.contains(item.question)) files->train.push_back(std::move(item));
  expects<file_error>(!files->train.empty(), "{}: holds no questions to train on", folder.string());
  files_ = std::move(files);
}

ATMANRL_INLINE std::vector<std::filesystem::path> mmlu::csv_files(std::filesystem::path const& folder) {
  expects<file_error>(std::filesystem::is_directory(folder), "{}: there is no such folder of MMLU questions",
                      folder.string());
  std::vector<std::filesystem::path> out;
  for (auto const& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".csv") out.push_back(entry.path());
  std::ranges::sort(out);
  expects<file_error>(!out.empty(), "{}: holds no .csv files", folder.string());
  return out;
}

ATMANRL_INLINE std::vector<std::string> mmlu::subjects_of(std::filesystem::path const& folder) {
  std::vector<std::string> out;
  for (auto const& path : csv_files(folder)) {
    std::string name = path.stem().string();
    expects<file_error>(name.ends_with("_test"), "{}: the name of a test file is SUBJECT_test.csv", path.string());
    out.push_back(name.substr(0, name.size() - 5));
  }
  return out;
}

ATMANRL_INLINE std::vector<std::string> mmlu::subjects() const {
  std::vector<std::string> out;
  for (auto const& [subject, items] : files_->dev) out.push_back(subject);
  return out;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
