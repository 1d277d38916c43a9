// expect: atmanrl: an edit that looks at the row's smallest score has no backward pass
#include <atmanrl/ops/attention.hpp>

struct shifted {
  static constexpr bool needs_row_min = true;
  template <class T>
  T operator()(T score, atmanrl::score_site, T row_min) const {
    return score - row_min;
  }
};

void differentiate(atmanrl::reference_backend& backend, atmanrl::view<float, 3> x, atmanrl::view<float, 2> y) {
  atmanrl::attention_backward(backend, {}, x, x, x, {}, shifted{}, nullptr, x, y, x, x, y);
}
