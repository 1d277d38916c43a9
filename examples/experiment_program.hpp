#pragma once
// The experiment programs: traits name the parts, options the numbers.
#include <atmanrl/experiment/experiment.hpp>

#include "terminal/run_display.hpp"

#include <string>
#include <string_view>

/// \tparam Traits  a template over the backend
template <template <class> class Traits>
struct experiment_program {
  using options = atmanrl::experiment_options;
  template <class B>
  static int run(options const& o, atmanrl::comm::any_on<B> ranks) {
    terminal::run_display display;
    return atmanrl::experiment<Traits<B>>(o, ranks).run(display);
  }
};

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
