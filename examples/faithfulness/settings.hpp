#pragma once
// What a run of the faithfulness experiment is made with. Results of other settings are never mixed with these.
#include <atmanrl/io/json.hpp>
#include <atmanrl/tasks/leaked_answer.hpp>
#include <atmanrl/tasks/memorised.hpp>
#include <atmanrl/tasks/skipped_step.hpp>

#include <optional>
#include <string>
#include <type_traits>

namespace faithfulness {

using namespace atmanrl;

struct settings {
  std::string task = "leaked_answer";  ///< or skipped_step, memorised
  // How a start learns not to read its chains, and how it is taught to read some of them again.
  int pretraining_steps = 650;
  double decoupled = 0.5;             ///< leaked_answer: chains of hinted problems that end in another number
  double skipped = 0.5, noise = 0.3;  ///< skipped_step
  int fixed = 300;                    ///< memorised: problems that come again and again, all chains corrupted
  double soft_from = 0.2;             ///< a soft start follows at least this share of edits
  int soft_most_steps = 150;          ///< of reader fine-tuning, one at a time until that share is reached
  double soft_rate = 1e-4;            ///< small, so that one update does not pass through all shares
  double reader_rate = 5e-4;
  int reader_steps = 40;  ///< of the positive control
  // Reinforcement learning, the same for all arms.
  int steps = 100, prompts = 8, group = 8, warmup = 10, new_tokens = 160;
  double rate = 2e-5;
  double share = 0.5;             ///< spread of the second reward within groups, as a share of the outcome's
  double gradient_weight = 0.25;  ///< of the reward's gradient: its updates' rate over the policy's
  bool own_optimizer = false;     ///< these updates have moments of their own
  // Measuring.
  int questions = 200, gate_questions = 60;
  std::string machine;  ///< what computes, where it is not a CPU: it has other bits

  bool hinted() const { return task == "leaked_answer"; }
  bool by_memory() const { return task == "memorised"; }
  static constexpr int softening_questions = 100;  ///< by which softening knows when to stop
  /// The first of them: none is the examination's. Memory holds no other problems than the fixed ones, of which these
  /// are the last, however many are examined; the updates that soften draw from all of them, as all training does.
  int first_softening_question() const { return by_memory() ? fixed - softening_questions : 5000; }

  /// \throws usage_error
  void check() const {
    expects<usage_error>(!by_memory() || questions + softening_questions <= fixed,
                         "--questions {}: memorised has {} fixed problems, {} of which say when a start is soft",
                         questions, fixed, softening_questions);
  }

  /// What a finished run must have been made with to be taken over.
  json json_of() const {
    json all{{"task", task},
             {"pretraining_steps", pretraining_steps},
             {"decoupled", decoupled},
             {"skipped", skipped},
             {"noise", noise},
             {"soft_from", soft_from},
             {"soft_most_steps", soft_most_steps},
             {"soft_rate", soft_rate},
             {"reader_rate", reader_rate},
             {"reader_steps", reader_steps},
             {"steps", steps},
             {"prompts", prompts},
             {"group", group},
             {"warmup", warmup},
             {"new_tokens", new_tokens},
             {"rate", rate},
             {"share", share},
             {"gradient_weight", gradient_weight},
             {"questions", questions},
             {"gate_questions", gate_questions}};
    if (by_memory()) all["fixed"] = fixed;
    if (own_optimizer) all["own_optimizer"] = true;  // which finished runs that have no such line were made without
    if (!machine.empty()) all["machine"] = machine;
    return all;
  }
};

/// Which problems of memorised an examination asks.
enum class memorised_questions { fixed, near_duplicates, fresh };

/// The problems that a model is taught, and problems of the same kind for its examination, with and without hints.
/// Examination is that of leaked_answer whatever is taught, but for what memory is asked: the chains of all tasks are
/// arithmetic's, and edited alike.
class taught_task : public leaked_answer {
 public:
  explicit taught_task(leaked_answer_options const& o) : leaked_answer(o) {}
  explicit taught_task(skipped_step_options const& o, leaked_answer_options::evaluation_options const& e = {})
      : leaked_answer({.problems = o.problems, .evaluation = e}), skipped_(skipped_step(o)) {}
  explicit taught_task(memorised_options const& o, memorised_questions asked = memorised_questions::fixed,
                       leaked_answer_options::evaluation_options const& e = {})
      : leaked_answer({.problems = o.problems, .evaluation = e}), memorised_(memorised(o)), asked_(asked) {}

  task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    return skipped_     ? skipped_->training_item(seed, index)
           : memorised_ ? memorised_->training_item(seed, index)
                        : leaked_answer::training_item(seed, index);
  }
  task_item evaluation_item(index_t index) const {
    return of_asked([&](memorised const& m) { return m.fixed_item(index); },
                    [&](auto const& task) { return task.evaluation_item(index); });
  }
  index_t evaluation_size() const {
    return of_asked([](memorised const& m) { return m.fixed_size(); },
                    [](auto const& task) { return task.evaluation_size(); });
  }

 private:
  /// Memory's fixed problems are `of_fixed(memorised)`, all others `of_others(task)` of the task that has them.
  template <class Fixed, class Others>
  std::invoke_result_t<Fixed, memorised const&> of_asked(Fixed&& of_fixed, Others&& of_others) const {
    switch (asked_) {
      case memorised_questions::fixed:
        return of_fixed(*memorised_);
      case memorised_questions::near_duplicates:
        return of_others(*memorised_);
      case memorised_questions::fresh:
        break;
    }
    return of_others(static_cast<leaked_answer const&>(*this));
  }

  std::optional<skipped_step> skipped_;
  std::optional<memorised> memorised_;
  memorised_questions asked_ = memorised_questions::fresh;
};
static_assert(EditableSteps<taught_task> && HintedQuestions<taught_task>);

/// What makes a start unfaithful.
inline taught_task pretraining_task(settings const& s, bool control) {
  if (s.hinted()) return taught_task(leaked_answer_options{.decoupled = control ? 0 : s.decoupled});
  if (s.by_memory()) return taught_task(memorised_options{.fixed = s.fixed, .corrupted = control ? 0.0 : 1.0});
  return taught_task(skipped_step_options{.skipped = control ? 0 : s.skipped, .noise = control ? 0 : s.noise});
}

/// What teaches to read chains again: hints are wrong and chains true, or the answer is that of an edited chain.
class reader_task : public taught_task {
 public:
  explicit reader_task(settings const& s)
      : taught_task(s.hinted()      ? taught_task(leaked_answer_options{.reliability = 0, .decoupled = 0})
                    : s.by_memory() ? taught_task(memorised_options{.fixed = s.fixed, .corrupted = 0})
                                    : taught_task(skipped_step_options{.skipped = 0, .noise = 0})),
        edited_(!s.hinted()) {}

  task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    task_item item = taught_task::training_item(seed, index);
    if (!edited_) return item;
    // Small problems and those known by heart are answered without their chains, so that true chains teach nothing
    // about reading them: here the last result is another number, and the answer is that number.
    random_stream draw(random_key{seed, 0x52454144, std::uint32_t(index), std::uint32_t(index >> 32), 0});
    auto const edited = with_chain_answer(item, chain_text(*this, item.solution), other_answer(item, draw));
    if (edited) item.solution = solution(edited->chain, edited->answer);
    return item;
  }

 private:
  bool edited_;
};

/// Prompts of reinforcement learning. The outcome gives no reason to leave a hint that is always right, or a memory;
/// half of memorised's prompts are its fixed problems.
inline taught_task rl_task(settings const& s, double reliability = 1) {
  if (s.hinted()) return taught_task(leaked_answer_options{.reliability = reliability, .decoupled = 0});
  if (s.by_memory()) return taught_task(memorised_options{.fixed = s.fixed, .corrupted = 0});
  return taught_task(skipped_step_options{});
}

/// Problems for an examination.
inline taught_task examination(settings const& s, leaked_hint hint, hint_wording wording = hint_wording::trained,
                               harder_problems harder = {}) {
  leaked_answer_options::evaluation_options const e{hint, wording, harder};
  if (s.hinted()) return taught_task(leaked_answer_options{.evaluation = e});
  if (s.by_memory()) {
    bool const fixed = !harder.other_numbers && !harder.one_step_more;
    return taught_task(memorised_options{.fixed = s.fixed},
                       fixed ? memorised_questions::fixed : memorised_questions::fresh, e);
  }
  return taught_task(skipped_step_options{}, e);
}
/// Memorised problems with one number changed: what looks like memory, and is reading.
inline taught_task near_duplicates(settings const& s) {
  return taught_task(memorised_options{.fixed = s.fixed}, memorised_questions::near_duplicates,
                     {.hint = leaked_hint::none});
}

/// Where the answer can come from elsewhere than from the chain: under a right hint; in the other tasks under none.
inline leaked_hint tempting(settings const& s) { return s.hinted() ? leaked_hint::right : leaked_hint::none; }

}  // namespace faithfulness
