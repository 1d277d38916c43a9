// Table 1 of the paper (arXiv:2604.16158) in miniature: the tiny model is trained in seven arms that differ in the
// reward alone, with the same seeds, and every arm is measured on the same held-out problems. Beside the paper's
// columns stand the ones that it leaves out: mean accuracy, filler, and whether the saliency is causal. What differs is
// tested with the seed as the unit.
#include <CLI/CLI.hpp>

#include "add_backend_options.hpp"
#include "arguments.hpp"
#include "program.hpp"
#include "reproduce_table1/arms.hpp"
#include "with_backend.hpp"

int main(int argc, char** argv) {
  return run_program([&] {
    table1::options o;
    CLI::App app{
        "Trains the tiny model with seven rewards and prints the paper's Table 1 for them, with what it leaves out."};
    app.add_option("--model", o.model, "folder of a model that solves the task arithmetic")->capture_default_str();
    app.add_option("--out", o.out, "folder; finished arms are kept there and not run again")
        ->capture_default_str()
        ->check(given_path());
    app.add_option("--steps", o.steps, "optimiser steps of an arm")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--prompts", o.prompts, "problems per step")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--group-size", o.group, "rollouts per problem")->check(CLI::Range(2, 1024))->capture_default_str();
    app.add_option("--lr", o.learning_rate, "learning rate after the warm-up")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--warmup", o.warmup, "steps of linear warm-up")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--share", o.share, "spread of the weighted second reward as a share of the outcome's")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--printed-mask-steps", o.printed_mask_steps,
                   "mask steps of the last arm; steps x learning rate stays the printed 0.2")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--questions", o.questions, "held-out problems")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--samples", o.samples, "completions per held-out problem")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--causal-questions", o.causal_questions,
                   "held-out problems whose correct completions the causal measures are taken on")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--seeds", o.seeds, "one run of every arm for each; fewer than five judge no difference")
        ->delimiter(',')
        ->capture_default_str();
    add_backend_options(app, o);
    app.add_option("--threads", o.threads, "0: as many as the processor runs; results do not depend on it")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    parse_arguments(app, argc, argv);
    return with_backend<table1::program>("reproduce_table1", o.backend, o);
  });
}
