// expect: atmanrl: the communicator has no `atmanrl::comm::traffic volume\(\) const`
#include <atmanrl/comm/any.hpp>

struct does_not_count {
  int rank() const { return 0; }
  int size() const { return 1; }
  void exchange(std::span<std::byte const>, std::span<std::size_t const>, std::span<std::byte>,
                std::span<std::size_t const>) {}
  void all_gather(std::span<std::byte const>, std::span<std::byte>, std::span<std::size_t const>) {}
  void barrier() {}
};
void share(does_not_count& c) { atmanrl::comm::any ranks(c); }
