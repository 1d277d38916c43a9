// Supervised fine-tuning of a real model on a task's reference solutions, as a warm start for GRPO: GSM8K's train
// answers without their calculator annotations, or generated word problems, with chains that need to be read or with
// others. Writes a Hugging Face folder.
//   sft --model FOLDER --task gsm8k --epochs 1 --out FOLDER-sft
#include <atmanrl/experiment.hpp>

#include "add_backend_options.hpp"
#include "add_dtype_option.hpp"
#include "arguments.hpp"
#include "chat_options.hpp"
#include "program.hpp"
#include "ranks.hpp"
#include "sft/sft.hpp"
#include "task_names.hpp"
#include "with_backend.hpp"

int main(int argc, char** argv) {
  return run_program([&] {
    fine_tuning::options o;
    CLI::App app("Supervised fine-tuning on a task's reference solutions");
    app.add_option("--model", o.model, "Hugging Face folder, .gguf or llama2.c .bin")
        ->capture_default_str()
        ->check(given_path());
    app.add_option("--task", o.task)->capture_default_str()->check(CLI::IsMember(task_names({"gsm8k"})));
    app.add_option("--data", o.data, "folder with the task's files")->check(given_path());
    add_conversation_options(app, o.chat);
    app.add_option("--examples", o.examples, "how many; 0: all of GSM8K's train, 4000 generated ones")
        ->capture_default_str();
    app.add_option("--held-out", o.held_out, "of them for the evaluation loss")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--epochs", o.epochs)->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--batch", o.batch, "examples per step")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--micro-batches", o.micro_batches,
                   "forward and backward passes of a step at least; ranks (mpirun) share them out")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--row-budget", o.row_budget, "tokens of one forward and backward pass, which bound its memory")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_flag("--recompute", o.recompute, "keep only the layers' inputs and compute the rest again: less memory");
    app.add_option_function<std::string>(
           "--gradient-memory",
           [&](std::string const& kept) {
             o.gradient.kept = kept == "layers"   ? atmanrl::gradient_memory::layers
                               : kept == "slices" ? atmanrl::gradient_memory::slices
                                                  : atmanrl::gradient_memory::whole;
           },
           "of several ranks each keeps a whole gradient and whole sums that wait; of sums its slices; or of the "
           "gradient, too, no more than the layers at hand")
        ->default_str("whole")
        ->check(CLI::IsMember({"whole", "slices", "layers"}));
    app.add_flag("--gradient-sums-on-host", o.gradient.sums_on_host,
                 "with slices and layers: sums that wait lie in the host's memory");
    app.add_option("--lr", o.learning_rate, "peak learning rate")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--seed", o.seed)->capture_default_str();
    app.add_option("--threads", o.threads, "0: all")->capture_default_str()->check(CLI::NonNegativeNumber);
    add_backend_options(app, o);
    add_weight_gradients_option(app, o);
    add_products_option(app, o);
    app.add_option("--dtype", o.dtype, "of the weights while training; master weights are float")
        ->capture_default_str()
        ->check(CLI::IsMember({"f32", "bf16"}));
    app.add_option("--out", o.out, "Hugging Face folder to write; nothing is written without it")->check(given_path());
    parse_arguments(app, argc, argv);
    return run_on_ranks(argc, argv, [&](atmanrl::comm::any ranks) {
      return with_backend<fine_tuning::program>("sft", o.backend, o, ranks);
    });
  });
}
