#pragma once
// A program's work on the backend that its command line names. The work is a type:
//   struct program {
//     using options = ...;                                        // with a member `device`
//     template <class B> static int run(options const&, atmanrl::comm::any_on<B>);  // returns the exit status
//   };
// Only here and in on_cuda/ does a program name its backends.
#include <atmanrl/comm/any.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include <CLI/CLI.hpp>

#include "backend_options.hpp"
#include "on_cuda/on_cuda.hpp"

#include <string>

/// The options of backend_options, except --threads, for programs with options of their own.
inline void add_backend_options(CLI::App& app, backend_options& o) {
  app.add_option("--backend", o.backend, "cpu, or cuda: on a GPU")->capture_default_str();
  app.add_option("--device", o.device,
                 "number of the GPU, from 0; of several processes on a machine each takes the next")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--tf32", o.tf32, "on a GPU: products of floats on matrix units, with 10 bits of mantissa (TF32)");
  app.add_option_function<std::string>(
         "--bf16-weight-gradients",
         [&o](std::string const& text) {
           o.bf16_weight_gradients.reset();
           if (text != "auto") o.bf16_weight_gradients = text == "true";
         },
         "on a GPU: true rounds the factors of weights' gradients to bf16; auto: where the weights are bf16")
      ->default_str("auto")
      ->check(CLI::IsMember({"auto", "true", "false"}));
}

/// `Program::run` on that backend.
/// \param name     of the program, by which the library that nvcc compiled knows it
/// \param backend  cpu or cuda
/// \throws atmanrl::usage_error in one sentence for another backend, or where there is no usable device or no CUDA in
/// the program; before anything is read or written
template <class Program>
int with_backend(char const* name, std::string const& backend, typename Program::options const& o,
                 atmanrl::comm::any ranks = {}) {
  if constexpr (std::derived_from<typename Program::options, backend_options>) check(o);
  if (backend == "cuda") return run_on_cuda(name, &o, ranks);
  atmanrl::expects<atmanrl::usage_error>(backend == "cpu", "--backend is \"{}\", it must be cpu or cuda", backend);
  return Program::template run<atmanrl::cpu_backend>(o, ranks);
}
