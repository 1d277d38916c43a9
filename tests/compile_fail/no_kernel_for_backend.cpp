// expect: atmanrl: no rms_norm kernel for this backend; specialise atmanrl::kernels::rms_norm<B>
#include <atmanrl/ops/rms_norm.hpp>

// A backend in every respect but the kernels: nothing may fall back to the plain loops of reference_backend.
struct somebodys_backend : atmanrl::host_memory {
  static constexpr std::string_view name = "somebody's";
};
static_assert(atmanrl::Backend<somebodys_backend>);

void use(somebodys_backend& backend, atmanrl::view<float, 2> x, atmanrl::view<float, 1> gain) {
  atmanrl::rms_norm(backend, x, gain, 1e-5f, x, gain);
}
