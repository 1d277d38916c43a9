// What programs ask of a backend beyond the experiment's own steps, on the CUDA backend and on the CPU: explain with
// every estimator, evaluate with edited chains, and MMLU by letters and by rollouts.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/cuda/cuda_backend.cuh>

#include "../../../examples/evaluate/evaluate.hpp"
#include "../../../examples/explain/explain.hpp"
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
