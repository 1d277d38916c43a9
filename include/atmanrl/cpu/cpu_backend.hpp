#pragma once

/// \file
/// The CPU backend: packed-panel matrix products and vectorised kernels on a pool of threads. This header alone makes
/// `cpu_backend` complete, and it names every kernel, so that all translation units see the same specialisations. Units
/// that were compiled for different instructions see different kernels; their backends are different types, in inline
/// namespaces of their own (core/config.hpp), so what one unit makes for its backend does not link with the other's.

#include <atmanrl/backend/backend.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/adamw.hpp>
#include <atmanrl/cpu/attention.hpp>
#include <atmanrl/cpu/build.hpp>
#include <atmanrl/cpu/elementwise.hpp>
#include <atmanrl/cpu/embedding.hpp>
#include <atmanrl/cpu/gated.hpp>
#include <atmanrl/cpu/lion.hpp>
#include <atmanrl/cpu/log_prob.hpp>
#include <atmanrl/cpu/matmul.hpp>
#include <atmanrl/cpu/mean_attention.hpp>
#include <atmanrl/cpu/rms_norm.hpp>
#include <atmanrl/cpu/rope.hpp>
#include <atmanrl/cpu/sample.hpp>
#include <atmanrl/cpu/sgd.hpp>
#include <atmanrl/cpu/swiglu.hpp>
#include <atmanrl/cpu/threads.hpp>

namespace atmanrl::inline ATMANRL_ABI::inline ATMANRL_CPU_BUILD {

/// Computes in float, with weights in float or bf16. A row's results have the same bits whatever rows it is batched
/// with and however many threads run (the bit rule, docs/architecture.md); builds for different processors differ, and
/// so do `bf16_products`.
class cpu_backend : public cpu_threads {
 public:
  static constexpr std::string_view name = "cpu";

  explicit cpu_backend(cpu_options options = {}) : cpu_threads(options) {}

  /// What a user should know of program and machine, a line each: that the program was compiled for less than the
  /// processor has; that the system does not permit AMX. Else nothing.
  static std::string build_note() { return cpu::lines_of({cpu::build_note(), cpu::amx_note()}); }

  /// That, and how this backend computes: products, where weights are stored as bf16, and gradients of weights, where
  /// not in float.
  std::string start_note(bool bf16_weights) const {
    return cpu::lines_of({build_note(), bf16_weights ? cpu::products_note(products()) : std::string(),
                          cpu::gradients_note(gradients(), products())});
  }
};
static_assert(HostBackend<cpu_backend>);

}  // namespace atmanrl::inline ATMANRL_ABI::inline ATMANRL_CPU_BUILD
