// expect: atmanrl: no attention kernel for this backend; specialise atmanrl::kernels::attention<B>
#include <atmanrl/ops/attention.hpp>

struct my_backend : atmanrl::host_memory {
  static constexpr std::string_view name = "mine";
};

void attend(my_backend& backend, atmanrl::view<float, 3> x, atmanrl::view<float, 2> y) {
  atmanrl::attention_forward(backend, {}, x, x, x, {}, atmanrl::attention::none{}.params(), nullptr, x, y);
}
