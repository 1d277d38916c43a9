#pragma once
// A run as a person at a terminal sees it: what it is and its closing table on standard output, progress and notes on
// standard error, Ctrl-C between two steps, and report.html at the end.
#include <atmanrl/experiment/run_hooks.hpp>
#include <atmanrl/report.hpp>

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "interrupt.hpp"
#include "progress.hpp"
#include "standard_streams.hpp"

namespace terminal {

class run_display : public atmanrl::run_hooks {
 public:
  void show(std::string_view text) override {
    bar_.clear();
    print_if_possible(stdout, text);
  }
  void note(std::string_view line) override { bar_.say(line); }
  void begin(std::string_view phase, index_t units, index_t done) override {
    bar_.begin(std::string(phase), units, done);
  }
  void update(double part, index_t tokens, std::string_view what) override { bar_.update(part, tokens, what); }
  void finish_one(index_t tokens, std::string_view line) override { bar_.finish_one(tokens, line); }
  void end() override { bar_.clear(); }

  // Before, Ctrl-C ends the program at once.
  void work_begins() override { interrupt_.emplace(); }
  int stop_signal() override { return interrupt_ ? interrupt_->caught() : 0; }

  // A page that cannot be written costs no run its result.
  void folder_is_written(std::filesystem::path const& folder) override {
    try {
      atmanrl::write_run_page(folder);
    } catch (std::exception const& e) {
      note(fmt::format("report.html was not written: {}", e.what()));
    }
  }

 private:
  progress bar_;
  std::optional<interrupt_listener> interrupt_;
};

}  // namespace terminal
