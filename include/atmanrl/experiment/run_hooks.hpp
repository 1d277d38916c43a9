#pragma once

/// \file
/// Between a run and the program that started it: what the run has to say, and whether it should stop. The library
/// itself prints nothing and listens to no signal.

#include <atmanrl/core/view.hpp>

#include <filesystem>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// Derive from it and override what is wanted; as it is, a run is silent and goes on to its end. Of several ranks the
/// first speaks; each is asked whether to stop. `examples/terminal/run_display.hpp` is one for a terminal.
class run_hooks {
 public:
  virtual ~run_hooks() = default;

  /// What the run is and what it will take, before it begins; its closing table: whole lines.
  virtual void show(std::string_view /*text*/) {}
  /// A sentence about something that went otherwise than expected, or where a run goes on.
  virtual void note(std::string_view /*line*/) {}

  /// A phase begins: `units` pieces of work, of which `done` are done already.
  virtual void begin(std::string_view /*phase*/, index_t /*units*/, index_t /*done*/) {}
  /// \param part    of the piece in work that is done, in [0, 1]
  /// \param tokens  generated in this piece so far
  virtual void update(double /*part*/, index_t /*tokens*/, std::string_view /*what*/) {}
  /// A piece is done; `tokens` were generated in it. \param line  what there is to say about it
  virtual void finish_one(index_t /*tokens*/, std::string_view /*line*/) {}
  /// The phase is over, or the run stops in it.
  virtual void end() {}

  /// All is checked and the work begins: from here on `stop_signal` is asked.
  virtual void work_begins() {}
  /// Asked between two steps and between two batches of an evaluation. \returns the number of the signal that wants the
  /// run to stop, 0 for none
  virtual int stop_signal() { return 0; }
  /// The folder has all that this process writes, after the last step or where it was stopped.
  virtual void folder_is_written(std::filesystem::path const& /*folder*/) {}
};

}  // namespace atmanrl::inline ATMANRL_ABI
