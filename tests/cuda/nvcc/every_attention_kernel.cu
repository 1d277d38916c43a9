// The attention kernels for float with keys and values in float and bf16, without an edit and with a mask that is
// learned: what nvcc.py compiles and measures. It is the second unit of the program that shows that two units link.
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/cuda.hpp>

using namespace atmanrl;

void use_every_kernel(cuda_backend& b);

namespace {

template <class K, class Params>
void use_attention(cuda_backend& b, Params params) {
  attention_extents const e{};
  view<float, 3, device_space> const rows;
  view<float, 2, device_space> const few;
  view<K, 3, device_space> const cache;
  attention_plan<device_space> const plan{};
  append_keys_and_values(b, e, rows, {}, cache, cache);
  attention_forward(b, e, rows, cache, cache, plan, params, nullptr, rows, few);
  attention_forward(b, e, rows, cache, cache, plan, params, nullptr, rows, few, view<bf16, 3, device_space>());
  attention_backward(b, e, rows, cache, cache, plan, params, nullptr, rows, few, rows, rows, few);
  mean_attention(b, e, rows, cache, few, plan, params, nullptr, few);
}

}  // namespace

int main(int argc, char**) {
  if (argc < 2) return 0;
  cuda_backend b;
  use_every_kernel(b);
  use_attention<float>(b, attention::none::params_type{});
  use_attention<bf16>(b, attention::none::params_type{});
  use_attention<float>(b, attention::learned_mask<cuda_backend>::params_type{});
  use_attention<bf16>(b, attention::learned_mask<cuda_backend>::params_type{});
}
