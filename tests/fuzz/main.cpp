// One program for all targets, because their headers take most of the time of compiling:
//   fuzz TARGET [libFuzzer's options and folders]   fuzz --list   fuzz TARGET --seeds FOLDER   fuzz TARGET --repeat N
#include "fuzz/harness.hpp"

#include <atmanrl/core/random.hpp>

#include <sanitizer/allocator_interface.h>

#include <cstring>
#include <ctime>
#include <fstream>

namespace {

using namespace atmanrl_fuzz;

target const* chosen = nullptr;
std::size_t most_at_once = 0;  // 0: not watched
constexpr double seconds_for_repeated = 10;

void watch_allocation(void const volatile*, std::size_t bytes) {
  if (most_at_once == 0 || bytes <= most_at_once) return;
  std::size_t const bound = std::exchange(most_at_once, 0);
  broken("an allocation above the bound", fmt::format("{} bytes, bound {}", bytes, bound));
}
void watch_free(void const volatile*) {}

void run_watched(std::string const& input) {
  most_at_once = std::max(chosen->times * input.size(), chosen->fixed_bytes);
  chosen->run(input);
  most_at_once = 0;
}

target const* find_target(std::string_view name) {
  for (target const& t : targets())
    if (name == t.name) return &t;
  return nullptr;
}

/// Runs every seed and writes it. A corpus that is only refused would not get far into the library.
void write_seeds(std::filesystem::path const& folder) {
  std::filesystem::create_directories(folder);
  seeds all;
  chosen->corpus(all);
  std::size_t loaded = 0;
  for (std::size_t i = 0; i < all.all.size(); ++i) {
    std::uint64_t const before = acceptances();
    run_watched(all.all[i]);
    loaded += acceptances() > before;
    std::ofstream(folder / fmt::format("seed-{:04}", i), std::ios::binary) << all.all[i];
  }
  promise(2 * loaded > all.all.size(), "most seeds are not refused");
  std::printf("%s: %zu seeds, %zu of them not refused\n", chosen->name, all.all.size(), loaded);
}

/// Long inputs in which a piece of a seed is repeated: what grows as the square of an input, or worse, takes
/// seconds there. The time is the processor's, so that a busy machine changes nothing.
void repeat_pieces(int rounds) {
  seeds all;
  chosen->corpus(all);
  atmanrl::random_stream random(1, 1);
  for (int round = 0; round < rounds; ++round) {
    std::string const& seed = all.all[std::size_t(random.between(0, int(all.all.size()) - 1))];
    if (seed.empty()) continue;
    auto const at = std::size_t(random.between(0, int(seed.size()) - 1));
    std::string const piece = seed.substr(at, std::size_t(random.between(1, round % 2 ? 4 : 64)));
    std::string input = seed.substr(0, at);
    while (input.size() < chosen->repeated_bytes) input += piece;
    if (round % 4 < 2) input += seed.substr(at + piece.size());
    std::clock_t const begin = std::clock();
    run_watched(input);
    double const seconds = double(std::clock() - begin) / CLOCKS_PER_SEC;
    if (seconds < seconds_for_repeated) continue;
    std::ofstream(fmt::format("slow-{}", chosen->name), std::ios::binary) << input;
    broken("an input takes too long",
           fmt::format("{:.1f} s, \"{}\" is repeated in it", seconds, atmanrl::detail::printable(piece)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  if (*argc > 1 && std::string_view((*argv)[1]) == "--list") {
    for (target const& t : targets()) std::puts(t.name);
    std::exit(0);
  }
  // Programs that libFuzzer starts for a part of its work are not given the name.
  char const* const inherited = std::getenv("ATMANRL_FUZZ_TARGET");
  chosen = *argc > 1 ? find_target((*argv)[1]) : nullptr;
  if (chosen) {
    std::copy(*argv + 2, *argv + *argc + 1, *argv + 1);
    --*argc;
    ::setenv("ATMANRL_FUZZ_TARGET", chosen->name, 1);
  } else if (inherited) {
    chosen = find_target(inherited);
  }
  if (!chosen) {
    std::fputs("the first argument must be a target; --list prints them\n", stderr);
    std::exit(2);
  }
  __sanitizer_install_malloc_and_free_hooks(watch_allocation, watch_free);
  if (*argc > 2 && std::string_view((*argv)[1]) == "--seeds") {
    write_seeds((*argv)[2]);
    std::exit(0);
  }
  if (*argc > 2 && std::string_view((*argv)[1]) == "--repeat") {
    repeat_pieces(std::atoi((*argv)[2]));
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  run_watched(std::string(reinterpret_cast<char const*>(data), size));
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed) {
  if (!chosen->mutate) return LLVMFuzzerMutate(data, size, most);
  std::string bytes(reinterpret_cast<char const*>(data), size);
  chosen->mutate(bytes, most, seed);
  if (bytes.size() > most) bytes.resize(most);
  std::memcpy(data, bytes.data(), bytes.size());
  return bytes.size();
}
