// What ranks cost and gain on one machine, on a model of SmolLM2-135M's shape with random weights:
//     ranks_step [--ranks 2] [--rounds 5]
// A step of GRPO with the saliency reward by one rank with a thread for each core, and by several ranks that share the
// cores, in turn; and the update's gradient as one chain over all rollouts, as a sum over groups has replaced it,
// beside that sum. Ratios are taken within a round. Ranks are threads of this process: what MPI takes is not in it.
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/tasks/arithmetic_text.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include "machine.hpp"
#include "smollm2.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using namespace atmanrl;
using model_type = llama<cpu_backend>;

model_type random_model(cpu_backend& backend, model_config const& c) {
  model_type model(backend, c);
  std::vector<float> row;
  for (parameter_info const& p : model.layout().all()) {
    row.resize(std::size_t(p.columns));
    random_stream draw(std::uint64_t(p.offset), 3);
    for (index_t r = 0; r < p.rows; ++r) {
      for (float& x : row) x = p.is_vector() ? 1.0f : float(draw.uniform() - 0.5) * 0.08f;
      model.assign_rows(p, r, view<float const, 2>(row.data(), {1, p.columns}));
    }
  }
  return model;
}

struct step_seconds {
  double sampling = 0, reward = 0, update = 0;
  double all() const { return sampling + reward + update; }
};

/// The second step of a run by so many ranks: that of the rank which took longest.
step_seconds step_of(int ranks, int threads) {
  step_seconds longest;
  std::mutex lock;
  comm::threads::run(ranks, [&](comm::threads& c) {
    cpu_backend backend({.threads = threads});
    model_type model = random_model(backend, atmanrl_bench::smollm2_shape());
    tokenizer const words{byte_bpe(arithmetic_text::vocabulary())};
    arithmetic const task;
    mask_options masks = mask_options::recommended();
    masks.scale = 10;
    masks.steps = 5;
    grpo trainer(
        model, words, task, rewards::saliency<>(masks),
        {.prompts_per_step = 4, .group_size = 4, .max_new_tokens = 64, .no_delimiter = no_delimiter_policy::force},
        advantages::mean_centered{}, losses::grpo{}, samplers::multinomial{}, schedules::constant{}, optim::adamw{},
        update_edits::none{}, c);
    trainer.step();
    c.barrier();
    auto const report = trainer.step();
    std::lock_guard const held(lock);
    longest.sampling = std::max(longest.sampling, report.seconds.sampling);
    longest.reward = std::max(longest.reward, report.seconds.reward);
    longest.update = std::max(longest.update, report.seconds.update);
  });
  return longest;
}

struct update_seconds {
  double chain = 0, tree = 0;
};

/// Gradient and update of so many groups of rollouts of `length` tokens after prompts of 128, both ways in turn.
std::vector<update_seconds> updates(int threads, int rounds, std::size_t groups, std::size_t members, int length) {
  cpu_backend backend({.threads = threads});
  model_type model = random_model(backend, atmanrl_bench::smollm2_shape());
  std::vector<std::vector<int>> prompts, completions;
  random_stream draw(2, 0);
  auto const tokens = [&](int count) {
    std::vector<int> ids;
    for (int i = 0; i < count; ++i) ids.push_back(draw.between(0, 49151));
    return ids;
  };
  for (std::size_t g = 0; g < groups; ++g) {
    prompts.push_back(tokens(128));
    for (std::size_t m = 0; m < members; ++m) completions.push_back(tokens(length));
  }
  std::vector<float> const old(std::size_t(length), -10.0f);
  std::vector<training_rollout> all;
  for (std::size_t i = 0; i < completions.size(); ++i) all.push_back({prompts[i / members], completions[i], old, 1.0f});
  trainable_policy<model_type> policy(model);
  std::span<training_rollout const> const rollouts(all);
  auto const timed = [&](auto&& gradient) {
    double const start = atmanrl_bench::now();
    gradient();
    policy.update(1e-9, 1);
    return atmanrl_bench::now() - start;
  };
  auto const chain = [&] {
    policy.zero_gradient();
    add_policy_gradient(policy, rollouts, losses::grpo{}, {});
  };
  auto const tree = [&] {
    sum_policy_gradient(policy, rollouts, members, losses::grpo{}, {}, update_edits::none{},
                        [](std::size_t, std::size_t) {});
  };
  timed(chain);  // memory is allocated by the first calls
  timed(tree);
  std::vector<update_seconds> out;
  for (int r = 0; r < rounds; ++r) out.push_back({timed(chain), timed(tree)});
  return out;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  int ranks = 2, rounds = 5;
  for (int i = 1; i < argc; i += 2) {
    std::string_view const name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    int& to = name == "--ranks" ? ranks : rounds;
    auto const read = std::from_chars(value.data(), value.data() + value.size(), to);
    if ((name != "--ranks" && name != "--rounds") || value.empty() || read.ptr != value.data() + value.size() || to < 1)
      return std::fputs("ranks_step [--ranks N] [--rounds N]\n", stderr), 2;
  }
  int const cores = int(std::thread::hardware_concurrency()), each = std::max(1, cores / ranks);
  std::vector<double> sampling, reward, update, all, seconds;
  for (int r = 0; r < rounds; ++r) {
    step_seconds const one = step_of(1, each * ranks), several = step_of(ranks, each);
    sampling.push_back(one.sampling / several.sampling);
    reward.push_back(one.reward / several.reward);
    update.push_back(one.update / several.update);
    all.push_back(one.all() / several.all());
    seconds.push_back(one.all());
  }
  fmt::print("| {} ranks of {} threads against one of {} | speed |\n|---|---|\n", ranks, each, each * ranks);
  fmt::print("| step ({:.1f} s by one rank) | {:.2f} ({:.2f} to {:.2f}) |\n", median(seconds), median(all),
             *std::min_element(all.begin(), all.end()), *std::max_element(all.begin(), all.end()));
  for (auto const& [name, ratios] :
       {std::pair("sampling", &sampling), std::pair("masks", &reward), std::pair("update", &update)})
    fmt::print("| {} | {:.2f} ({:.2f} to {:.2f}) |\n", name, median(*ratios),
               *std::min_element(ratios->begin(), ratios->end()), *std::max_element(ratios->begin(), ratios->end()));
  std::fflush(stdout);  // what follows takes as long again
  fmt::print("\n| update as a sum over groups, in times of one chain over all rollouts | |\n|---|---|\n");
  struct shape {
    std::size_t groups, members;
    int length;
  };
  for (shape const& s : {shape{8, 4, 64}, shape{4, 8, 200}}) {
    std::vector<double> tree;
    for (update_seconds const& u : updates(each * ranks, rounds, s.groups, s.members, s.length))
      tree.push_back(u.tree / u.chain);
    fmt::print("| {} groups of {} rollouts of {} tokens | {:.3f} ({:.3f} to {:.3f}) |\n", s.groups, s.members, s.length,
               median(tree), *std::min_element(tree.begin(), tree.end()), *std::max_element(tree.begin(), tree.end()));
  }
}
