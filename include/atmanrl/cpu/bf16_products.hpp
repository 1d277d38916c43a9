#pragma once

/// \file
/// Which instructions compute products with bf16 weights. The ways differ in speed and in bits; which is the fastest is
/// decided here, by what was measured, for each maker of processors.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/cpu/bfmmla_unit.hpp>
#include <atmanrl/cpu/processor.hpp>
#include <atmanrl/cpu/simd.hpp>

#include <array>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// The ways, as --bf16-products calls them, in the order of `bf16_products`. One object for all builds.
inline constexpr std::array<std::string_view, 7> bf16_products_names{"auto",     "floats", "pairs",      "amx",
                                                                     "amx_twin", "bfmmla", "bfmmla_twin"};

inline namespace ATMANRL_CPU_BUILD {

enum class bf16_products {
  by_processor,  ///< one of the next four that are no twin, as `cpu::fastest_products` has it
  floats,        ///< weights widened exactly, times float activations
  pairs,         ///< activations rounded to bf16, VDPBF16PS; in attention, too
  amx,           ///< activations rounded to bf16, TDPBF16PS; in attention, too
  amx_twin,      ///< the bits of `amx` on any machine, hundreds of times slower: to repeat and to test
  bfmmla,        ///< activations rounded to bf16, BFMMLA; attention in float
  bfmmla_twin,   ///< the bits of `bfmmla` on any machine, as slow
};

/// How gradients of weights, float or bf16, are computed from float activations and output gradients. The other ways
/// than `floats` use AMX, are no part of `by_processor`, and keep the bits of a whole batch only for micro-batches of
/// multiples of 32 rows (cpu/amx_gradient.hpp).
enum class weight_gradients {
  floats,
  split,    ///< two bf16 numbers for each float and three products: errors up to 2^-16
  rounded,  ///< one bf16 number for each float: errors up to 2^-8
};

}  // namespace ATMANRL_CPU_BUILD

namespace cpu::inline ATMANRL_CPU_BUILD {

constexpr std::string_view text(bf16_products p) { return bf16_products_names[std::size_t(p)]; }

/// The instructions for bfloat16 that a program was compiled for, on a processor that has them.
struct compiled_products {
  bool pairs = simd::has_dot_bf16;         ///< VDPBF16PS
  bool bfmmla = bfmmla::has_instructions;  ///< BFMMLA
};

/// \return what is fastest: `floats`, `pairs`, `amx` or `bfmmla`
constexpr bf16_products fastest_products(processor const& p, compiled_products compiled) {
  // Not measured. BFMMLA does 16 multiply-adds where a NEON instruction does 4.
  if (compiled.bfmmla) return bf16_products::bfmmla;
  switch (p.vendor) {
    case vendor::amd:  // one VDPBF16PS does two multiply-adds in the time of one (Zen 4 and 5: docs/performance.md)
      return compiled.pairs ? bf16_products::pairs : bf16_products::floats;
    case vendor::intel:  // VDPBF16PS is slower than multiply-adds of floats, TDPBF16PS several times faster
      return p.amx == amx_access::granted ? bf16_products::amx : bf16_products::floats;
    case vendor::other:  // nothing measured
      break;
  }
  return bf16_products::floats;
}

/// What a backend uses.
/// \param called  what the user calls `wanted`
/// \throws usage_error  if `wanted` is not to be had here, or contradicts `exact`, which keeps activations in float
inline bf16_products chosen_products(bf16_products wanted, bool exact, processor const& p = this_processor(),
                                     compiled_products compiled = {}, std::string_view called = "products") {
  using enum bf16_products;
  if (wanted == by_processor) return exact ? floats : fastest_products(p, compiled);
  expects<usage_error>(wanted == floats || !exact, "{} is {}, which rounds activations, but they are to be exact",
                       called, text(wanted));
  expects<usage_error>(wanted != pairs || compiled.pairs,
                       "{} is pairs, but this program was not compiled for AVX-512 with bf16 products", called);
  expects<usage_error>(wanted != bf16_products::bfmmla || compiled.bfmmla,
                       "{} is bfmmla, but this program was not compiled for Arm's bf16 instructions", called);
  expects<usage_error>(wanted != bf16_products::amx || p.amx == amx_access::granted, "{} is amx, but {}", called,
                       p.amx == amx_access::none ? "this processor has none" : "the system does not permit it");
  return wanted;
}

/// \param called  what the user calls such gradients
/// \throws usage_error  if gradients are to be computed by AMX and products are not
inline weight_gradients checked_gradients(weight_gradients wanted, bf16_products used,
                                          std::string_view called = "weight gradients other than floats") {
  expects<usage_error>(
      wanted == weight_gradients::floats || used == bf16_products::amx || used == bf16_products::amx_twin,
      "{} need products by amx or amx_twin, not {}", called, text(used));
  return wanted;
}

/// \return a sentence where the system keeps AMX from the program, else nothing
inline std::string amx_note(processor const& p = this_processor()) {
  if (p.vendor != vendor::intel || p.amx != amx_access::refused) return {};
  return "note: the system does not let this program use AMX, so products with bf16 weights are computed in float, "
         "several times slower";
}

/// \param used  by a backend
/// \return a sentence for the start of a program whose weights are bf16: bits and speed depend on it
inline std::string products_note(bf16_products used, processor const& p = this_processor(),
                                 compiled_products compiled = {}) {
  std::string const start = "note: products with bf16 weights ", rounded = "; they round activations to bf16";
  switch (used) {
    case bf16_products::pairs:
      return start + "use VDPBF16PS (pairs)" + rounded;
    case bf16_products::amx:
      return start + "use AMX (amx)" + rounded;
    case bf16_products::bfmmla:
      return start + "use BFMMLA (bfmmla)" + rounded;
    case bf16_products::amx_twin:
      return start + "have the bits of AMX's, by plain code (amx_twin)" + rounded;
    case bf16_products::bfmmla_twin:
      return start + "have the bits of BFMMLA's, by plain code (bfmmla_twin)" + rounded;
    case bf16_products::by_processor:
    case bf16_products::floats:
      break;
  }
  bool const left_out = compiled.pairs && fastest_products(p, compiled) == bf16_products::floats;
  return start + "are computed in float (floats)" +
         (left_out ? "; VDPBF16PS (pairs) is not known to be faster on this processor" : "");
}

/// \param products  that the same backend uses
/// \return a sentence where gradients of weights are not computed in float, else nothing
inline std::string gradients_note(weight_gradients g, bf16_products products) {
  if (g == weight_gradients::floats) return {};
  return std::string("note: gradients of weights ") +
         (products == bf16_products::amx_twin ? "have the bits of AMX's, by plain code (amx_twin)" : "use AMX") +
         ", of floats " + (g == weight_gradients::split ? "split into two bf16 numbers each" : "rounded to bf16");
}

}  // namespace cpu::inline ATMANRL_CPU_BUILD
}  // namespace atmanrl::inline ATMANRL_ABI
