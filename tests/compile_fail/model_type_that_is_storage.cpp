// expect: atmanrl: on this backend bfloat16 is what a float model's matrices are stored as
#include <atmanrl/llama.hpp>

using half = atmanrl::llama<atmanrl::cpu_backend, atmanrl::bf16>;
static_assert(sizeof(half) > 0);
