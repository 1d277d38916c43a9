// What programs ask of a backend beyond the experiment's own steps, on the CUDA backend and on the CPU: explain with
// every estimator, evaluate with edited chains, MMLU by letters and by rollouts, the verbs of inspect, ablation's
// tables, and an arm of reproduce_table1.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/nn/blocks.hpp>

#include "../../../examples/ablation/ablation.hpp"
#include "../../../examples/evaluate/evaluate.hpp"
#include "../../../examples/explain/explain.hpp"
#include "../../../examples/inspect/device_program.hpp"
#include "../../../examples/inspect/grpo_request.hpp"
#include "../../../examples/reproduce_table1/arms.hpp"
#include "cuda/experiment/alike.hpp"
#include "cuda/experiment/few_questions.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

std::filesystem::path const bundled = std::filesystem::path(ATMANRL_FIXTURES) / "../../examples/models/tiny";

template <class B>
json explained(std::filesystem::path const& out) {
  explaining::options o;
  o.model = bundled.string();
  o.json = out.string();
  o.question = "Tom has 4 apples. He buys 3 more. How many apples does he have?";
  o.chain = "Tom has 4 + 3 = 7 apples.";
  o.answer = "7";
  o.mask_steps = 2;
  o.points = 3;
  o.random_orders = 1;
  o.threads = 1;
  REQUIRE(computed_on<B>([&] { return explaining::run<B>(o); }) == 0);
  return read_json_file(out);
}

template <class B>
std::vector<json> evaluated(scratch_folder const& folder, evaluating::options o) {
  o.model = bundled;
  o.threads = 1;
  o.completions = folder / "lines.jsonl";
  if (!o.letters) o.out = folder / "figures.json";
  std::filesystem::remove(o.completions);
  REQUIRE(computed_on<B>([&] { return evaluating::program::run<B>(o, {}); }) == 0);
  auto lines = read_json_lines(o.completions);
  std::vector<json> all(lines.begin(), lines.end());
  if (!o.letters) all.push_back(read_json_file(o.out));
  return all;
}

void check_evaluated(evaluating::options const& o, std::size_t questions) {
  scratch_folder const folder;
  auto const device = evaluated<cuda_backend>(folder, o), host = evaluated<cpu_backend>(folder, o);
  REQUIRE(host.size() == questions + !o.letters);
  REQUIRE(device.size() == host.size());
  for (std::size_t i = 0; i < host.size(); ++i) check_alike(device[i], host[i], 1e-3);
}

/// Both tables of ablation, of the completions of one problem.
template <class B>
std::string ablated(std::filesystem::path const& out) {
  ablating::options o;
  o.model = bundled.string();
  o.out = out.string();
  o.prompts = o.setting_prompts = 1;
  o.samples = 2;
  o.points = 2;
  o.threads = 1;
  o.printed = o.printed.in_steps(1);
  mask_options setting = mask_options::recommended().in_steps(2);
  setting.scale = 10;
  setting.shape = mask_shape::pair;
  setting.rows = mask_rows::all_later;
  setting.objective = objectives::by_name("kl_to_unmasked");
  o.settings = {setting};
  REQUIRE(computed_on<B>([&] { return ablating::program::run<B>(o, {}); }) == 0);
  return read_text_file(out);
}

/// The arms of reproduce_table1 that are not there yet, trained for a step.
template <class B>
void reproduce(std::filesystem::path const& out) {
  table1::options o;
  o.model = bundled.string();
  o.out = out.string();
  o.steps = o.prompts = o.questions = o.samples = o.causal_questions = 1;
  o.group = o.printed_mask_steps = 2;
  o.warmup = 0;
  o.learning_rate = 1e-4;
  o.seeds = {3};
  o.threads = 1;
  REQUIRE(computed_on<B>([&] { return table1::program::run<B>(o, {}); }) == 0);
}

/// With bf16 weights the CPU keeps activations as floats, whatever its instructions round: each way to round is another
/// function, and by AMX the gradient of a mask is 5 % from the device's.
template <class B>
inspect::result inspected(inspect::request const& what, bool bf16_weights) {
  auto const file = model_file::open(bundled, standard_architectures());
  inspect::result out;
  inspect::device_call call{{}, bf16_weights, &file, &what, &out};
  call.threads = 1;
  if (std::is_same_v<B, cpu_backend> && bf16_weights) call.bf16_products = "floats";
  REQUIRE(computed_on<B>([&] { return inspect::device_program::run<B>(call, {}); }) == 0);
  return out;
}

/// What is printed of a result, but for gradients.
json figures_of(inspect::logprobs_result const& r) { return {{"log_probs", r.log_probs}, {"argmax", r.argmax}}; }
json figures_of(inspect::generate_result const& r) { return {{"ids", r.ids}, {"log_probs", r.log_probs}}; }
json figures_of(inspect::gradient_result const& r) { return {{"loss", r.loss}, {"norm", r.norm}}; }
json figures_of(inspect::mask_outcome const& r) {
  return {{"ce_unmasked", r.ce_unmasked},
          {"ce_start", r.ce_start},
          {"ce_end", r.ce_end},
          {"mask", r.mask},
          {"saliency", r.saliency.value().tokens},
          {"re_enabled", r.saliency.value().re_enabled},
          {"as_printed", r.saliency.value().as_printed}};
}
json figures_of(inspect::grpo_result const& r) {
  return {{"advantages", r.advantages}, {"ratios", r.ratios},     {"token_losses", r.token_losses}, {"loss", r.loss},
          {"kl", r.kl.value()},         {"norm", r.gradient_norm}};
}

void check_inspected(inspect::request const& what, bool bf16_weights, double tolerance) {
  auto const device = inspected<cuda_backend>(what, bf16_weights), host = inspected<cpu_backend>(what, bf16_weights);
  REQUIRE(device.index() == host.index());
  auto const figures = [](inspect::result const& r) {
    return std::visit([](auto const& each) { return figures_of(each); }, r);
  };
  auto const gradient = [](inspect::result const& r) {
    return std::visit(
        [](auto const& each) {
          if constexpr (requires { each.gradient; })
            return each.gradient;
          else
            return std::vector<float>{};
        },
        r);
  };
  check_alike(figures(device), figures(host), tolerance);
  std::vector<float> const expected = gradient(host);
  if (!expected.empty()) REQUIRE(norm_of(expected) > 0);
  CHECK(relative_difference(gradient(device), expected) < tolerance);
}

}  // namespace

TEST_CASE("cuda programs: explain finds what it finds on the CPU") {
  scratch_folder const folder;
  auto const device = explained<cuda_backend>(folder / "device.json"),
             host = explained<cpu_backend>(folder / "host.json");
  REQUIRE(host["items"][0]["saliency"].size() == 6);
  check_alike(device, host, 2e-3);
}

TEST_CASE("cuda programs: evaluate samples and edits chains as on the CPU") {
  evaluating::options o;
  o.questions = 2;
  o.samples = 1;
  o.temperature = 0;
  o.max_new_tokens = 24;
  o.edit_chains = 1;
  check_evaluated(o, 2);
}

TEST_CASE("cuda programs: evaluate asks MMLU by rollouts and by letters as on the CPU") {
  scratch_folder const data;
  write_mmlu(data.path());
  evaluating::options o;
  o.task = "mmlu";
  o.data = data.path();
  o.questions = 0;
  o.samples = 1;
  o.temperature = 0;
  o.max_new_tokens = 6;
  o.shots = 1;
  o.letters = GENERATE(false, true);
  check_evaluated(o, 2);
}

TEST_CASE("cuda programs: every verb of inspect finds what it finds on the CPU") {
  using namespace inspect;
  auto const words = tokenizer::load(bundled);
  auto const ids = [&](char const* text) { return words.encode(text); };
  std::vector<int> const question = ids("Question: Tom has 4 apples. He buys 3 more. How many apples does he have?\n"),
                         chain = ids(" Tom has 4 + 3 = 7 apples.");
  std::vector<int> both = question;
  both.insert(both.end(), chain.begin(), chain.end());
  auto const log_p = std::get<logprobs_result>(inspected<cpu_backend>(logprobs_request{both}, false)).log_probs;
  bool const bf16_weights = GENERATE(false, true);
  CAPTURE(bf16_weights);
  auto const check = [&](request const& what) { check_inspected(what, bf16_weights, bf16_weights ? 4e-2 : 1e-3); };
  check(logprobs_request{both});
  generate_request drawn{
      .ids = question, .stop_ids = {}, .max_new_tokens = 6, .temperature = 20, .top_p = 0.9, .top_k = 20, .seed = 3};
  check(drawn);
  auto const ids_drawn = [&] { return std::get<generate_result>(inspected<cpu_backend>(drawn, false)).ids; };
  std::vector<int> const of_seed = ids_drawn();
  drawn.seed = 4;
  CHECK(ids_drawn() != of_seed);  // or the check above would see no seed
  check(gradient_request{both});
  mask_options mask = mask_options::recommended().in_steps(2);
  mask.scale = 25;
  check(mask_request{question, chain, ids("\n\n#### "), ids("7"), mask, true});
  // A group of two completions, the chain and its first half, which other models wrote, and with another reference.
  json completions;
  for (std::size_t const length : {chain.size(), chain.size() / 2}) {
    std::vector<int> const written(chain.begin(), chain.begin() + std::ptrdiff_t(length));
    std::vector<float> old, reference;
    for (std::size_t i = 0; i < length; ++i) {
      old.push_back(log_p[question.size() - 1 + i] + (length < chain.size() ? 0.1f : -0.1f));
      reference.push_back(log_p[question.size() - 1 + i] - 0.3f);
    }
    completions.push_back({{"ids", written}, {"logprobs", old}, {"reference_logprobs", reference}, {"reward", length}});
  }
  json const input{{"model", bundled.string()},
                   {"beta", 0.04},
                   {"groups", {{{"prompt_ids", question}, {"completions", completions}}}}};
  check(parse_grpo_request(input.dump()).second);
}

TEST_CASE("cuda programs: inspect rounds to bf16 on the device where it is asked to") {
  auto const log_p = [](bool bf16_weights) {
    inspect::logprobs_request const what{{1, 2, 3, 4}};
    return std::get<inspect::logprobs_result>(inspected<cuda_backend>(what, bf16_weights)).log_probs;
  };
  CHECK(log_p(false) != log_p(true));
}

TEST_CASE("cuda programs: both tables of ablation are those of the CPU") {
  scratch_folder const folder;
  auto const device = ablated<cuda_backend>(folder / "device.md"), host = ablated<cpu_backend>(folder / "host.md");
  CAPTURE(host);
  check_alike_tables(device, host, 2e-3);
}

TEST_CASE(
    "cuda programs: an arm of reproduce_table1 trains and is measured as on the CPU, beside arms that are there") {
  scratch_folder const folder;
  auto const host = folder / "host", device = folder / "device";
  reproduce<cpu_backend>(host);
  std::filesystem::copy(host, device);
  char const* const arm = "printed_settings-seed3.json";
  std::filesystem::remove(device / arm);
  std::filesystem::remove(device / "table1.md");
  reproduce<cuda_backend>(device);
  json a = read_json_file(device / arm), b = read_json_file(host / arm);
  CHECK(b["causal"]["items"] == 1);
  CHECK(b["causal"] != read_json_file(host / "start-seed3.json")["causal"]);  // a step is seen in what is measured
  for (json* const j : {&a, &b}) j->erase("processor_seconds");
  check_alike(a, b, 2e-3);
  check_alike_tables(read_text_file(device / "table1.md"), read_text_file(host / "table1.md"), 2e-3);
}
