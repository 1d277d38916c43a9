#pragma once

/// \file
/// Has a body that no unit of the compiled library includes.

namespace atmanrl {

int answer();

#if ATMANRL_BODIES

inline int answer() { return 42; }

#endif

}  // namespace atmanrl
