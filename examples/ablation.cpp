// Which settings of a saliency estimator find the tokens that the answer is known to rest on? Samples completions of
// the generated word problems, keeps the correct ones, and prints two tables in Markdown: saliency methods beside their
// controls, and settings of the learned mask.
#include <CLI/CLI.hpp>

#include "ablation/ablation.hpp"
#include "add_backend_options.hpp"
#include "arguments.hpp"
#include "program.hpp"
#include "with_backend.hpp"

int main(int argc, char** argv) {
  return run_program([&] {
    ablating::options o;
    CLI::App app{
        "Which saliency finds the tokens that the answer rests on: methods, and settings of the learned mask, on "
        "generated problems."};
    app.add_option("--model", o.model, "folder of a model that solves the task arithmetic")->capture_default_str();
    app.add_option("--table", o.table, "methods, settings or both")
        ->check(CLI::IsMember({"methods", "settings", "both"}))
        ->capture_default_str();
    app.add_option("--prompts", o.prompts, "problems that completions are sampled for")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--samples", o.samples, "completions per problem")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--setting-prompts", o.setting_prompts, "problems of the table of settings")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--points", o.points, "points of a deletion curve; 0: one for each token")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--first", o.first, "number of the first evaluation problem")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--seed", o.seed, "of the samples")->capture_default_str();
    add_backend_options(app, o);
    app.add_option("--threads", o.threads, "0: as many as the processor runs")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--out", o.out, "also write the tables to this file")->check(given_path());
    parse_arguments(app, argc, argv);
    return with_backend<ablating::program>("ablation", o.backend, o);
  });
}
