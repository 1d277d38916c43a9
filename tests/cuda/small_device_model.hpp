#pragma once
// The small random models of the nn tests in shapes that the attention kernels know, on any backend.
#include <atmanrl/cuda/cuda_backend.cuh>

#include "nn/small_model.hpp"

namespace atmanrl_test {

/// Extents that are no multiples of a vector, heads that are.
inline model_config device_config() {
  model_config c = small_config();
  c.hidden = 22;
  c.head_dim = 8;
  c.ffn = 13;
  c.vocab = 37;
  return c;
}
inline model_config rich_device_config() {
  model_config c = device_config();
  c.hidden = 24;
  c.tied_head = false;
  c.qkv_bias = true;
  c.rope_scaling.llama3 = true;
  c.rope_scaling.factor = 32;
  c.rope_scaling.original_max_positions = 64;
  return c;
}

/// Reading a tensor as doubles, whatever it holds.
template <class Tensor>
std::vector<double> as_doubles(Tensor const& t) {
  return converted<double>(t.to_host());
}

template <class B, class T>
tensor<B, T, 1> on_backend(B& backend, std::vector<double> const& values) {
  tensor<B, T, 1> t(backend, {index_t(values.size())});
  t.assign(converted<T>(values));
  return t;
}

}  // namespace atmanrl_test
