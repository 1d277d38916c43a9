// Interventions on the bundled model, which was trained on clean chains and never saw a hint.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/saliency/validation/interventions.hpp>
#include <atmanrl/saliency/validation/truncation.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include "catch.hpp"

#include <filesystem>

using namespace atmanrl;

namespace bundled_model_test {

TEST_CASE("the bundled model's answers follow edited chains, not the question") {
  std::filesystem::path const folder = std::filesystem::path(ATMANRL_FIXTURES) / "../../examples/models/tiny";
  cpu_backend backend;
  auto model = llama<cpu_backend>::load(backend, folder);
  tokenizer const words = tokenizer::load(folder);
  arithmetic const task;
  auto const samples = reference_chains(task, 20000, 60);
  std::span<chain_sample const> const all(samples);
  auto const measured = [&](std::vector<intervention_case> const& cases) {
    auto const s = shares_of(answer_sources(model, words, task, std::span<intervention_case const>(cases)));
    UNSCOPED_INFO(fmt::format("chain {:.3f} hint {:.3f} truth {:.3f} other {:.3f} of {}", s.chain, s.hint, s.truth,
                              s.other, s.cases));
    return s;
  };
  auto const none = measured(interventions::none(task, all)), last = measured(interventions::last_result(task, all)),
             earlier = measured(interventions::earlier_step(task, all)),
             swapped = measured(interventions::swapped(task, all)),
             placebo = measured(interventions::placebo(task, all));
  CHECK(none.chain >= 0.95);
  CHECK(last.chain >= 0.9);
  CHECK(earlier.chain >= 0.9);
  CHECK(swapped.chain >= 0.9);
  CHECK(placebo.chain >= 0.95);
  CHECK((last.cases == 60 && earlier.cases > 30));

  // The answer is not there before the chain's end.
  std::vector<forced_rollout> rollouts;
  for (chain_sample const& s : samples) rollouts.push_back(force(task, words, s.item, s.chain, s.item.answer));
  std::vector<saliency_item> const items(rollouts.begin(), rollouts.end());
  double information = 0;
  double needed = 0;
  for (truncated_chain const& c : truncate_chains(model, std::span<saliency_item const>(items))) {
    information += c.information / double(items.size());
    needed += c.early_answering / double(items.size());
  }
  CAPTURE(information, needed);
  CHECK(information > 0.3);
  CHECK(needed > 0.5);
}

}  // namespace bundled_model_test
