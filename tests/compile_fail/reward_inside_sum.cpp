// expect: atmanrl: the reward's operator\(\) must be const \(trainers share one reward object\)
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>

// The mistake is inside a sum, and the sentence is still about the part that is wrong.
struct counting {
  int calls = 0;
  float operator()(atmanrl::rollout const&) { return float(++calls); }
};

struct any_model {};
float first(atmanrl::step_rollouts& step, any_model& model) {
  atmanrl::rewards::weighted_sum<atmanrl::rewards::correct_answer, counting> sum;
  return atmanrl::evaluate_reward(sum, step, model).total.front();
}
