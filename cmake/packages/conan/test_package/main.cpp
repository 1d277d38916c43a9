// The package's headers are found, and what they need of other libraries links.
#include <atmanrl/core/random.hpp>
#include <atmanrl/grpo.hpp>

#include <cstdio>

int main() {
  // Known answer of Philox4x32-10 for an all-zero counter and key (Random123, kat_vectors).
  bool const right = atmanrl::philox({0, 0, 0, 0}, {0, 0})[0] == 0x6627e8d5u;
  std::puts(right ? "consumer: the known answer" : "consumer: another answer than the known one");
  return right ? 0 : 1;
}
