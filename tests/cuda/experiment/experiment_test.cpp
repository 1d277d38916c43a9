// Two steps of the whole experiment with the bundled model, and of supervised fine-tuning, on the CUDA backend and on
// the CPU: what the run can be asked for, each option in some run, several of them together. Tokens are the same,
// figures and gradients nearly, and a run that is continued ends with the same bytes.
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/experiment/experiment.hpp>
#include <atmanrl/experiment/mmlu_traits.hpp>
#include <atmanrl/io/checkpoint.hpp>
#include <atmanrl/io/jsonl.hpp>

#include "../../../examples/sft/sft.hpp"
#include "cuda/experiment/alike.hpp"
#include "cuda/experiment/few_questions.hpp"
#include "experiment/cut_run.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

/// The experiments of both programs, which differ in the task alone, compiled once.
template <class B>
struct traits_on : gsm8k_traits<B> {
  using weights = weight_types<float>;
  using task = one_of_tasks<any_task, mmlu>;
  static task make_task(experiment_options const& o) {
    if (o.task == "mmlu") return mmlu_traits<B>::make_task(o);
    return gsm8k_traits<B>::make_task(o);
  }
};

using given_options = std::vector<std::pair<char const*, char const*>>;

struct setting {
  scratch_folder folder;
  std::filesystem::path model = std::filesystem::path(ATMANRL_FIXTURES) / "../../examples/models/tiny";

  experiment_options options(char const* name, given_options const& given) const {
    experiment_options o = short_run(model, folder / name);
    o.steps = 2;
    o.prompts_per_step = 1;
    o.group_size = 2;
    o.max_new_tokens = 10;
    o.mask = o.mask.in_steps(2);
    o.mask.scale = 25;
    o.saliency_weight = 1;  // the answers are all wrong, so that the saliency alone must teach
    o.eval_questions = o.validate_every = 0;
    o.optimizer_settings.eps = 1e-3;  // so that rounding of a small gradient is no whole step
    for (auto const& [option, value] : given) set_option(o, option, value);
    if (o.task == "mmlu") write_mmlu(o.data = folder / "mmlu");
    return o;
  }

  template <class B>
  std::filesystem::path run(char const* name, given_options const& given) const {
    auto const o = options(name, given);
    REQUIRE(computed_on<B>([&] { return experiment<traits_on<B>>{o}.run(); }) == 0);
    return o.out;
  }
};

/// Files of a run on the device against those on the CPU.
void check_same_run(std::filesystem::path const& device, std::filesystem::path const& host, double tolerance) {
  // A loss is a sum of ratios times advantages of up to 0.1, which cancel; the ratios' rounding of 1e-6 does not.
  constexpr double cancelled = 1e-7;
  for (char const* const name : {"completions.jsonl", "metrics.jsonl", "causal.jsonl"}) {
    INFO(name);
    auto const a = read_json_lines(device / name), b = read_json_lines(host / name);
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) check_alike(a[i], b[i], tolerance, cancelled);
  }
  for (char const* const name : {"evaluation_before.json", "evaluation_after.json"}) {
    INFO(name);
    REQUIRE(std::filesystem::exists(device / name) == std::filesystem::exists(host / name));
    if (std::filesystem::exists(host / name))
      check_alike(read_json_file(device / name), read_json_file(host / name), tolerance);
  }
  auto const a = load_checkpoint(device / "checkpoints/step-000002.checkpoint"),
             b = load_checkpoint(host / "checkpoints/step-000002.checkpoint");
  REQUIRE(a.arrays.size() == b.arrays.size());
  for (auto const& [name, values] : a.arrays) {
    INFO(name);  // the optimizer's moments among them: sums of gradients and of their squares
    CHECK(relative_difference(values, b.arrays.at(name)) < tolerance);
  }
}

/// The second step again, from the checkpoint after the first.
void check_resumed(setting const& s, std::filesystem::path const& whole) {
  auto const cut = cut_copy(whole, s.folder / "cut", 1);
  std::filesystem::remove_all(cut / "adapter");
  REQUIRE(experiment<traits_on<cuda_backend>>{stored_options(cut)}.run() == 0);
  for (auto const& each : std::filesystem::recursive_directory_iterator(whole)) {
    auto const path = each.path().lexically_relative(whole);
    std::string const name = path.filename().string();
    // Those that say when and where.
    if (each.is_directory() || name == "timings.jsonl" || name == "options.json" || name == "report.html" ||
        name.starts_with("events."))
      continue;
    INFO(path.string());
    if (name != "step-000001.checkpoint") CHECK((content(each.path()) == content(cut / path)));
  }
}

}  // namespace

TEST_CASE("cuda experiment: two steps are those of the CPU, and go on bit for bit, whatever they are made of") {
  setting const s;
  struct made_of {
    char const* name;
    double tolerance;
    bool resumed;
    given_options given;
  };
  // Rounding to bf16 turns differences in the last bit into differences of 2^-9.
  made_of const run = GENERATE(values<made_of>(
      {{"all parameters, validation, evaluation, a reference model, dynamic sampling",
        2e-3,
        true,
        {{"validate-every", "2"}, {"eval-questions", "2"}, {"beta", "0.04"}, {"dynamic-sampling", "1"}}},
       {"all parameters, recompute, keys and values in bf16, masks that all later rows see",
        2e-2,
        false,
        {{"recompute", "true"}, {"kv-cache", "bf16"}, {"mask-rows", "all_later"}}},
       {"adapters, keys and values in bf16, recompute, their own reference",
        2e-2,
        true,
        {{"lora-rank", "2"}, {"kv-cache", "bf16"}, {"recompute", "true"}, {"beta", "0.04"}}},
       {"adapters, leave_one_out, recompute",
        2e-3,
        false,
        {{"lora-rank", "2"}, {"saliency-estimator", "leave_one_out"}, {"recompute", "true"}}},
       {"all parameters, gradient, dynamic sampling",
        2e-3,
        false,
        {{"saliency-estimator", "gradient"}, {"dynamic-sampling", "1"}}},
       {"adapters, atman_suppression, validation",
        2e-3,
        false,
        {{"lora-rank", "2"}, {"saliency-estimator", "atman_suppression"}, {"validate-every", "1"}}},
       {"gradient_x_input, keys and values in bf16",
        2e-2,
        false,
        {{"saliency-estimator", "gradient_x_input"}, {"kv-cache", "bf16"}}},
       {"MMLU, evaluation, the divergence from the unmasked model",
        2e-3,
        false,
        {{"task", "mmlu"}, {"eval-questions", "1"}, {"mask-objective", "kl_to_unmasked"}}},
       {"attention_rollout, recompute",
        2e-3,
        false,
        {{"saliency-estimator", "attention_rollout"}, {"recompute", "true"}}}}));
  INFO(run.name);
  auto const device = s.run<cuda_backend>("device", run.given), host = s.run<cpu_backend>("host", run.given);
  check_same_run(device, host, run.tolerance);
  if (run.resumed) check_resumed(s, device);
}

TEST_CASE("cuda experiment: gradients of weights in bf16 are what the option asks for, and are recorded") {
  setting const s;
  auto const rounded = s.run<cuda_backend>("rounded", {{"steps", "1"}, {"bf16-weight-gradients", "true"}}),
             full = s.run<cuda_backend>("full", {{"steps", "1"}});
  CHECK(read_json_file(rounded / "options.json")["bf16-weight-gradients"] == true);
  CHECK(read_json_file(full / "options.json")["bf16-weight-gradients"] == false);
  auto const a = load_checkpoint(rounded / "checkpoints/step-000001.checkpoint"),
             b = load_checkpoint(full / "checkpoints/step-000001.checkpoint");
  double largest = 0;
  for (auto const& [name, values] : a.arrays) {
    double const difference = relative_difference(values, b.arrays.at(name));
    CHECK(difference < 0.02);
    largest = std::max(largest, difference);
  }
  CHECK(largest > 1e-4);
}

TEST_CASE("cuda sft: two steps are those of the CPU") {
  setting const s;
  auto const tuned = [&]<class B>(B*, char const* name) {
    fine_tuning::options o;
    o.model = s.model;
    o.task = "arithmetic";
    o.examples = 6;
    o.held_out = 2;
    o.batch = 2;
    o.learning_rate = 1e-3;
    o.recompute = true;
    o.threads = 1;
    o.out = s.folder / name;
    computed_on<B>([&] {
      fine_tuning::run<B, float>(o, {});
      return 0;
    });
    cpu_backend backend({.threads = 1});
    auto model = llama<cpu_backend>::load(backend, o.out);
    return trainable_policy(model).master().to_host();
  };
  auto const device = tuned(static_cast<cuda_backend*>(nullptr), "device"),
             host = tuned(static_cast<cpu_backend*>(nullptr), "host");
  CHECK(relative_difference(device, host) < 2e-3);  // both are rounded to bf16 in their files
}
