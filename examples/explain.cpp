// Which tokens of a chain of thought does the answer rest on, and is that true? One problem, or the completions of a
// run: prints the chain with its saliency, knocks tokens out in that order and in random ones, and writes the figures
// as JSON and as a page. Other chains that the model writes are edited, to see whether its answers follow them.
#include <CLI/CLI.hpp>

#include "add_backend_options.hpp"
#include "add_dtype_option.hpp"
#include "arguments.hpp"
#include "chat_options.hpp"
#include "explain/explain.hpp"
#include "program.hpp"
#include "task_names.hpp"
#include "with_backend.hpp"

int main(int argc, char** argv) {
  return run_program([&] {
    explaining::options o;
    CLI::App app{"Shows which tokens of a chain of thought the answer rests on, and tests it by knocking them out."};
    app.add_option("--model", o.model, "Hugging Face folder, .gguf or llama2.c .bin")->capture_default_str();
    app.add_option("--task", o.task, "generated problems, or gsm8k")
        ->check(CLI::IsMember(task_names({"gsm8k"})))
        ->capture_default_str();
    app.add_option("--data", o.data, "folder of the task's files");
    add_conversation_options(app, o.chat);
    app.add_option("--item", o.item, "number of the first evaluation item")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--items", o.items, "how many of them")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--temperature", o.temperature, "of the completions; 0: greedy")
        ->check(sampling_temperature())
        ->capture_default_str();
    app.add_option("--max-new-tokens", o.max_new_tokens, "length limit of the completions")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--question", o.question, "a question of your own, with --chain and --answer");
    app.add_option("--chain", o.chain, "its chain of thought");
    app.add_option("--answer", o.answer, "the answer that is explained");
    app.add_option("--completions", o.completions, "completions.jsonl of a run");
    app.add_option("--limit", o.limit, "how many of its lines")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--estimators", o.estimators, "only these, the first one's tokens are listed")
        ->delimiter(',')
        ->check(CLI::IsMember(
            std::vector<std::string>(atmanrl::estimators::names.begin(), atmanrl::estimators::names.end())))
        ->capture_default_str();
    app.add_option("--activation-mib", o.activation_mib, "memory for the activations of one pass in MiB")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--mask-steps", o.mask_steps, "updates of each mask")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--points", o.points, "points of a curve; 0: one for each token")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--random-orders", o.random_orders, "orders of the random control")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--edit-chains", o.edit_chains,
                   "give the model's chains for so many evaluation items back with their last number replaced: do the "
                   "answers follow?")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--seed", o.seed, "of completions, random orders and edits")->capture_default_str();
    add_backend_options(app, o);
    app.add_option("--threads", o.threads, "0: as many as the processor runs")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    add_dtype_option(app, o.dtype, {"auto", "f32", "packed"});
    add_int8_option(app, o);
    app.add_option("--json", o.json, "write tokens, values and curves to this file")->check(given_path());
    app.add_option("--html", o.html, "write a page to look at to this file")->check(given_path());
    parse_arguments(app, argc, argv);
    return with_backend<explaining::program>("explain", o.backend, o);
  });
}
