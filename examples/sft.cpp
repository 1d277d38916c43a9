// Supervised fine-tuning of a real model on a task's reference solutions, as a warm start for GRPO: GSM8K's train
// answers without their calculator annotations, or generated word problems, with chains that need to be read or with
// others. Writes a Hugging Face folder.
//   sft --model FOLDER --task gsm8k --epochs 1 --out FOLDER-sft
#include "chat_options.hpp"
#include "command_line.hpp"
#include "ranks.hpp"
#include "task_names.hpp"

#include <atmanrl/experiment/save_model.hpp>
#include <atmanrl/rl/sft.hpp>

namespace {

using namespace atmanrl;

struct options {
  std::filesystem::path model = "examples/models/tiny", data, out;
  std::string task = "gsm8k", dtype = "f32";
  std::size_t examples = 0;
  double epochs = 1, learning_rate = 1e-5;
  int batch = 16, micro_batches = 1, held_out = 64, threads = 0;
  index_t row_budget = 2048;
  std::uint64_t seed = 0;
  bool recompute = false;
  chat_options chat;
};

/// The training list; the last `held_out` are kept for the evaluation loss.
template <class K>
std::vector<sft_example> examples_of(K const& task, tokenizer const& words, std::size_t count, std::uint64_t seed,
                                     model_config const& config) {
  int const end_id = answer_end_id(words, words.chat(), config.stop_ids);
  std::vector<sft_example> out;
  for (std::uint64_t i = 0; i < count; ++i) {
    sft_example e = make_sft_example(task, task.training_item(seed, i), words, end_id);
    if (std::size_t const machine = machine_memory_bytes(); i == 0 && machine > 0) {
      double const bytes = double(count) * double(sizeof(sft_example) + std::size_t(e.rows()) * sizeof(int));
      expects<usage_error>(bytes <= double(machine), "--examples {}: they would take {:.0f} GiB, but there are {}",
                           count, bytes * 0x1p-30, format_bytes(machine));
    }
    if (e.rows() <= config.max_positions) out.push_back(std::move(e));
  }
  return out;
}

template <class W>
void run(options const& o, comm::any ranks) {
  bool const speaks = ranks.rank() == 0;
  if (speaks) print_build_note<cpu_backend>();
  check_input_path("--model", o.model);
  check_input_path("--data", o.data);
  if (!o.out.empty()) check_model_output("--out", o.out);
  // [sft]
  cpu_backend backend({.threads = o.threads});
  tokenizer const words = tokenizer::load(o.model).with_chat(o.chat);
  auto model = llama<cpu_backend, W>::load(backend, o.model);
  forbid_missing_tokens(model, words);
  std::vector<sft_example> all;
  if (o.task == "gsm8k") {
    gsm8k const task(task_folder("gsm8k", o.data));
    std::size_t const count = o.examples == 0 ? std::size_t(task.training_size()) : o.examples;
    all = examples_of(task, words, count, o.seed, model.config());
  } else {
    all = examples_of(generated_task(o.task), words, o.examples == 0 ? 4000 : o.examples, o.seed, model.config());
  }
  expects<usage_error>(all.size() > std::size_t(o.held_out), "{} examples fit the model, but {} are to be held out",
                       all.size(), o.held_out);
  std::span const train = std::span<sft_example const>(all).first(all.size() - std::size_t(o.held_out)),
                  test = std::span<sft_example const>(all).subspan(train.size());

  std::uint64_t const steps = sft_steps(train.size(), o.batch, o.epochs);
  sft_trainer trainer(model,
                      sft_options{.steps = steps,
                                  .batch_size = o.batch,
                                  .micro_batches = o.micro_batches,
                                  .row_budget = o.row_budget,
                                  .learning_rate = o.learning_rate,
                                  .recompute = o.recompute},
                      schedules::linear{.warmup = steps / 20}, optim::adamw{}, ranks);
  auto const print_held_out = [&] {
    if (test.empty()) return;
    double const loss = trainer.evaluate(test);
    if (speaks) print_progress(stdout, "held-out loss {:.4f} nats per token, over {} examples\n", loss, test.size());
  };
  print_held_out();
  trainer.run(train, o.seed, [&](sft_report const& r) {
    if (!speaks) return;
    print_progress(stdout, "step {:5} of {}  loss {:.4f}  gradient norm {:.2f}  learning rate {:.2e}\n", r.step, steps,
                   r.loss, r.gradient_norm, r.learning_rate);
  });
  print_held_out();
  if (!o.out.empty()) save_model(o.out, trainer.policy(), words, o.model, dtype::bf16);
  // [/sft]
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    options o;
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
    app.add_option("--lr", o.learning_rate, "peak learning rate")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--seed", o.seed)->capture_default_str();
    app.add_option("--threads", o.threads, "0: all")->capture_default_str()->check(CLI::NonNegativeNumber);
    app.add_option("--dtype", o.dtype, "of the weights while training; master weights are float")
        ->capture_default_str()
        ->check(CLI::IsMember({"f32", "bf16"}));
    app.add_option("--out", o.out, "Hugging Face folder to write; nothing is written without it")->check(given_path());
    parse_arguments(app, argc, argv);
    return run_on_ranks(argc, argv, [&](comm::any ranks) {
      if (o.dtype == "bf16")
        run<bf16>(o, ranks);
      else
        run<float>(o, ranks);
      return 0;
    });
  });
}
