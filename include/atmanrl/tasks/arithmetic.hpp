#pragma once

/// \file
/// Endless word problems in the style of GSM8K, small enough for a model of half a million parameters. Their chains of
/// thought hold sentences that do not matter, at random places and also after the last step, so that it is known which
/// tokens the answer depends on (planted_truth.hpp reads them off).

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/random.hpp>
#include <atmanrl/tasks/arithmetic_chain.hpp>
#include <atmanrl/tasks/arithmetic_text.hpp>
#include <atmanrl/tasks/planted_truth.hpp>
#include <atmanrl/tasks/prompting.hpp>
#include <atmanrl/tasks/task.hpp>

#include <fmt/format.h>

namespace atmanrl::inline ATMANRL_ABI {

/// Ranges that a problem's numbers are drawn from, both ends included. Results lie in 1 .. 99 whatever they are.
struct arithmetic_numbers {
  int start_low = 2, start_high = 40;
  int operand_low = 2, operand_high = 19;  ///< of sums and differences; numbers are doubled and tripled besides
};

struct arithmetic_options {
  int min_steps = 1, max_steps = 4;
  int max_filler_sentences = 6;  ///< each chain has 0 to this many, uniformly
  arithmetic_numbers numbers{};
};

struct arithmetic_step {
  char sign;  ///< + - *
  int operand, result;
  friend bool operator==(arithmetic_step const&, arithmetic_step const&) = default;
};

/// A calculation without words.
struct arithmetic_problem {
  int start = 0;
  std::vector<arithmetic_step> steps{};

  int answer() const { return steps.empty() ? start : steps.back().result; }
  friend bool operator==(arithmetic_problem const&, arithmetic_problem const&) = default;
};

/// A problem and what its words are drawn from. Another problem with as many steps of the same signs gets the same
/// words, so that questions can be made that differ in a number alone.
struct arithmetic_draw {
  std::string id;
  arithmetic_problem problem{};
  random_stream wording;
};

class arithmetic : public arithmetic_edits {
 public:
  explicit arithmetic(arithmetic_options options = {}) : options_(options) {
    expects<usage_error>(options.min_steps >= 1 && options.max_steps >= options.min_steps && options.max_steps <= 16,
                         "arithmetic: {} to {} steps; 1 to 16 are possible", options.min_steps, options.max_steps);
    expects<usage_error>(options.max_filler_sentences >= 0 && options.max_filler_sentences <= 64,
                         "arithmetic: up to {} filler sentences; 0 to 64 are possible", options.max_filler_sentences);
    arithmetic_numbers const& n = options.numbers;
    expects<usage_error>(n.start_low >= 1 && n.start_high >= n.start_low && n.start_high <= 99,
                         "arithmetic: a start of {} to {}; 1 to 99 are possible", n.start_low, n.start_high);
    // From each of 1 .. 99 a step by 49 or less stays there.
    expects<usage_error>(
        n.operand_low >= 1 && n.operand_low <= 49 && n.operand_high >= n.operand_low && n.operand_high <= 98,
        "arithmetic: operands of {} to {}; 1 to 98 are possible, and the smallest is at most 49", n.operand_low,
        n.operand_high);
  }

  std::string_view name() const { return "arithmetic"; }
  std::string_view delimiter() const { return "####"; }
  std::string_view delimiter_text() const { return "\n#### "; }
  arithmetic_options const& options() const { return options_; }

  task_item training_item(std::uint64_t seed, std::uint64_t index) const { return written(training_draw(seed, index)); }
  /// There are more; a million is more than anybody evaluates.
  index_t evaluation_size() const { return 1000000; }
  task_item evaluation_item(index_t index) const { return written(evaluation_draw(index)); }

  /// The problems behind those items, for tasks that rewrite them.
  arithmetic_draw training_draw(std::uint64_t seed, std::uint64_t index) const {
    return draw(random_key{seed, training_stream, std::uint32_t(index), std::uint32_t(index >> 32), 0}, false,
                fmt::format("arithmetic-{}-{}", seed, index));
  }
  arithmetic_draw evaluation_draw(index_t index) const {
    expects<shape_error>(index >= 0 && index < evaluation_size(), "evaluation item {} of {}", index, evaluation_size());
    return draw(random_key{0, evaluation_stream, std::uint32_t(index), 0, 0}, true,
                fmt::format("arithmetic-evaluation-{}", index));
  }
  /// Any other problem, of one side.
  /// \throws usage_error when the options allow no problem there, or hardly any
  arithmetic_draw draw(random_key key, bool held_out, std::string id) const;
  /// A problem in words, with a reference chain.
  task_item written(arithmetic_draw const& drawn) const;
  /// The numbers of a problem decide on which side it lies, whatever the wording: one in eight is held out. So no seed
  /// can put an evaluation question, or its calculation, into training.
  static bool is_held_out(arithmetic_problem const& p);

  /// "Question: ...\nAnswer:", or one user turn with instructions where the tokenizer has a chat template.
  template <Tokenizer K>
  std::vector<int> prompt(task_item const& item, K const& tokenizer) const {
    return question_prompt(tokenizer, style(), item.question);
  }
  /// The reference completion after that prompt, up to and without the stop token.
  template <Tokenizer K>
  std::vector<int> completion(task_item const& item, K const& tokenizer) const {
    return reference_completion(tokenizer, style(), item.solution);
  }

  graded_answer grade(task_item const& item, std::string_view completion_text) const;
  std::string answer_text(task_item const& item) const { return item.answer; }
  /// Sentences of a chain of thought that are neither a step nor the start (planted_truth.hpp).
  template <Tokenizer K>
  int filler_sentences(K const& tokenizer, std::span<int const> cot) const {
    return find_planted(tokenizer, cot).filler_sentences;
  }

 private:
  static constexpr std::uint32_t training_stream = 0x41524954, evaluation_stream = training_stream + 1;

  /// A small model that knows nothing but this task needs no instructions.
  static prompt_style style();

  /// The values of the placeholders of arithmetic_text.hpp.
  struct words {
    arithmetic_text::person const* who;
    std::string_view other, objects;
  };

  static arithmetic_problem draw_problem(random_stream& draw, arithmetic_options const& options);

  template <std::size_t N>
  static std::string_view choose(random_stream& draw, std::array<std::string_view, N> const& list) {
    return list[std::size_t(draw.between(0, int(N) - 1))];
  }

  static std::string equation(int left, arithmetic_step const& s);

  static std::string fill(std::string_view sentence, words const& w, random_stream& draw, int number,
                          std::string_view equation = {}) {
    std::string out;
    for (std::size_t i = 0; i < sentence.size(); ++i) {
      if (sentence[i] != '{') {
        out += sentence[i];
        continue;
      }
      switch (sentence[i + 1]) {
        case 'n':
          out += w.who->name;
          break;
        case 'o':
          out += w.other;
          break;
        case 'i':
          out += w.objects;
          break;
        case 'h':
          out += w.who->he;
          break;
        case 'H':
          out += w.who->he == "he" ? "He" : "She";
          break;
        case 'm':
          out += w.who->him;
          break;
        case 's':
          out += w.who->his;
          break;
        case 'c':
          out += choose(draw, arithmetic_text::colours);
          break;
        case 'x':
          out += fmt::format("{}", number);
          break;
        case 'e':
          out += equation;
          break;
        default:
          fail("the sentence \"{}\" has an unknown placeholder", sentence);
      }
      i += 2;
    }
    return out;
  }

  /// 50 % plain, 30 % with an irrelevant number, 20 % an irrelevant equation.
  static std::string filler(words const& w, random_stream& draw);

  arithmetic_options options_;
};

static_assert(detail::explain_task<arithmetic>());
static_assert(EditableSteps<arithmetic> && HintedQuestions<arithmetic>);

#if ATMANRL_BODIES

ATMANRL_INLINE arithmetic_draw arithmetic::draw(random_key key, bool held_out, std::string id) const {
  random_stream numbers(key);
  arithmetic_problem p = draw_problem(numbers, options_);
  for (int tries = 1; is_held_out(p) != held_out; ++tries) {
    expects<usage_error>(tries < 10000, "arithmetic: the ranges of numbers and steps leave no problem {} training",
                         held_out ? "out of" : "for");
    p = draw_problem(numbers, options_);
  }
  return {std::move(id), std::move(p), numbers};
}

ATMANRL_INLINE task_item arithmetic::written(arithmetic_draw const& drawn) const {
  arithmetic_problem const& p = drawn.problem;
  random_stream draw = drawn.wording;
  int const people = int(arithmetic_text::people.size());
  int const who = draw.between(0, people - 1);
  int const other = (who + draw.between(1, people - 1)) % people;
  words const w{&arithmetic_text::people[std::size_t(who)], arithmetic_text::people[std::size_t(other)].name,
                choose(draw, arithmetic_text::objects)};

  std::string question = fill(arithmetic_text::question_start, w, draw, p.start);
  std::vector<std::string> chain;
  int value = p.start;
  for (arithmetic_step const& s : p.steps) {
    std::string_view const told = s.sign == '+'    ? choose(draw, arithmetic_text::question_plus)
                                  : s.sign == '-'  ? choose(draw, arithmetic_text::question_minus)
                                  : s.operand == 2 ? choose(draw, arithmetic_text::question_double)
                                                   : choose(draw, arithmetic_text::question_triple);
    question += ' ' + fill(told, w, draw, s.operand);
    chain.push_back(fill(choose(draw, arithmetic_text::chain_steps), w, draw, 0, equation(value, s)));
    value = s.result;
  }
  question += ' ' + fill(choose(draw, arithmetic_text::question_end), w, draw, 0);
  if (draw.uniform() < 0.6) chain.insert(chain.begin(), fill(arithmetic_text::chain_start, w, draw, p.start));

  int const fillers = draw.between(0, options_.max_filler_sentences);
  for (int f = 0; f < fillers; ++f) {
    std::string sentence = filler(w, draw);
    chain.insert(chain.begin() + draw.between(0, int(chain.size())), std::move(sentence));
  }
  std::string const answer = fmt::format("{}", value);
  return {drawn.id, std::move(question), answer, fmt::format("{}\n#### {}", fmt::join(chain, " "), answer)};
}

ATMANRL_INLINE arithmetic_problem arithmetic::draw_problem(random_stream& draw, arithmetic_options const& options) {
  arithmetic_numbers const& n = options.numbers;
  arithmetic_problem p{draw.between(n.start_low, n.start_high), {}};
  int value = p.start;
  int const count = draw.between(options.min_steps, options.max_steps);
  while (int(p.steps.size()) < count) {
    int const kind = draw.between(0, 4);
    arithmetic_step s{};
    s.sign = kind < 2 ? '+' : kind < 4 ? '-' : '*';
    s.operand = s.sign == '*' ? draw.between(2, 3) : draw.between(n.operand_low, n.operand_high);
    s.result = s.sign == '+' ? value + s.operand : s.sign == '-' ? value - s.operand : value * s.operand;
    if (s.result < 1 || s.result > 99) continue;
    p.steps.push_back(s);
    value = s.result;
  }
  return p;
}

ATMANRL_INLINE bool arithmetic::is_held_out(arithmetic_problem const& p) {
  std::uint64_t hash = 0;
  auto const add = [&](int x) {
    auto const bits = random_bits({hash, std::uint32_t(x), 0, 0, 0});
    hash = std::uint64_t{bits[0]} << 32 | bits[1];
  };
  add(p.start);
  for (arithmetic_step const& s : p.steps) {
    add(s.sign);
    add(s.operand);
  }
  return hash % 8 == 0;
}

ATMANRL_INLINE std::string arithmetic::filler(words const& w, random_stream& draw) {
  double const kind = draw.uniform();
  if (kind < 0.5) return fill(choose(draw, arithmetic_text::filler_plain), w, draw, 0);
  if (kind < 0.8) {
    std::string_view const sentence = choose(draw, arithmetic_text::filler_number);
    return fill(sentence, w, draw, draw.between(2, 60));
  }
  arithmetic_step s{draw.uniform() < 0.5 ? '+' : '-', draw.between(2, 19), 0};
  int const left = s.sign == '+' ? draw.between(2, 40) : s.operand + draw.between(1, 40);
  s.result = s.sign == '+' ? left + s.operand : left - s.operand;
  std::string_view const sentence = choose(draw, arithmetic_text::filler_equation);
  return fill(sentence, w, draw, 0, equation(left, s));
}

ATMANRL_INLINE graded_answer arithmetic::grade(task_item const& item, std::string_view completion_text) const {
  return grade_number(item.answer, completion_text);
}

ATMANRL_INLINE std::string arithmetic::equation(int left, arithmetic_step const& s) {
  return fmt::format("{}{}{}={}", left, s.sign, s.operand, s.result);
}

ATMANRL_INLINE prompt_style arithmetic::style() {
  prompt_style s = reasoning_prompt();
  s.plain_head.clear();
  return s;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
