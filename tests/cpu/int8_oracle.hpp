#pragma once
// Products of bytes in plain loops, bit by bit: activations rounded by the processor's own rounding, sums of whole
// numbers, and one chain over the groups.
#include <atmanrl/cpu/cpu_backend.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace atmanrl_test {

using namespace atmanrl;

/// 32 activations as the option rounds them.
struct rounded_group {
  float d = 0;
  int numbers[32] = {};
};
inline rounded_group rounded(float const* x) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(x[i]));
  rounded_group g;
  g.d = largest / 127;
  if (g.d > 0)
    for (int i = 0; i < 32; ++i) g.numbers[i] = int(std::nearbyint(double(x[i]) * double(1 / g.d)));
  return g;
}

/// x Wᵀ for rows of x and a weight whose panels are all quantised.
inline std::vector<float> int8_oracle(weight_view<cpu_backend, float> w, std::vector<float> const& x) {
  auto const fma = [](float a, float b, float c) {  // as the build has it
    return simd::fma(simd::broadcast(a), simd::broadcast(b), simd::broadcast(c))[0];
  };
  auto const centre_of = [](gguf_type type) {
    switch (type) {
      case gguf_type::q8_0:
        return 128;
      case gguf_type::q4_0:
        return 8;
      case gguf_type::q5_0:
        return 16;
      case gguf_type::q6_k:
        return 32;
      default:
        return 0;
    }
  };
  index_t const rows = index_t(x.size()) / w.inputs;
  std::vector<float> y(std::size_t(rows * w.outputs));
  for (index_t p = 0; p < cpu::panels(w.outputs); ++p) {
    cpu::packed_panel_functions const& of = cpu::functions_of(w.packed[p].type);
    int const centre = centre_of(w.packed[p].type), part = int(32 / of.scales);
    for (index_t g = 0; g < w.inputs / 32; ++g) {
      cpu::int8_group group;
      of.int8_take(w.packed[p].bytes, g, group);
      for (index_t r = 0; r < rows; ++r) {
        rounded_group const row = rounded(x.data() + r * w.inputs + g * 32);
        int all = 0;
        for (int const n : row.numbers) all += n;
        for (index_t lane = 0; lane < std::min(cpu::panel_width, w.outputs - p * cpu::panel_width); ++lane) {
          float& sum = y[std::size_t(r * w.outputs + p * cpu::panel_width + lane)];
          for (int h = 0; h < of.scales; ++h) {
            std::int32_t whole = 0;
            for (int i = h * part; i < (h + 1) * part; ++i) {
              std::uint32_t const quad = group.numbers[std::size_t(i / 4 * cpu::panel_width + lane)];
              whole += row.numbers[i] * (int(quad >> i % 4 * 8 & 255u) - centre);
            }
            float product = group.step[std::size_t(h * cpu::panel_width + lane)] * float(whole);
            if (of.affine) product = fma(group.offset[std::size_t(lane)], float(all), product);
            sum = fma(row.d, product, sum);
          }
        }
      }
    }
  }
  return y;
}

}  // namespace atmanrl_test
