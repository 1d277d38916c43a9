#pragma once
// The command line of the experiment programs: every option of the library by its own name, errors as one line.
#include <atmanrl/experiment/options.hpp>

#include "program.hpp"

#include <functional>
#include <string>
#include <vector>

/// Options from the command line: those of the preset (or of the run to resume), then what was given.
/// \param adjust  changes the preset's values for this program, before those that are given
/// \param own  options of the program's own parts (options_of<Traits>().own)
/// \throws help_shown for --help, atmanrl::usage_error for anything that cannot be understood
atmanrl::experiment_options parse_command_line(int argc, char** argv, std::string const& description,
                                               std::function<void(atmanrl::experiment_options&)> const& adjust = {},
                                               std::vector<atmanrl::own_option> const& own = {});
