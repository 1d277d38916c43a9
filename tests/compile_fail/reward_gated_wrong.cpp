// expect: atmanrl: not a Reward: write `float operator\(\)\(atmanrl::rollout const&\) const`
#include <atmanrl/rl/rewards/gated.hpp>

struct of_text {
  float operator()(char const* text) const { return text ? 1.0f : 0.0f; }
};
void use(atmanrl::step_rollouts& step, int& model, std::span<float> out) {
  atmanrl::rewards::gated<of_text>{}(step, model, out);
}
