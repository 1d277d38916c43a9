// One program for all targets, because their headers take most of the time of compiling:
//   fuzz TARGET [libFuzzer's options and folders]   fuzz --list   fuzz TARGET --seeds FOLDER
#include "fuzz/harness.hpp"

#include <sanitizer/allocator_interface.h>

#include <cstring>
#include <fstream>

namespace {

using namespace atmanrl_fuzz;

target const* chosen = nullptr;
std::size_t most_at_once = 0;  // 0: not watched

void watch_allocation(void const volatile*, std::size_t bytes) {
  if (most_at_once == 0 || bytes <= most_at_once) return;
  std::size_t const bound = std::exchange(most_at_once, 0);
  broken("an allocation above the bound", fmt::format("{} bytes, bound {}", bytes, bound));
}
void watch_free(void const volatile*) {}

void run_watched(std::string const& input) {
  most_at_once = std::max(4 * input.size(), chosen->fixed_bytes);
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
