#pragma once
// The models that arms begin with: pre-trained not to read their chains (hard), softened until some are read (soft),
// and pre-trained on clean data as a control.
#include <atmanrl/rl/sft.hpp>
#include <atmanrl/tasks/arithmetic_text.hpp>

#include "../backend_options.hpp"
#include "../printing.hpp"
#include "../tiny_model.hpp"
#include "endpoints.hpp"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>

namespace faithfulness {

inline tokenizer make_words() { return tokenizer{byte_bpe(arithmetic_text::vocabulary())}; }

/// Thrown between two steps when the user wants the program to end.
struct interrupted {};

/// One worker's machine: a backend and two models of one shape.
template <class B>
struct workshop {
  using model_type = llama<B>;
  B backend;
  tokenizer words = make_words();
  model_type model, before;  ///< the one that is trained, and the start beside it
  std::function<bool()> stop;

  workshop(backend_options const& o, std::function<bool()> should_stop)
      : backend(make_backend<B>(o, false)),
        model(backend, tiny_config({}, words)),
        before(backend, tiny_config({}, words)),
        stop(std::move(should_stop)) {}
  void look_up() const {
    if (stop()) throw interrupted{};
  }
};

/// Supervised updates on a task's training items.
/// \param until  looked at before each update, with their number so far; ends the training where it says so
template <class B, class TaskT>
int teach(workshop<B>& w, TaskT const& task, std::uint64_t seed, std::uint64_t steps, double rate, std::uint64_t warmup,
          std::string const& name, std::function<bool(int)> const& until = {}) {
  sft_trainer trainer(w.model, sft_options{.steps = steps, .batch_size = 64, .micro_batches = 8, .learning_rate = rate},
                      schedules::linear{.warmup = std::min(warmup, steps / 2), .floor = 0.05},
                      optim::adamw{.beta2 = 0.98, .weight_decay = 0.01});
  int made = 0;
  std::vector<sft_example> batch(64);
  for (; std::uint64_t(made) < steps; ++made) {
    w.look_up();
    if (until && until(made)) break;
    for (std::size_t i = 0; i < batch.size(); ++i)
      batch[i] = make_sft_example(task, task.training_item(seed, std::uint64_t(made) * batch.size() + i), w.words,
                                  w.words.eos());
    auto const report = trainer.step(batch);
    if (report.step % 10 == 0)
      print_progress(stderr, "\r{}: update {} of {}, loss {:.3f}   ", name, report.step, steps, report.loss);
  }
  return made;
}

/// Reader fine-tuning of the worker's model: the positive control, and what softens a start.
template <class B>
int teach_reading(workshop<B>& w, settings const& s, std::uint64_t seed, int steps, double rate,
                  std::string const& name, std::function<bool(int)> const& until = {}) {
  return teach(w, reader_task(s), seed + 77, std::uint64_t(steps), rate, 5, name, until);
}

/// The weights of a start, from its folder or made anew and written there.
/// \param kind  hard, soft or control
template <class B>
std::vector<float> start_weights(workshop<B>& w, settings const& s, std::string const& kind, std::uint64_t seed,
                                 std::filesystem::path const& folder) {
  auto const place = [&](std::string const& k) {
    return folder / fmt::format("{}-{}-seed{}-{}{}{}", s.task, k, seed, s.pretraining_steps,
                                s.machine.empty() ? "" : "-", s.machine);
  };
  if (is_there(place(kind) / "model.safetensors")) {
    auto const stored = llama<B>::load(w.backend, place(kind));
    return weights_of(stored);
  }
  std::string const name = fmt::format("{}, start {} of seed {}", s.task, kind, seed);
  int softened = 0;
  if (kind == "soft") {
    assign_weights(w.model, start_weights(w, s, "hard", seed, folder));
    softened = teach_reading(w, s, seed, s.soft_most_steps, s.soft_rate, name,
                             [&](int) { return followed_edits(w.model, w.words, s) >= s.soft_from; });
  } else {
    assign_weights(w.model, initial_weights(w.model.layout(), w.model.config().layers, seed));
    teach(w, pretraining_task(s, kind == "control"), seed, std::uint64_t(s.pretraining_steps), 4e-3, 100, name);
  }
  std::vector<float> const weights = weights_of(w.model);
  std::filesystem::create_directories(folder);
  save_tiny_model(place(kind), w.model, weights, w.words, dtype::f32,
                  fmt::format("# {}\n\nMade by `examples/faithfulness.cpp` ({} updates of reader fine-tuning); it "
                              "follows {:.0f} % of 100 edits where it is tempted not to.\n",
                              name, softened, 100 * followed_edits(w.model, w.words, s)));
  return weights;
}

}  // namespace faithfulness
