// A reward of one's own: write a type, name it in the traits. `brevity` takes away up to 1 for every
// 80 tokens above 80.
#include <atmanrl/experiment.hpp>
#include <atmanrl/testing/reward.hpp>

#include "terminal/run_display.hpp"

// [reward]
struct brevity {
  static constexpr std::string_view name = "brevity";
  float target = 80;  // tokens
  float operator()(atmanrl::rollout const& r) const { return std::min(0.0f, 1 - float(r.ids.size()) / target); }
};

struct mine : atmanrl::gsm8k_traits<> {
  using reward =
      atmanrl::rewards::weighted_sum<atmanrl::rewards::correct_answer, atmanrl::rewards::saliency<>, brevity>;
};
// [/reward]

int main() {
  auto const folder = std::filesystem::temp_directory_path() / fmt::format("atmanrl-custom-reward-{}", ::getpid());
  int status = 1;
  try {
    // [prove]
    // A finite value for every rollout, and the same again.
    atmanrl::testing::check_reward(brevity{});
    // [/prove]
    atmanrl::experiment_options options;
    options.steps = 3;
    options.eval_questions = 32;
    options.saliency_weight = 0.2;
    options.out = folder;
    terminal::run_display display;
    status = atmanrl::experiment<mine>{options}.run(display);
  } catch (atmanrl::error const& e) {
    fmt::print(stderr, "{}\n", e.what());
  }
  std::filesystem::remove_all(folder);
  return status;
}
