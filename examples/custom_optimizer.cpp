// An optimizer of one's own: LARS (You et al. 2017, arXiv:1708.03888), momentum whose steps are in proportion to each
// parameter's length. It trains the bundled model on a few of its problems, on whatever backend the model is.
#include <atmanrl/grpo.hpp>

#include <atmanrl/rl/sft.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/testing/optimizer.hpp>

using namespace atmanrl;

// [optimizer]
struct lars {
  double momentum = 0.9;

  template <Backend B, class T>
  struct state : optim::moments<lars, B, T> {
    std::vector<element_range> parameters;

    state(lars const& numbers, B& backend, optim::parameter_list const& all)
        : optim::moments<lars, B, T>(numbers, backend, {{"momentum", all.size}}) {
      for (optim::parameter_shape const& p : all.shapes) parameters.push_back({p.offset, p.size()});
    }
    void step(view_on<B, T, 1> weights, view_on<B, T const, 1> gradient, double learning_rate) {
      B& backend = this->backend();
      for (auto const& [first, count] : parameters) {
        auto const w = weights.rows(first, count), m = this->moment(0).rows(first, count);
        // A rate of 0 moves the momentum alone.
        sgd_step(backend, w, gradient.rows(first, count), m,
                 {.learning_rate = 0, .momentum = this->numbers().momentum});
        double const ratio = std::sqrt(sum_of_squares(backend, w) / (sum_of_squares(backend, m) + 1e-20));
        sgd_step(backend, w, m, {.learning_rate = learning_rate * ratio});
      }
      this->next_step();
    }
  };
};
// [/optimizer]

int main() {
  try {
    cpu_backend backend;
    // [prove]
    // Its arrays go on with the same bits, a rate of 0 moves nothing, a zero gradient divides nothing by zero.
    testing::check_optimizer(lars{}, backend);
    // [/prove]
    auto model = llama<cpu_backend>::load(backend, "examples/models/tiny");
    auto const words = tokenizer::load("examples/models/tiny");
    std::vector<sft_example> problems;
    for (std::uint64_t i = 0; i < 32; ++i) {
      task_item const item = arithmetic().training_item(1, i);
      problems.push_back({arithmetic().prompt(item, words), arithmetic().completion(item, words)});
    }
    sft_trainer trainer(model, {.steps = 10, .batch_size = 32, .learning_rate = 2e-3}, schedules::constant{}, lars{});
    double const before = trainer.evaluate(problems);
    for (int step = 1; step <= 10; ++step) fmt::print("step {:2}  {:.4f}\n", step, trainer.step(problems).loss);
    double const after = trainer.evaluate(problems);
    fmt::print("{:.4f} -> {:.4f} nats per token\n", before, after);
    return after < before ? 0 : 1;
  } catch (error const& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
