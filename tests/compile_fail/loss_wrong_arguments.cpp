// expect: atmanrl: not a PolicyLoss: write `double operator\(\)\(atmanrl::loss_rollout const&, atmanrl::loss_scope const&,
#include <atmanrl/rl/losses/loss.hpp>

struct without_scope {
  double operator()(atmanrl::loss_rollout const& r, std::span<float>) const { return double(r.advantage); }
  bool clipped(atmanrl::loss_rollout const&, std::size_t) const { return false; }
};
static_assert(atmanrl::detail::explain_loss<without_scope>());
