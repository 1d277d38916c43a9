#include <atmanrl/backend/machine_memory.hpp>
#include <atmanrl/backend/reference_backend.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace machine_memory_test {
namespace {

constexpr std::size_t gib = std::size_t{1} << 30;

void put_below(std::filesystem::path const& root, char const* name, std::string const& text) {
  std::filesystem::create_directories((root / name).parent_path());
  put(root / name, text);
}

}  // namespace

TEST_CASE("machine_memory: memory and swap of the machine, or what the control group and those above it allow") {
  scratch_folder const root;
  CHECK(machine_memory_bytes(root.path()) == 0);
  put_below(root.path(), "proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 5 kB\nSwapTotal:       2097152 kB\n");
  CHECK(machine_memory_bytes(root.path()) == 18 * gib);

  put_below(root.path(), "proc/self/cgroup", "0::/user/run\n");
  put_below(root.path(), "sys/fs/cgroup/user/run/memory.max", "max\n");
  CHECK(machine_memory_bytes(root.path()) == 18 * gib);
  put_below(root.path(), "sys/fs/cgroup/user/memory.max", "4294967296\n");
  CHECK(machine_memory_bytes(root.path()) == 6 * gib);
  put_below(root.path(), "sys/fs/cgroup/memory.max", "3221225472\n");
  CHECK(machine_memory_bytes(root.path()) == 5 * gib);

  put_below(root.path(), "proc/self/cgroup", "5:cpu:/elsewhere\n4:memory:/box\n");
  put_below(root.path(), "sys/fs/cgroup/memory/box/memory.limit_in_bytes", "1073741824\n");
  put_below(root.path(), "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(machine_memory_bytes(root.path()) == 3 * gib);
}

TEST_CASE("machine_memory: this machine has some, and a backend on the host takes from it") {
  reference_backend const backend;
  CHECK(detail::memory_of(backend) == machine_memory_bytes());
#if defined(__linux__)
  CHECK(machine_memory_bytes() > (std::size_t{64} << 20));
#endif
}

}  // namespace machine_memory_test
