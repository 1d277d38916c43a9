// Does a reward make the answer depend on the chain of thought? Tiny models are taught not to read their chains, are
// trained in arms that differ in the reward alone, and are examined by interventions, which no reward but those on
// edited chains has seen (docs/faithfulness.md). Finished runs are small files: the same command goes on where it
// stopped, and started twice it shares the work.
//   build/release/examples/faithfulness --quick
//   build/release/examples/faithfulness --phase exploration --task leaked_answer
//   build/release/examples/faithfulness --phase confirmation --task leaked_answer
#include "add_backend_options.hpp"
#include "arguments.hpp"
#include "faithfulness/faithfulness.hpp"
#include "program.hpp"
#include "with_backend.hpp"

int main(int argc, char** argv) {
  return run_program([&] {
    faithfulness::options o;
    CLI::App app{"Whether rewards make answers depend on their chains of thought, on models of known dependence"};
    app.add_option("--phase", o.phase,
                   "exploration: seeds 1 to 5; confirmation: seeds 101 to 110; second_confirmation: seeds 201 to 210; "
                   "third_confirmation: seeds 301 to 310; two RL seeds each, the second confirmation one")
        ->check(CLI::IsMember({"exploration", "confirmation", "second_confirmation", "third_confirmation"}))
        ->capture_default_str();
    app.add_flag("--quick", o.quick, "one seed, three arms, short training: shows how it works in minutes");
    app.add_option("--task", o.s.task,
                   "what is planted: an answer in the question, chains not worth reading, or problems known by heart")
        ->check(CLI::IsMember({"leaked_answer", "skipped_step", "memorised"}))
        ->capture_default_str();
    app.add_option("--out", o.out, "folder of the results; finished runs are not run again")
        ->check(given_path())
        ->capture_default_str();
    app.add_option("--starts", o.starts, "folder of the pre-trained models, made where they are missing")
        ->check(given_path())
        ->capture_default_str();
    app.add_option("--arms", o.arms, "only these; some are no part of a whole phase")->delimiter(',');
    app.add_option("--start-kinds", o.kinds, "of hard, soft, control")
        ->delimiter(',')
        ->check(CLI::IsMember({"hard", "soft", "control"}));
    app.add_option("--seeds", o.seeds, "pre-training seeds, instead of the phase's")->delimiter(',');
    app.add_option("--rl-seeds", o.rl_seeds, "instead of 1,2")->delimiter(',');
    app.add_option("--steps", o.s.steps, "of reinforcement learning")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--lr", o.s.rate, "of the policy")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--gradient-weight", o.s.gradient_weight, "rate of the reward gradient's updates over the policy's")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_flag("--own-optimizer", o.s.own_optimizer, "the reward gradient's updates have moments of their own");
    app.add_option("--questions", o.s.questions, "of an examination")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    add_backend_options(app, o);
    app.add_option("--threads", o.threads, "results do not depend on it; two processes use two cores better")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_flag("--tables-only", o.tables_only, "no runs: tables and page of those that are there, of these seeds");
    parse_arguments(app, argc, argv);
    if (o.quick) {
      o.phase = "quick";
      if (o.arms.empty()) o.arms = {"start", "outcome", "edit_gradient"};
      if (o.kinds.empty()) o.kinds = {"hard"};
      if (o.seeds.empty()) o.seeds = {1};
      if (o.rl_seeds.empty()) o.rl_seeds = {1};
      o.s.steps = std::min(o.s.steps, 50);
      o.s.questions = std::min(o.s.questions, 100);
      o.s.gate_questions = 20;
      if (o.out == "docs/results") o.out = "runs";
    }
    // Hard starts of skipped_step follow a fifth of the edits or more as they are, which is what softening is for.
    if (o.kinds.empty() && o.s.task == "skipped_step") o.kinds = {"soft", "control"};
    if (o.kinds.empty()) o.kinds = {"soft", "hard", "control"};
    faithfulness::add_seeds(o);
    o.s.gate_questions = std::min(o.s.gate_questions, o.s.questions);
    return with_backend<faithfulness::program>("faithfulness", o.backend, o);
  });
}
