#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"

namespace build_test {

using namespace atmanrl::cpu;

TEST_CASE("build_note: says what the processor has beyond the program, and nothing where there is no more") {
  using enum instructions;
  CHECK(build_note(avx512, avx512, "") == "");
  CHECK(build_note(avx512_bf16, avx2, "") == "");
  CHECK(build_note(plain, avx512_bf16, "") ==
        "note: this program was compiled for plain vectors, but the processor has AVX-512 with bf16 products: compile "
        "it with -march=native");
  CHECK_THAT(build_note(neon, neon_bf16, ""),
             ATMANRL_CONTAINS("compiled for NEON, but the processor has NEON with bf16"));
  CHECK(build_note(avx2, avx2, "avx2") == "note: kernels for AVX2 (ATMANRL_CPU=avx2)");
  CHECK(build_note(avx2, avx512, "avx2") == "note: kernels for AVX2 (ATMANRL_CPU=avx2); the processor has AVX-512");
  CHECK(build_note(avx512, avx512, "avx2") ==
        "note: ATMANRL_CPU is avx2, but this program has kernels for AVX-512 alone (avx512)");
  // This test runs, so the processor has what it was compiled for.
  CHECK(offered() >= compiled_for());
  CHECK((compiled_for() >= avx512) == (atmanrl::simd::lanes == 16));
  CHECK((compiled_for() == avx512_bf16) == atmanrl::simd::has_dot_bf16);
  CHECK((compiled_for() == neon_bf16) == bfmmla::has_instructions);
  std::string const start = atmanrl::cpu_backend::build_note();
  CHECK(start.starts_with(build_note()));
  CHECK(start.ends_with(amx_note()));
  CHECK((start == "") == (build_note() == "" && amx_note() == ""));
  CHECK(lines_of({"", "one", "", "two"}) == "one\ntwo");
}

}  // namespace build_test
