// expect: atmanrl: the communicator has no `void exchange\(std::span<std::byte const> sent, std::span<std::size_t const> sent_bytes
#include <atmanrl/comm/typed.hpp>

struct only_gathers {
  int rank() const { return 0; }
  int size() const { return 1; }
  void all_gather(std::span<std::byte const>, std::span<std::byte>, std::span<std::size_t const>) {}
  void barrier() {}
  atmanrl::comm::traffic volume() const { return {}; }
};
void gather(only_gathers& c) { atmanrl::comm::all_gather<float>(c, {}); }
