// expect: atmanrl: the policy loss also needs `bool clipped\(atmanrl::loss_rollout const&, std::size_t token\) const`
#include <atmanrl/rl/losses/loss.hpp>

struct never_clips {
  double operator()(atmanrl::loss_rollout const& r, atmanrl::loss_scope const&, std::span<float>,
                    std::span<float>) const {
    return double(r.advantage);
  }
};
static_assert(atmanrl::detail::explain_loss<never_clips>());
