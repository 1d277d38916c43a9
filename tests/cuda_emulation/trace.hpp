#pragma once
// What the tracer counted. trace.cpp is linked into the traced programs only.
#include <cstdint>
#include <string>
#include <vector>

namespace cuda_emulation::trace {

/// Accesses of one line of a kernel, counted by requests of whole warps.
struct line {
  std::string place;  ///< file:line
  bool shared = false, write = false, atomic = false;
  unsigned bytes = 0;  ///< of one thread's access, the smallest of the line
  std::uint64_t requests = 0;
  std::uint64_t transfers = 0;  ///< sectors of 32 bytes of device memory, or passes over the banks of shared memory
  std::uint64_t ideal = 0;      ///< the least that so many bytes need

  double excess() const { return double(transfers) / double(ideal); }
};

/// The lines counted since the last call. Weak, so that a program without the tracer finds a null address.
std::vector<line> take_lines() __attribute__((weak));

}  // namespace cuda_emulation::trace
