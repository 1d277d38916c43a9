#pragma once

/// \file
/// The oracle of all tests: every operation as a plain loop, for any scalar. It is slow on purpose.

#include <atmanrl/backend/backend.hpp>
#include <atmanrl/backend/host_memory.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// Plain loops in the order in which the formulas are written; scalars may be float, double, bf16 storage or complex.
class reference_backend : public host_memory {
 public:
  static constexpr std::string_view name = "reference";
};
static_assert(HostBackend<reference_backend>);

}  // namespace atmanrl::inline ATMANRL_ABI
