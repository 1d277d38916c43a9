#pragma once
// The experiment on a GPU. It is compiled by nvcc, in a unit of its own; a program that was built without nvcc says so.
#include <atmanrl/comm/any.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/run_hooks.hpp>

#include <string>
#include <string_view>

/// \throws atmanrl::usage_error in one sentence where there is no usable device or no CUDA in the program
int run_on_cuda(atmanrl::experiment_options const& options, atmanrl::comm::any ranks, atmanrl::run_hooks& hooks);

/// The same in the library of that name, which `run_on_cuda` loads.
extern "C" int gsm8k_experiment_on_cuda(atmanrl::experiment_options const& options, atmanrl::comm::any ranks,
                                        atmanrl::run_hooks& hooks);

/// Takes --backend NAME out of the command line; the last one counts, and without one it is "cpu".
inline std::string take_backend(int& argc, char** argv) {
  std::string backend = "cpu";
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    std::string_view const word = argv[i];
    if (word == "--backend" && i + 1 < argc)
      backend = argv[++i];
    else if (word.starts_with("--backend="))
      backend = word.substr(10);
    else
      argv[kept++] = argv[i];
  }
  argc = kept;
  atmanrl::expects<atmanrl::usage_error>(backend == "cpu" || backend == "cuda",
                                         "--backend is \"{}\", it must be cpu or cuda", backend);
  return backend;
}
