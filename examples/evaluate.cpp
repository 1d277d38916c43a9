// Evaluates any model on any task: accuracy by both readings, pass@k, lengths and token classes with bootstrap
// intervals, or MMLU by the log-probabilities of the letters; compares with an earlier evaluation of the same
// questions, and edits chains that the model wrote, to see whether its answers follow them.
//   evaluate --model FOLDER --task gsm8k --prompt cot --questions 100 --samples 4 --out new.json --compare old.json
//   evaluate --model FOLDER --task gsm8k --questions 200 --edit-chains 100
//   evaluate --model FOLDER --task mmlu --letters --questions 0
#include <atmanrl/experiment.hpp>

#include "add_backend_options.hpp"
#include "add_dtype_option.hpp"
#include "arguments.hpp"
#include "chat_options.hpp"
#include "evaluate/evaluate.hpp"
#include "program.hpp"
#include "task_names.hpp"
#include "with_backend.hpp"

int main(int argc, char** argv) {
  return run_program([&] {
    evaluating::options o;
    CLI::App app(
        "Accuracy, pass@k, lengths and token classes of a model on a task, with bootstrap intervals over questions");
    app.add_option("--model", o.model, "Hugging Face folder, .gguf or llama2.c .bin")
        ->capture_default_str()
        ->check(given_path());
    app.add_option("--adapter", o.adapter, "folder of a LoRA adapter in PEFT's format")->check(given_path());
    app.add_option("--task", o.task)->capture_default_str()->check(CLI::IsMember(task_names({"gsm8k", "mmlu"})));
    app.add_option("--data", o.data, "folder with the task's files")->check(given_path());
    app.add_option(
           "--prompt", o.prompt,
           "delimiter: the paper's ####; cot: Wei et al. 2022 (gsm8k); llama: lm-evaluation-harness' *_cot_llama")
        ->capture_default_str()
        ->check(CLI::IsMember({"delimiter", "cot", "llama"}));
    add_conversation_options(app, o.chat);
    app.add_option("--few-shot", o.few_shot,
                   "worked examples in front of each question; default: 8 with cot and llama, else 0");
    app.add_option("--questions", o.questions, "drawn by the seed; 0: all")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--samples", o.samples, "completions per question")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--max-new-tokens", o.max_new_tokens)->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--temperature", o.temperature, "0: greedy")->capture_default_str()->check(sampling_temperature());
    app.add_flag("--letters", o.letters, "MMLU by the log-probabilities of the letters, without generation");
    app.add_option("--shots", o.shots, "worked examples of --letters")->capture_default_str()->check(CLI::Range(0, 5));
    app.add_option(
           "--edit-chains", o.edit_chains,
           "give so many chains of the model back with their last number replaced, one of each question: do the "
           "answers follow?")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--seed", o.seed)->capture_default_str();
    app.add_option("--threads", o.threads, "0: all")->capture_default_str()->check(CLI::NonNegativeNumber);
    add_backend_options(app, o);
    add_dtype_option(app, o.dtype, {"auto", "f32", "bf16", "packed"});
    add_products_option(app, o);
    add_int8_option(app, o);
    app.add_option("--kv-cache", o.kv_cache, "storage of keys and values; bf16 takes half the memory")
        ->capture_default_str()
        ->check(CLI::IsMember({"f32", "bf16"}));
    app.add_option("--completions", o.completions, "file for a line of JSON per question")->check(given_path());
    app.add_option("--out", o.out, "file for the figures as JSON")->check(given_path());
    app.add_option("--compare", o.compare, "figures of an earlier run with the same questions: paired differences")
        ->check(given_path());
    parse_arguments(app, argc, argv);
    return with_backend<evaluating::program>("evaluate", o.backend, o);
  });
}
