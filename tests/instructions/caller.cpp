// Two units of one program: compiled for the same instructions they link, else they must not.
#include <atmanrl/cpu/cpu_backend.hpp>

int threads_of(atmanrl::cpu_backend const& backend);

int main() {
  atmanrl::cpu_backend const backend({.threads = 1});
  return threads_of(backend) == 1 ? 0 : 1;
}
