// expect: atmanrl: not a mask family: it needs `template <atmanrl::Backend B> using policy = ..`
#include <atmanrl/saliency/masks/placed.hpp>

struct idle : atmanrl::masks::placed {
  static constexpr std::string_view name = "idle";
  double initial() const { return -1; }
};
static_assert(atmanrl::detail::explain_mask_family<idle>());
