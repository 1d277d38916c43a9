#pragma once

/// \file
/// What every backend promises (docs/extending.md#backends): memory that keeps what is put into it, and operations that
/// are those of plain loops, up to rounding. `check_backend` asks for the eight that a forward and a backward pass of
/// Llama take; the others have checks of their own, since a backend may leave them out.

#include <atmanrl/testing/operations.hpp>

#include <numeric>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// Memory keeps what is put into it, zeros are zeros, and what was taken is given back.
/// \throws broken_promise
template <Backend B>
void check_memory(B& backend) {
  std::string_view const name = B::name;
  std::size_t const before = backend.allocated_bytes();
  {
    std::vector<int> values(1001);
    std::iota(values.begin(), values.end(), -3);
    tensor<B, int, 1> from(backend, {1001}), to(backend, {1001});
    from.assign(values);
    to.fill_zero();
    std::vector<int> const zeros = to.to_host();
    backend.copy(to.data(), from.data(), values.size() * sizeof(int));
    backend.synchronize();
    expects<broken_promise>(from.to_host() == values && to.to_host() == values,
                            "{}: 1001 numbers are others when they come back from its memory", name);
    expects<broken_promise>(zeros == std::vector<int>(1001), "{}: memory that was filled with zeros holds others",
                            name);
    expects<broken_promise>(backend.allocated_bytes() >= before + 2 * 1001 * sizeof(int) &&
                                backend.peak_bytes() >= backend.allocated_bytes(),
                            "{}: allocated_bytes() is {} and peak_bytes() {} where {} bytes more than {} are held",
                            name, backend.allocated_bytes(), backend.peak_bytes(), 2 * 1001 * sizeof(int), before);
  }
  expects<broken_promise>(backend.allocated_bytes() == before,
                          "{}: allocated_bytes() is {} before two arrays are made and {} when they are gone", name,
                          before, backend.allocated_bytes());
}

/// Memory, and the operations of a model: matmul, embedding, elementwise, rms_norm, rope, attention, swiglu, log_prob.
/// \tparam T  what it computes in
/// \throws broken_promise
template <class T = float, Backend B>
void check_backend(B& backend, backend_check const& options = {}) {
  check_memory(backend);
  auto const compare = [&](std::string_view operation, auto const& f) {
    compare_with_plain_loops<T>(backend, operation, f, options);
  };
  for (index_t const rows : {1, 3, 17}) {
    compare("matmul", [&](auto& b, auto t) { return detail::matmul_of(b, t, rows, 37, 19); });
    compare("matmul", [&](auto& b, auto t) { return detail::matmul_of(b, t, rows, 64, 32); });
    compare("elementwise", [&](auto& b, auto t) { return detail::elementwise_of(b, t, rows, 21); });
    compare("rms_norm", [&](auto& b, auto t) { return detail::rms_norm_of(b, t, rows, 37); });
    compare("swiglu", [&](auto& b, auto t) { return detail::swiglu_of(b, t, rows, 21); });
    for (index_t const vocabulary : {7, 1031})
      compare("log_prob", [&](auto& b, auto t) { return detail::log_prob_of(b, t, rows, vocabulary); });
  }
  for (index_t const dim : {1, 24, 33})
    compare("embedding", [&](auto& b, auto t) { return detail::embedding_of(b, t, dim); });
  for (rotation const direction : {rotation::forward, rotation::inverse})
    for (index_t const half : {1, 4, 16})
      compare("rope", [&](auto& b, auto t) { return detail::rope_of(b, t, half, direction); });
  for (index_t const head_dim : options.head_dims) {
    tree_problem const p(ragged_trees(), 4, 2, head_dim, 1);
    distance_factors const edit{.layers = 2, .heads = 4};
    compare("attention", [&](auto& b, auto t) {
      return detail::attention_of<false, decltype(t)>(b, p, attention::none{}.params(), {});
    });
    compare("attention under an edit", [&](auto& b, auto t) {
      return detail::attention_of<false, decltype(t)>(b, p, edit.params(), random_values(8, 7, 0.3));
    });
  }
}

/// The gated feed-forward layers of blocks that are not Llama's.
/// \throws broken_promise
template <class T = float, Backend B>
void check_gated(B& backend, backend_check const& options = {}) {
  for (index_t const rows : {1, 17})
    compare_with_plain_loops<T>(
        backend, "gated", [&](auto& b, auto t) { return detail::gated_of(b, t, rows, 21); }, options);
}

/// The mean over heads that attention rollout takes.
/// \throws broken_promise
template <class T = float, Backend B>
void check_mean_attention(B& backend, backend_check const& options = {}) {
  for (index_t const head_dim : options.head_dims) {
    tree_problem const p(ragged_trees(), 4, 2, head_dim, 1);
    auto const f = [&](auto& b, auto t) {
      return detail::attention_of<true, decltype(t)>(b, p, attention::none{}.params(), {});
    };
    compare_with_plain_loops<T>(backend, "mean_attention", f, options);
  }
}

/// Steps of adamw, sgd and lion.
/// \throws broken_promise
template <class T = float, Backend B>
void check_optimizer_steps(B& backend, backend_check const& options = {}) {
  for (index_t const count : {1, 8, 1003})
    compare_with_plain_loops<T>(
        backend, "optimizer steps", [&](auto& b, auto t) { return detail::optimizer_steps_of(b, t, count); }, options);
}

/// Drawing tokens from logits and scoring them. The tokens are those of plain loops.
/// \throws broken_promise
template <class T = float, Backend B>
void check_sampling(B& backend, backend_check const& options = {}) {
  for (sample_form const& form :
       {sample_form{}, sample_form{.top_k = 5}, sample_form{.top_p = 0.7}, sample_form{.min_p = 0.1}})
    compare_with_plain_loops<T>(
        backend, "sampling", [&](auto& b, auto t) { return detail::sampling_of(b, t, form); }, options);
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
