// expect: atmanrl: the mask family needs `atmanrl::mask_saliency reduce\(atmanrl::mask_extent const&, std::span<float const> values\) const`
#include <atmanrl/attention/multiplicative_gate.hpp>
#include <atmanrl/saliency/mask_options.hpp>

struct unread : atmanrl::masks::placed {
  static constexpr std::string_view name = "unread";
  template <atmanrl::Backend B>
  using policy = atmanrl::attention::multiplicative_gate<B>;
  double initial() const { return 0.5; }
};
atmanrl::mask_options_of<unread> const options;
