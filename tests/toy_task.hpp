#pragma once
// A tokenizer with a dozen pieces and a task of one digit: small enough for random models of a few hundred parameters.
#include <atmanrl/core/random.hpp>
#include <atmanrl/tasks/task.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace atmanrl_test {

using namespace atmanrl;

/// Longest piece first. " B" and " 7" are pieces that mix space and answer, "####" is one piece beside single "#".
class toy_tokenizer {
 public:
  static constexpr int end = 0;  ///< stop token
  static constexpr int first_digit = 1;

  index_t vocab_size() const { return index_t(pieces().size()); }
  std::vector<int> encode(std::string_view text) const {
    std::vector<int> ids;
    while (!text.empty()) {
      int best = -1;
      for (int i = 1; i < int(pieces().size()); ++i)
        if (text.starts_with(pieces()[std::size_t(i)]) &&
            (best < 0 || pieces()[std::size_t(i)].size() > pieces()[std::size_t(best)].size()))
          best = i;
      expects<usage_error>(best >= 0, "the toy tokenizer has no piece for \"{}\"", text);
      ids.push_back(best);
      text.remove_prefix(pieces()[std::size_t(best)].size());
    }
    return ids;
  }
  std::vector<int> encode_with_specials(std::string_view text) const { return encode(text); }
  std::string decode(std::span<int const> ids) const {
    std::string text;
    for (int const id : ids) text += token_bytes(id);
    return text;
  }
  std::string_view token_bytes(int id) const {
    expects<usage_error>(id >= 0 && id < int(vocab_size()), "id {}", id);
    return pieces()[std::size_t(id)];
  }
  bool is_special(int id) const { return id == end; }
  int bos() const { return -1; }
  std::optional<int> token_id(std::string_view text) const {
    return text == pieces()[0] ? std::optional(end) : std::nullopt;
  }

 private:
  static std::vector<std::string> const& pieces() {
    static std::vector<std::string> const all{"<end>", "0",    "1", "2",  "3",  "4", "5", "6",  "7", "8", "9",
                                              "#",     "####", " ", "\n", " B", "A", "B", " 7", "w", "."};
    return all;
  }
};
static_assert(Tokenizer<toy_tokenizer>);

/// "Say 7" and the answer is 7, whatever is written in front of it.
struct toy_task {
  std::string_view name() const { return "toy"; }
  std::string_view delimiter() const { return "####"; }
  task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    return make(int(uniform(random_key{.seed = seed, .step = 1, .prompt = std::uint32_t(index)}) * 10));
  }
  index_t evaluation_size() const { return 10; }
  task_item evaluation_item(index_t i) const { return make(int(i)); }
  template <Tokenizer K>
  std::vector<int> prompt(task_item const& item, K const& tokenizer) const {
    return tokenizer.encode("A " + item.question);
  }
  graded_answer grade(task_item const& item, std::string_view text) const {
    graded_answer g;
    std::size_t const at = text.find("####");
    if (at == std::string_view::npos) return g;
    std::string_view behind = text.substr(at + 4);
    std::size_t const blank = behind.find_first_not_of(' ');
    if (blank == std::string_view::npos) return g;
    behind.remove_prefix(blank);
    g.extracted = g.extracted_flexible = std::string(behind);
    g.correct_strict = g.correct_flexible = behind == item.answer;
    return g;
  }
  std::string answer_text(task_item const& item) const { return item.answer; }

 private:
  static task_item make(int digit) {
    std::string const d = std::to_string(digit);
    return {.id = "toy-" + d, .question = d, .answer = d, .solution = "w. #### " + d};
  }
};
static_assert(Task<toy_task>);

}  // namespace atmanrl_test
