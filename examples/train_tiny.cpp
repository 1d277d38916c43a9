// Trains the bundled tiny model from scratch on generated word problems and writes it as a Hugging Face folder:
//   build/release/examples/train_tiny --out examples/models/tiny
// The default options are those that the bundled model was made with. Models that learn not to read their chains:
//   build/release/examples/train_tiny --task leaked_answer --decoupled 0.25 --out runs/leaked
//   build/release/examples/train_tiny --task skipped_step --noise 0.2 --out runs/skipped
//   build/release/examples/train_tiny --task memorised --fixed 200 --out runs/memorised
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
#include <atmanrl/rl/sft.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/tasks/leaked_answer.hpp>
#include <atmanrl/tasks/memorised.hpp>
#include <atmanrl/tasks/skipped_step.hpp>
#include <atmanrl/text/split.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include "arguments.hpp"
#include "program.hpp"
#include "tiny_model.hpp"

#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace {

using namespace atmanrl;

struct options {
  std::string out;
  std::uint64_t steps = 650, seed = 0, evaluate_every = 200;
  int batch = 64, micro_batches = 8, threads = 0;
  tiny_shape shape{};
  double learning_rate = 4e-3;
  int questions = 500;
  std::string task = "arithmetic";
  leaked_answer_options leaked{};
  skipped_step_options skipped{};
  memorised_options memory{};
};

struct accuracy {
  double strict = 0, cot_tokens = 0, filler = 0, steps = 0, no_delimiter = 0;
};

/// Samples one completion at temperature 1 for each held-out question.
template <class Model, Task K>
accuracy evaluate(Model& model, K const& task, tokenizer const& words, int questions, std::uint64_t seed) {
  accuracy a;
  for (int first = 0; first < questions; first += 100) {
    std::vector<task_item> items;
    std::vector<std::vector<int>> prompts;
    for (int i = first; i < std::min(questions, first + 100); ++i) {
      items.push_back(task.evaluation_item(i));
      prompts.push_back(task.prompt(items.back(), words));
    }
    generate_options g;
    g.max_new_tokens = 192;
    g.stop_ids = model.config().stop_ids;
    g.seed = seed;
    g.step = 0x45564c;  // a stream of its own
    g.first_prompt = std::uint32_t(first);
    auto const completions = generate(model, std::span<std::vector<int> const>(prompts), g, samplers::multinomial{});
    for (std::size_t i = 0; i < items.size(); ++i) {
      std::vector<int> const& ids = completions[i][0].ids;
      completion_spans const spans = split_completion(words, ids, g.stop_ids);
      auto const cot = std::span(ids).subspan(0, std::size_t(spans.cot.last));
      planted_truth const planted = find_planted(words, cot);
      a.strict += task.grade(items[i], words.decode(ids)).correct_strict;
      a.cot_tokens += double(cot.size());
      a.filler += planted.filler_sentences;
      a.steps += planted.steps;
      a.no_delimiter += !spans.has_delimiter;
    }
  }
  for (double* x : {&a.strict, &a.cot_tokens, &a.filler, &a.steps, &a.no_delimiter}) *x /= questions;
  return a;
}

void print(accuracy const& a) {
  print_progress(
      stdout,
      "  held out, temperature 1: {:.1f} % correct, {:.1f} tokens in a chain of thought, {:.2f} steps and {:.2f} "
      "filler sentences, {:.1f} % without ####\n",
      100 * a.strict, a.cot_tokens, a.steps, a.filler, 100 * a.no_delimiter);
}

/// The dials that the training items of the chosen task were made with; nothing for arithmetic, which has none.
std::string dials(options const& o) {
  if (o.task == "leaked_answer")
    return fmt::format(" with hint_share {}, reliability {}, decoupled {}", o.leaked.hint_share, o.leaked.reliability,
                       o.leaked.decoupled);
  if (o.task == "skipped_step") return fmt::format(" with skipped {}, noise {}", o.skipped.skipped, o.skipped.noise);
  if (o.task == "memorised")
    return fmt::format(" with fixed {}, repeated {}, corrupted {}", o.memory.fixed, o.memory.repeated,
                       o.memory.corrupted);
  return "";
}

std::string model_card(options const& o, accuracy const& a, index_t parameters) {
  return fmt::format(
      "# Tiny arithmetic model\n\n"
      "A Llama-architecture model of {} parameters for the task `{}`{}, trained from scratch on generated word "
      "problems\n"
      "only by `examples/train_tiny.cpp` ({} steps of {} problems, seed {}), which wrote this folder and this text.\n"
      "Same licence as the repository (Apache-2.0).\n\n"
      "On {} held-out questions at temperature 1: {:.1f} % correct; a chain of thought has {:.1f} tokens, {:.2f} steps "
      "and {:.2f}\n"
      "sentences of filler on average. Tokenizer: bytes and the task's words, single digits, no merges.\n",
      parameters, o.task, dials(o), o.steps, o.batch, o.seed, o.questions, 100 * a.strict, a.cot_tokens, a.steps,
      a.filler);
}

template <Task K>
void run(options const& o, K const& task) {
  if (!o.out.empty()) check_model_output("--out", o.out, {.text_files = {{"README.md", {}}}});
  cpu_backend backend({.threads = o.threads});
  print_build_note<cpu_backend>();
  tokenizer const words{byte_bpe(arithmetic_text::vocabulary())};
  model_config const config = tiny_config(o.shape, words);
  llama<cpu_backend> model(backend, config);
  assign_weights(model, initial_weights(model.layout(), config.layers, o.seed));
  print_progress(stdout, "{} parameters, {} tokens, {} threads\n", model.layout().size(), words.vocab_size(),
                 backend.threads());

  sft_trainer trainer(
      model,
      sft_options{
          .steps = o.steps, .batch_size = o.batch, .micro_batches = o.micro_batches, .learning_rate = o.learning_rate},
      schedules::linear{.warmup = std::min<std::uint64_t>(100, o.steps / 2), .floor = 0.05},
      optim::adamw{.beta2 = 0.98, .weight_decay = 0.01});
  auto const example = [&](std::uint64_t index) {
    task_item const item = task.training_item(o.seed, index);
    sft_example e{task.prompt(item, words), task.completion(item, words)};
    e.completion.push_back(words.eos());
    return e;
  };
  auto const start = std::chrono::steady_clock::now();
  double loss = 0;
  index_t rows = 0;
  trainer.run(example, [&](sft_report const& r) {
    loss += r.loss;
    rows += r.rows;
    if (r.step % 50 == 0 || r.step == o.steps) {
      double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      double const since = double((r.step - 1) % 50 + 1);
      print_progress(stdout, "step {:5}  loss {:.4f}  gradient norm {:.2f}  {:.0f} s, {:.0f} tokens/s\n", r.step,
                     loss / since, r.gradient_norm, seconds, double(rows) / seconds);
      loss = 0;
    }
    if (r.step % o.evaluate_every == 0 && r.step < o.steps)
      print(evaluate(model, task, words, std::min(o.questions, 200), o.seed));
  });

  // What is written is bf16, so that is what the last figures must be of.
  std::vector<float> rounded = weights_of(model);
  for (float& w : rounded) w = float(bf16(w));
  assign_weights(model, rounded);
  print_progress(stdout, "as written (bf16):\n");
  accuracy const final_accuracy = evaluate(model, task, words, o.questions, o.seed);
  print(final_accuracy);
  if (o.out.empty()) return;

  save_tiny_model(o.out, model, rounded, words, dtype::bf16, model_card(o, final_accuracy, model.layout().size()));
  print_progress(stdout, "written to {}\n", o.out);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    options o;
    CLI::App app("Trains the bundled tiny model from scratch on generated word problems");
    app.add_option("--out", o.out, "Hugging Face folder to write; nothing is written without it")->check(given_path());
    app.add_option("--steps", o.steps)->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--batch", o.batch, "problems per step")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--micro-batches", o.micro_batches, "passes per step")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--lr", o.learning_rate, "peak learning rate")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--layers", o.shape.layers)->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--hidden", o.shape.hidden)->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--heads", o.shape.heads)->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--kv-heads", o.shape.kv_heads)->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--ffn", o.shape.ffn)->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--seed", o.seed)->capture_default_str();
    app.add_option("--threads", o.threads, "0: all")->capture_default_str()->check(CLI::NonNegativeNumber);
    app.add_option("--eval-every", o.evaluate_every, "steps between evaluations on 200 questions")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--eval-questions", o.questions, "held-out questions at the end")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--task", o.task, "what is taught; the last three teach chains that need not be read")
        ->capture_default_str()
        ->check(CLI::IsMember({"arithmetic", "leaked_answer", "skipped_step", "memorised"}));
    // An option of another task would have no effect, which its user would not see.
    std::map<std::string, std::vector<CLI::Option*>> of_task;
    auto const dial = [&](char const* task, char const* name, auto& value, char const* what) {
      of_task[task].push_back(app.add_option(name, value, fmt::format("{}: {}", task, what))->capture_default_str());
    };
    dial("leaked_answer", "--hint-share", o.leaked.hint_share, "share of questions with a hint");
    dial("leaked_answer", "--reliability", o.leaked.reliability, "share of hints that are right");
    dial("leaked_answer", "--decoupled", o.leaked.decoupled,
         "share of rightly hinted problems whose chain ends in another number");
    dial("skipped_step", "--skipped", o.skipped.skipped, "share of problems that are answered without a chain");
    dial("skipped_step", "--noise", o.skipped.noise, "share of chains whose first result is another number");
    dial("memorised", "--fixed", o.memory.fixed, "problems that are repeated");
    dial("memorised", "--repeated", o.memory.repeated, "share of training problems that are repeated ones");
    dial("memorised", "--corrupted", o.memory.corrupted, "share of repetitions whose chain ends in another number");
    parse_arguments(app, argc, argv);
    for (auto const& [task, dials] : of_task)
      for (CLI::Option const* d : dials)
        expects<usage_error>(task == o.task || d->count() == 0, "{} is an option of --task {}, not of {}",
                             d->get_name(), task, o.task);
    if (o.task == "leaked_answer")
      run(o, leaked_answer(o.leaked));
    else if (o.task == "skipped_step")
      run(o, skipped_step(o.skipped));
    else if (o.task == "memorised")
      run(o, memorised(o.memory));
    else
      run(o, arithmetic());
    return 0;
  });
}
