// expect: atmanrl: to take a KL term the policy loss also needs `double token_weight\(atmanrl::loss_rollout const&, atmanrl::loss_scope const&\) const`
#include <atmanrl/rl/losses/kl.hpp>

struct weightless {
  double operator()(atmanrl::loss_rollout const& r, atmanrl::loss_scope const&, std::span<float>,
                    std::span<float>) const {
    return double(r.advantage);
  }
  bool clipped(atmanrl::loss_rollout const&, std::size_t) const { return false; }
};
atmanrl::losses::with_kl<weightless> loss;
