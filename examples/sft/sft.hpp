#pragma once
// What sft does with a model, on any backend.
#include <atmanrl/backend/machine_memory.hpp>
#include <atmanrl/comm/any.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/llama.hpp>
#include <atmanrl/rl/save_model.hpp>
#include <atmanrl/rl/sft.hpp>
#include <atmanrl/tasks/any_task.hpp>
#include <atmanrl/tasks/task_folder.hpp>

#include "../backend_options.hpp"
#include "../model_dtype.hpp"
#include "../printing.hpp"

namespace fine_tuning {

using namespace atmanrl;

struct options : backend_options {
  std::filesystem::path model = "examples/models/tiny", data, out;
  std::string task = "gsm8k", dtype = "f32";
  std::size_t examples = 0;
  double epochs = 1, learning_rate = 1e-5;
  int batch = 16, micro_batches = 1, held_out = 64;
  index_t row_budget = 2048;
  std::uint64_t seed = 0;
  bool recompute = false;
  gradient_memory_options gradient;
  chat_options chat;
};

/// The training list; the last `held_out` are kept for the evaluation loss.
/// \throws usage_error for more examples than a task of files has: they would come again, and what is held out would be
///         trained on as well
template <class K>
std::vector<sft_example> examples_of(K const& task, tokenizer const& words, std::size_t count, std::uint64_t seed,
                                     model_config const& config) {
  if constexpr (requires { task.training_size(); })
    expects<usage_error>(count <= std::size_t(task.training_size()),
                         "--examples is {}, but {} has {}: --epochs trains on them again", count, task.name(),
                         task.training_size());
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

template <class B, class W>
void run(options const& o, comm::any_on<B> ranks) {
  bool const speaks = ranks.rank() == 0;
  check_input_path("--model", o.model);
  check_input_path("--data", o.data);
  if (!o.out.empty()) check_model_output("--out", o.out);
  // [sft]
  auto backend = make_backend<B>(o, o.dtype == "bf16");
  if (speaks) print_start_note(backend, o.dtype == "bf16");
  tokenizer const words = tokenizer::load(o.model).with_chat(o.chat);
  auto model = llama<B, W>::load(backend, o.model, {}, weight_storage_of<B>(o.dtype));
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
                                  .recompute = o.recompute,
                                  .gradient = o.gradient},
                      schedules::linear{.warmup = steps / 20}, optim::adamw{}, ranks);
  if (!o.out.empty()) check_savable(o.out, trainer.policy(), words, o.model);
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

/// The work of with_backend.hpp.
struct program {
  using options = fine_tuning::options;
  template <class B>
  static int run(options const& o, comm::any_on<B> ranks) {
    with_weight_type<B>(o.dtype, [&]<class W>(std::type_identity<W>) { fine_tuning::run<B, W>(o, ranks); });
    return 0;
  }
};

}  // namespace fine_tuning
