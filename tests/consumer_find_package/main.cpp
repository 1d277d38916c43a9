// A user's program: what it includes must be found, compile, link and give the values that are known.
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/random.hpp>
#include <atmanrl/core/view.hpp>
#if __has_include(<atmanrl/grpo.hpp>)
#  include <atmanrl/grpo.hpp>
#endif

#include <cstdio>
#include <cstring>

int main() {
  int passed = 0;

  // Known answer of Philox4x32-10 for an all-zero counter and key (Random123, kat_vectors).
  auto const bits = atmanrl::philox({0, 0, 0, 0}, {0, 0});
  passed += bits[0] == 0x6627e8d5u && bits[1] == 0xe169c58du && bits[2] == 0xbc57ac4cu && bits[3] == 0x9b00dbd8u;

  float numbers[6] = {0, 1, 2, 3, 4, 5};
  atmanrl::view<float, 2> const table{numbers, {2, 3}};
  passed += table(1, 2) == 5 && table.row(1) == numbers + 3;

  try {
    atmanrl::expects<atmanrl::usage_error>(table.size() == 7, "seven wanted, {} given", table.size());
  } catch (atmanrl::usage_error const& e) {
    passed += std::strcmp(e.what(), "seven wanted, 6 given") == 0;
  }

  std::printf("consumer: %d of 3 checks passed\n", passed);
  return passed == 3 ? 0 : 1;
}
