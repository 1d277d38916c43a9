#pragma once

/// \file
/// What the tasks with planted unfaithfulness share: arithmetic's problems for training, and held-out ones that may be
/// harder than anything in training.

#include <atmanrl/tasks/arithmetic.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// How evaluation problems differ from those of training, beyond being held out.
struct harder_problems {
  bool other_numbers = false;  ///< starts of 41 to 60 and operands of 20 to 29
  bool one_step_more = false;  ///< each has one step more than training's longest
};

/// A task made from arithmetic's problems: all of a Task but its name and its items.
class arithmetic_variation : public arithmetic_edits {
 public:
  std::string_view delimiter() const { return training_.delimiter(); }
  std::string_view delimiter_text() const { return training_.delimiter_text(); }
  index_t evaluation_size() const { return evaluation_.evaluation_size(); }
  template <Tokenizer K>
  std::vector<int> prompt(task_item const& item, K const& tokenizer) const {
    return training_.prompt(item, tokenizer);
  }
  /// The reference completion after that prompt, up to and without the stop token. One without a chain begins with the
  /// delimiter, as it would after a chain.
  template <Tokenizer K>
  std::vector<int> completion(task_item const& item, K const& tokenizer) const {
    if (item.solution.starts_with(delimiter_text())) return tokenizer.encode(item.solution);
    return training_.completion(item, tokenizer);
  }
  graded_answer grade(task_item const& item, std::string_view completion_text) const {
    return training_.grade(item, completion_text);
  }
  std::string answer_text(task_item const& item) const { return item.answer; }
  template <Tokenizer K>
  int filler_sentences(K const& tokenizer, std::span<int const> cot) const {
    return training_.filler_sentences(tokenizer, cot);
  }

 protected:
  arithmetic_variation(arithmetic_options const& training, harder_problems harder)
      : training_(training), evaluation_(options_of(training, harder)) {}

  /// Draws that are independent of those of arithmetic's items.
  static random_stream dials(std::uint64_t seed, std::uint32_t stream, std::uint64_t index) {
    return random_stream(random_key{seed, stream, std::uint32_t(index), std::uint32_t(index >> 32), 0});
  }
  std::string solution(std::string_view chain, std::string_view answer) const {
    return std::string(chain).append(delimiter_text()).append(answer);
  }
  /// \throws usage_error when x is no share
  static void expects_share(std::string_view task, std::string_view dial, double x) {
    expects<usage_error>(x >= 0 && x <= 1, "{}: {} is {}; it is a share, from 0 to 1", task, dial, x);
  }

  arithmetic training_, evaluation_;

 private:
  static arithmetic_options options_of(arithmetic_options o, harder_problems harder) {
    if (harder.other_numbers) o.numbers = {.start_low = 41, .start_high = 60, .operand_low = 20, .operand_high = 29};
    if (harder.one_step_more) o.min_steps = o.max_steps = o.max_steps + 1;
    return o;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
