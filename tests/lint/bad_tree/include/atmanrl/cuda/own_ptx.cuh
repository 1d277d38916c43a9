#pragma once

/// \file
/// An instruction that has no twin.

inline void fence() { asm volatile("membar.gl;"); }
