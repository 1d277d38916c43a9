#pragma once
// Programs on a GPU. What nvcc compiles, on_cuda/programs.cu, is one library for all of them; a program that was built
// without nvcc says so.
#include <atmanrl/comm/any.hpp>

/// \param options  the program's own, as its type in with_backend.hpp names them
/// \returns the exit status
/// \throws atmanrl::usage_error in one sentence where there is no usable device or no CUDA in the program
int run_on_cuda(char const* program, void const* options, atmanrl::comm::any ranks);

/// The library has such a function for each program, NAME_on_cuda.
using on_cuda_entry = int(void const* options, atmanrl::comm::any ranks);
