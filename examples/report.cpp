// Writes report.html into the folder of a run again, or into those of several: report runs/FOLDER...
#include <atmanrl/experiment/report/run_page.hpp>

#include <fmt/format.h>

#include <cstdio>

int main(int argc, char** argv) {
  bool const help = argc == 2 && std::string_view(argv[1]).starts_with("-");
  if (argc < 2 || help) {
    fmt::print(help ? stdout : stderr, "report FOLDER...: writes the page of each run, report.html, into its folder\n");
    return help ? 0 : 2;
  }
  try {
    for (int i = 1; i < argc; ++i) {
      atmanrl::write_run_page(argv[i]);
      fmt::print("{}\n", (std::filesystem::path(argv[i]) / "report.html").string());
    }
    return 0;
  } catch (std::exception const& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 2;
  }
}
