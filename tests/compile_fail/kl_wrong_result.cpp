// expect: atmanrl: not a KlEstimator: write `atmanrl::kl_estimate operator\(\)\(double log_ratio\) const`
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/losses/kl.hpp>

struct value_only {
  double operator()(double log_ratio) const { return log_ratio * log_ratio; }
};
atmanrl::losses::with_kl<atmanrl::losses::grpo, value_only> loss;
