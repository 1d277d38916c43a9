// A unit of its own, which compiles beside the program's.
#include <atmanrl/experiment/option_names.hpp>
#include <atmanrl/experiment/run_folder.hpp>

#include "../command_line.hpp"

#include "../arguments.hpp"

#include <ctime>
#include <filesystem>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

atmanrl::experiment_options parse_command_line(int argc, char** argv, std::string const& description,
                                               std::function<void(atmanrl::experiment_options&)> const& adjust,
                                               std::vector<atmanrl::own_option> const& own) {
  CLI::App app{description};
  atmanrl::experiment_options shown;
  shown.own = own;
  if (adjust) adjust(shown);
  std::vector<std::pair<std::string, std::optional<std::string>>> given;
  std::optional<std::string> resume;
  atmanrl::for_each_option(shown,
                           [&](char const* name, auto&&, char const*) { given.emplace_back(name, std::nullopt); });
  std::size_t at = 0;
  atmanrl::for_each_option(shown, [&](char const* name, auto&& value, char const* meaning) {
    std::string const text = atmanrl::detail::option_text(atmanrl::detail::option_json(value));
    auto* const option = app.add_option(std::string("--") + name, given[at++].second, meaning)->take_last();
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, bool>)
      option->expected(0, 1);  // --merge is --merge true
    else
      option->default_str(text);
  });
  app.add_option("--resume", resume, "continue the run in this folder; other options must not contradict it");
  parse_arguments(app, argc, argv);

  atmanrl::experiment_options options;
  options.own = own;
  if (resume) {
    atmanrl::expects<atmanrl::usage_error>(!resume->empty(), "--resume is empty, it must be the folder of a run");
    options = atmanrl::stored_options(*resume, own);
  } else {
    for (auto const& [name, text] : given)
      if (name == "preset" && text) atmanrl::set_option(options, name, *text);
    options = atmanrl::experiment_options::of_preset(options.preset);
    options.own = own;
    if (adjust) adjust(options);
  }
  for (auto const& [name, text] : given)
    if (text) atmanrl::set_option(options, name, *text);
  if (options.out.empty()) {
    char stamp[32];
    std::time_t const now = std::time(nullptr);
    std::strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", std::localtime(&now));
    options.out = std::filesystem::path("runs") / stamp;
  }
  return options;
}
