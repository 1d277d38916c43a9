#pragma once

/// \file
/// Has bodies that no unit of the compiled library includes, and names that exist only where bodies do.

#if ATMANRL_BODIES
#  include <atmanrl/core/upwards.hpp>
#endif

namespace atmanrl::inline ATMANRL_ABI {

int answer();

#if ATMANRL_BODIES

inline int answer() { return 42; }

namespace detail {
inline int hidden() { return 1; }
}  // namespace detail

inline int appears() { return 43; }

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
