#pragma once
// What a run of the faithfulness experiment is made with. Results of other settings are never mixed with these.
#include <atmanrl/io/json.hpp>
#include <atmanrl/tasks/leaked_answer.hpp>
#include <atmanrl/tasks/skipped_step.hpp>

#include <optional>
#include <string>

namespace faithfulness {

using namespace atmanrl;

struct settings {
  std::string task = "leaked_answer";  ///< or skipped_step
  // How a start learns not to read its chains, and how it is taught to read some of them again.
  int pretraining_steps = 650;
  double decoupled = 0.5;             ///< leaked_answer: chains of hinted problems that end in another number
  double skipped = 0.5, noise = 0.3;  ///< skipped_step
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
  // Measuring.
  int questions = 200, gate_questions = 60;
  std::string machine;  ///< what computes, where it is not a CPU: it has other bits

  bool hinted() const { return task == "leaked_answer"; }

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
    if (!machine.empty()) all["machine"] = machine;
    return all;
  }
};

/// The problems that a model is taught, and problems of the same kind for its examination, with and without hints.
/// Examination is that of leaked_answer whatever is taught: the chains of all tasks are arithmetic's, and edited alike.
class taught_task : public leaked_answer {
 public:
  explicit taught_task(leaked_answer_options const& o) : leaked_answer(o) {}
  explicit taught_task(skipped_step_options const& o, leaked_answer_options::evaluation_options const& e = {})
      : leaked_answer({.problems = o.problems, .evaluation = e}), skipped_(skipped_step(o)) {}

  task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    return skipped_ ? skipped_->training_item(seed, index) : leaked_answer::training_item(seed, index);
  }

 private:
  std::optional<skipped_step> skipped_;
};
static_assert(EditableSteps<taught_task> && HintedQuestions<taught_task>);

/// What makes a start unfaithful.
inline taught_task pretraining_task(settings const& s, bool control) {
  if (s.hinted()) return taught_task(leaked_answer_options{.decoupled = control ? 0 : s.decoupled});
  return taught_task(skipped_step_options{.skipped = control ? 0 : s.skipped, .noise = control ? 0 : s.noise});
}

/// What teaches to read chains again: hints are wrong and chains true, or there are chains and no noise.
class reader_task : public taught_task {
 public:
  explicit reader_task(settings const& s)
      : taught_task(s.hinted() ? taught_task(leaked_answer_options{.reliability = 0, .decoupled = 0})
                               : taught_task(skipped_step_options{.skipped = 0, .noise = 0})),
        edited_(!s.hinted()) {}

  task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    task_item item = taught_task::training_item(seed, index);
    if (!edited_) return item;
    // Small problems are answered without their chains, so that true chains teach nothing about reading them: here the
    // last result is another number, and the answer is that number.
    random_stream draw(random_key{seed, 0x52454144, std::uint32_t(index), std::uint32_t(index >> 32), 0});
    auto const edited = with_chain_answer(item, chain_text(*this, item.solution), other_answer(item, draw));
    if (edited) item.solution = solution(edited->chain, edited->answer);
    return item;
  }

 private:
  bool edited_;
};

/// Prompts of reinforcement learning. The outcome gives no reason to leave a hint that is always right.
inline taught_task rl_task(settings const& s, double reliability = 1) {
  if (s.hinted()) return taught_task(leaked_answer_options{.reliability = reliability, .decoupled = 0});
  return taught_task(skipped_step_options{});
}

/// Problems for an examination.
inline taught_task examination(settings const& s, leaked_hint hint, hint_wording wording = hint_wording::trained,
                               harder_problems harder = {}) {
  leaked_answer_options::evaluation_options const e{hint, wording, harder};
  if (s.hinted()) return taught_task(leaked_answer_options{.evaluation = e});
  return taught_task(skipped_step_options{}, e);
}

/// Where the answer can come from elsewhere than from the chain: under a right hint; in skipped_step under none.
inline leaked_hint tempting(settings const& s) { return s.hinted() ? leaked_hint::right : leaked_hint::none; }

}  // namespace faithfulness
