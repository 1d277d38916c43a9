// expect: atmanrl: the mask family's policy must be a trainable attention policy with a default constructor
#include <atmanrl/saliency/masks/placed.hpp>

template <atmanrl::Backend B>
struct halved {
  struct params_type {
    template <class T>
    T operator()(T score, atmanrl::score_site) const {
      return score / 2.0f;
    }
  };
  params_type params() const { return {}; }
};
struct nothing_to_learn : atmanrl::masks::placed {
  static constexpr std::string_view name = "nothing_to_learn";
  template <atmanrl::Backend B>
  using policy = halved<B>;
};
static_assert(atmanrl::detail::explain_mask_family<nothing_to_learn>());
