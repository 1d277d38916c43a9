// What one unit does with the backend of another.
#include <atmanrl/cpu/cpu_backend.hpp>

int threads_of(atmanrl::cpu_backend const& backend) { return backend.threads(); }
