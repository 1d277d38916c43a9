#pragma once

/// \file
/// The only macros of the library outside the CUDA compatibility header, each with its reason.

// Functions that run inside kernels are marked for both sides when a CUDA compiler reads them.
#if defined(__CUDACC__)
#  define ATMANRL_HOST_DEVICE __host__ __device__
#else
#  define ATMANRL_HOST_DEVICE
#endif

// A loop whose order of additions is ours may not be rewritten by the compiler: the library must be built without
// -ffast-math, because the bit rule (docs/architecture.md) rests on the order in which sums are written.
#if defined(__FAST_MATH__)
#  error \
      "atmanrl: build without -ffast-math; equal bits in sampling and training rest on the written order of additions"
#endif

// The kernels of cpu/ differ with the instructions that a unit is compiled for: length of vectors, layout of panels,
// what is rounded. So whatever is in cpu/ lives in an inline namespace of that name, `atmanrl::cpu_backend` included.
// A function of a backend that one unit calls and another unit, compiled for other instructions, defines is then
// another function: such units do not link, where they would mix two layouts.
#if defined(__AVX512BF16__)
#  define ATMANRL_CPU_BUILD cpu_avx512_bf16
#elif defined(__AVX512F__)
#  define ATMANRL_CPU_BUILD cpu_avx512
#elif defined(__AVX__) && defined(__FMA__)
#  define ATMANRL_CPU_BUILD cpu_avx2  // AVX2 itself makes no difference to them
#elif defined(__AVX__)
#  define ATMANRL_CPU_BUILD cpu_avx
#elif defined(__aarch64__) && defined(__ARM_NEON) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#  define ATMANRL_CPU_BUILD cpu_neon_bf16
#elif defined(__aarch64__) && defined(__ARM_NEON)
#  define ATMANRL_CPU_BUILD cpu_neon
#elif defined(__FP_FAST_FMAF)
#  define ATMANRL_CPU_BUILD cpu_plain_fma
#else
#  define ATMANRL_CPU_BUILD cpu_plain
#endif

// A program that links atmanrl::compiled is compiled with ATMANRL_COMPILED: it sees the declarations of what that
// library holds, and not the bodies, which are the same in every program. A header that takes part ends with a section
// `#if ATMANRL_BODIES`, whose functions begin with ATMANRL_INLINE; an umbrella header ends with the list of the
// templates that the library holds, each after ATMANRL_TEMPLATE.
// Such functions set up a run or write about it. [[gnu::cold]], here as on the functions that the library holds without
// a declaration of their own, has the compiler look for short code, which takes it less time than fast code.
#if !defined(ATMANRL_COMPILED)
#  define ATMANRL_BODIES 1
#  define ATMANRL_INLINE [[gnu::cold]] inline
#elif defined(ATMANRL_DEFINE_FUNCTIONS)  // the one unit of the library that has the functions
#  define ATMANRL_BODIES 1
#  define ATMANRL_INLINE
#else
#  define ATMANRL_BODIES 0
#  define ATMANRL_INLINE
#endif
#if defined(ATMANRL_DEFINE_TEMPLATES)  // the unit of the library that has the templates
#  define ATMANRL_TEMPLATE template
#else
#  define ATMANRL_TEMPLATE extern template
#endif

// No two versions promise the same layouts and signatures, and a linker keeps one inline function of a name, whichever.
// So all of the library lives in an inline namespace of its version, which programs do not name. Units with headers of
// two versions each have functions of their own, and link into one program; a unit that hands an object of one version
// to a unit of another does not link, nor does a program with atmanrl::compiled of another version than its headers.
#define ATMANRL_VERSION "0.1.0"
#define ATMANRL_ABI v0_1_0
