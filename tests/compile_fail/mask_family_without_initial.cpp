// expect: atmanrl: the mask family needs `double initial\(\) const`
#include <atmanrl/attention/multiplicative_gate.hpp>
#include <atmanrl/saliency/masks/placed.hpp>

struct adrift : atmanrl::masks::placed {
  static constexpr std::string_view name = "adrift";
  template <atmanrl::Backend B>
  using policy = atmanrl::attention::multiplicative_gate<B>;
  atmanrl::mask_saliency reduce(atmanrl::mask_extent const&, std::span<float const>) const { return {}; }
};
static_assert(atmanrl::detail::explain_mask_family<adrift>());
