// expect: atmanrl: not a Communicator: write `int rank\(\) const` and `int size\(\) const`
#include <atmanrl/comm/agreement.hpp>

struct changes_its_rank {
  int rank() { return 0; }
  int size() { return 1; }
  void exchange(std::span<std::byte const>, std::span<std::size_t const>, std::span<std::byte>,
                std::span<std::size_t const>) {}
  void all_gather(std::span<std::byte const>, std::span<std::byte>, std::span<std::size_t const>) {}
  void barrier() {}
  atmanrl::comm::traffic volume() const { return {}; }
};
void ask(changes_its_rank& c) { atmanrl::comm::status(c, ""); }
