#pragma once
// In the emulation: a second device, of another compute capability.
#include <atmanrl/cuda/compat.cuh>

#if defined(ATMANRL_CUDA_EMULATION)
namespace atmanrl_test {

/// There is one while this lives.
class device_like {
 public:
  static constexpr int ordinal = 1;
  device_like(int major, int minor) {
    cuda_emulation::devices = 2;
    cuda_emulation::properties_of(ordinal) = {major, minor};
  }
  ~device_like() {
    cuda_emulation::properties_of(ordinal) = {};
    cuda_emulation::devices = 1;
    cuda_emulation::current_device = 0;
  }
  device_like(device_like const&) = delete;
  device_like& operator=(device_like const&) = delete;
};

}  // namespace atmanrl_test
#endif
