// A training loop of one's own on the library's pieces: sample, reward, advantage, gradient, update, save. Here short
// right answers pay; the bundled model learns to leave out what does not matter.
//   build/release/examples/own_loop [FOLDER]    the trained model's; without one it is thrown away
#include <atmanrl/grpo.hpp>

#include <atmanrl/rl/save_model.hpp>
#include <atmanrl/tasks/arithmetic.hpp>

#include <numeric>

using namespace atmanrl;

namespace {

int run(std::filesystem::path const& out) {
  constexpr std::size_t prompts_per_step = 8, group = 8;
  // [loop]
  cpu_backend backend;
  auto model = llama<cpu_backend>::load(backend, "examples/models/tiny");
  auto const words = tokenizer::load("examples/models/tiny");
  trainable_policy policy(model, optim::adamw{});
  arithmetic const task;
  std::vector<double> lengths;
  for (std::uint32_t step = 1; step <= 24; ++step) {
    std::vector<task_item> items;
    std::vector<std::vector<int>> prompts;
    for (std::size_t i = 0; i < prompts_per_step; ++i) {
      items.push_back(task.training_item(1, step * prompts_per_step + i));
      prompts.push_back(task.prompt(items.back(), words));
    }
    generate_options const sampling{.group_size = group,
                                    .max_new_tokens = 160,
                                    .stop_ids = stop_ids(words, model.config().stop_ids),
                                    .seed = 1,
                                    .step = step,
                                    .on_progress = {}};
    auto const sampled = generate(model, prompts, sampling, samplers::multinomial{});

    std::vector<float> rewards, advantages(prompts_per_step * group);
    double tokens = 0;
    for (std::size_t p = 0; p < prompts_per_step; ++p)
      for (completion const& c : sampled[p]) {
        rewards.push_back(float(task.grade(items[p], words.decode(c.ids)).correct_strict) -
                          0.01f * float(c.ids.size()));
        tokens += double(c.ids.size());
      }
    advantages::mean_centered{}(rewards, group, advantages);

    std::vector<training_rollout> rollouts;
    for (std::size_t i = 0; i < rewards.size(); ++i) {
      completion const& c = sampled[i / group][i % group];
      rollouts.push_back({prompts[i / group], c.ids, c.log_probs, advantages[i]});
    }
    policy.zero_gradient();
    auto const report = add_policy_gradient(policy, rollouts, losses::grpo{}, {});
    policy.update(1e-4, 1.0);
    lengths.push_back(tokens / double(rewards.size()));
    fmt::print("step {:2}  mean reward {:6.3f}, {:.1f} tokens, ratio of the first pass {}\n", step,
               std::accumulate(rewards.begin(), rewards.end(), 0.0) / double(rewards.size()), lengths.back(),
               report.ratio_max);
  }
  save_model(out, policy, words, "examples/models/tiny", dtype::bf16);
  // [/loop]

  auto const saved = llama<cpu_backend>::load(backend, out);
  fmt::print("{} parameters in {}\n", saved.layout().size(), out.string());
  // Questions differ more than the model learns in a step, so the first six steps are compared with the last six.
  auto const six_from = [&](auto first) { return std::accumulate(first, first + 6, 0.0) / 6; };
  double const before = six_from(lengths.begin()), after = six_from(lengths.end() - 6);
  fmt::print("{:.1f} tokens at first, {:.1f} at last\n", before, after);
  return after < before ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  auto const kept_nowhere = std::filesystem::temp_directory_path() / fmt::format("atmanrl-own-loop-{}", ::getpid());
  int status = 1;
  try {
    status = run(argc > 1 ? std::filesystem::path(argv[1]) : kept_nowhere);
  } catch (error const& e) {
    fmt::print(stderr, "{}\n", e.what());
  }
  std::filesystem::remove_all(kept_nowhere);
  return status;
}
