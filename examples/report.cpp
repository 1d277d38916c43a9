// Writes report.html into the folder of a run again, or into those of several: report runs/FOLDER...
#include <atmanrl/report/run_page.hpp>

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

#include "terminal/standard_streams.hpp"

int main(int argc, char** argv) {
  terminal::open_closed_standard_streams();
  bool const help = argc == 2 && std::string_view(argv[1]).starts_with("-");
  if (argc < 2 || help) {
    terminal::print_if_possible(help ? stdout : stderr,
                                "report FOLDER...: writes the page of each run, report.html, into its folder\n");
    return help ? 0 : 2;
  }
  try {
    for (int i = 1; i < argc; ++i) {
      atmanrl::write_run_page(argv[i]);
      terminal::print_if_possible(stdout, (std::filesystem::path(argv[i]) / "report.html").string() + "\n");
    }
    return 0;
  } catch (std::exception const& e) {
    terminal::print_if_possible(stderr, std::string(e.what()) + "\n");
    return 2;
  }
}
