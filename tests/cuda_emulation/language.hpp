#pragma once
// What nvcc adds to the language: qualifiers, vector types and the built-in variables.
#include <cstdint>
// Not <cmath>: its C++ wrapper brings exp(float) and sqrt(float) into the global namespace, as device code has them.
#include <math.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// __noinline__ is left out: libstdc++ writes __attribute__((__noinline__)), which the macro would break.

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

#define ATMANRL_EMULATED_VECTOR(T, name)                     \
  struct alignas(2 * sizeof(T)) name##2 {                    \
    T x, y;                                                  \
  };                                                         \
  struct alignas(4 * sizeof(T)) name##4 {                    \
    T x, y, z, w;                                            \
  };                                                         \
  inline name##2 make_##name##2(T a, T b) { return {a, b}; } \
  inline name##4 make_##name##4(T a, T b, T c, T d) { return {a, b, c, d}; }
ATMANRL_EMULATED_VECTOR(float, float)
ATMANRL_EMULATED_VECTOR(int, int)
ATMANRL_EMULATED_VECTOR(unsigned, uint)
#undef ATMANRL_EMULATED_VECTOR
struct alignas(16) double2 {
  double x, y;
};
inline double2 make_double2(double a, double b) { return {a, b}; }

// One kernel runs at a time, and one thread of it, so these are plain variables.
inline uint3 threadIdx{}, blockIdx{};
inline dim3 blockDim{}, gridDim{};
inline constexpr int warpSize = 32;
