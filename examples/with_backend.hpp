#pragma once
// A program's work on the backend that its command line names. The work is a type:
//   struct program {
//     using options = ...;                                        // with a member `device`
//     template <class B> static int run(options const&, atmanrl::comm::any_on<B>);  // returns the exit status
//   };
// Only here and in on_cuda/ does a program name its backends; inspect, which has more of them, has a unit for each.
#include <atmanrl/comm/any.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "backend_options.hpp"
#include "on_cuda/on_cuda.hpp"

#include <string>

/// `Program::run` on that backend.
/// \param name     of the program, by which the library that nvcc compiled knows it
/// \param backend  cpu or cuda
/// \throws atmanrl::usage_error in one sentence for another backend, or where there is no usable device or no CUDA in
/// the program; before anything is read or written
template <class Program>
int with_backend(char const* name, std::string const& backend, typename Program::options const& o,
                 atmanrl::comm::any ranks = {}) {
  atmanrl::expects<atmanrl::usage_error>(backend == "cpu" || backend == "cuda",
                                         "--backend is \"{}\", it must be cpu or cuda", backend);
  if constexpr (std::derived_from<typename Program::options, backend_options>) check(o);
  if (backend == "cuda") return run_on_cuda(name, &o, ranks);
  return Program::template run<atmanrl::cpu_backend>(o, ranks);
}
