#pragma once

/// \file
/// Which instructions compute products with packed weights where activations are rounded to 8 bits
/// (`cpu_options::int8_products`). All have the same bits: their sums are of whole numbers, and exact. So which is the
/// fastest is chosen by what was measured (docs/performance.md; bench/packed compares bits and time).

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/cpu/processor.hpp>

#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

inline namespace ATMANRL_CPU_BUILD {

enum class byte_products {
  by_processor,  ///< `amx` where the processor has it and the system permits it, else `vectors`
  vectors,       ///< vector instructions: VPDPBUSD where the program was compiled for it
  amx,           ///< TDPBSSD for products of many rows, else `vectors`
  amx_twin,      ///< `amx` in plain code on any machine, hundreds of times slower: to test
};

}  // namespace ATMANRL_CPU_BUILD

namespace cpu::inline ATMANRL_CPU_BUILD {

constexpr std::string_view text(byte_products p) {
  constexpr std::string_view names[] = {"auto", "vectors", "amx", "amx_twin"};
  return names[int(p)];
}

/// What a backend uses.
/// \param used  whether there are such products at all
/// \throws usage_error  if `wanted` is not to be had here, or not used
inline byte_products chosen_byte_products(byte_products wanted, bool used, processor const& p = this_processor()) {
  using enum byte_products;
  // 1.2 to 1.3 times as fast as VPDPBUSD in prefill.
  if (wanted == by_processor)
    return used && p.amx_int8 == amx_access::granted ? byte_products::amx : byte_products::vectors;
  expects<usage_error>(used || wanted == vectors, "int8_instructions is {}, but int8_products is off", text(wanted));
  expects<usage_error>(
      wanted != byte_products::amx || p.amx_int8 == amx_access::granted, "int8_instructions is amx, but {}",
      p.amx_int8 == amx_access::none ? "this processor has none for bytes" : "the system does not permit it");
  return wanted;
}

}  // namespace cpu::inline ATMANRL_CPU_BUILD
}  // namespace atmanrl::inline ATMANRL_ABI
