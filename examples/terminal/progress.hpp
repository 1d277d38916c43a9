#pragma once
// What a person sees of a run on standard error: a bar that is redrawn in place on a terminal, one line per step
// elsewhere. Where it cannot be printed it is lost, and the run goes on.

#include <atmanrl/core/view.hpp>

#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "standard_streams.hpp"

namespace terminal {

using atmanrl::index_t;

/// "1:02:03", "4:05".
inline std::string format_duration(double seconds) {
  auto const s = static_cast<long long>(std::max(0.0, seconds) + 0.5);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
                   : fmt::format("{}:{:02}", s / 60, s % 60);
}

class progress {
 public:
  using clock = std::chrono::steady_clock;

  /// \param to  a stream, and a bar is drawn when it is a terminal; null: says nothing
  explicit progress(std::FILE* to = stderr) : to_(to), terminal_(to && ::isatty(::fileno(to)) == 1) {}
  progress(progress const&) = delete;
  progress& operator=(progress const&) = delete;
  ~progress() { clear(); }

  /// Begins a phase of `units` pieces of work of which `done` are done already.
  void begin(std::string name, index_t units, index_t done = 0);

  /// \param part    of the piece in work, in [0, 1]
  /// \param tokens  generated in this piece so far
  void update(double part, index_t tokens, std::string_view what);

  /// A piece of work is done.
  /// \param line  what to print about it where there is no terminal; may be empty
  void finish_one(index_t tokens, std::string_view line);

  /// A line that stays.
  void say(std::string_view line);

  /// Takes the bar away.
  void clear();

  double elapsed() const { return std::chrono::duration<double>(clock::now() - started_).count(); }

 private:
  std::string rate(double part = 0) const;

  void draw(double part, std::string_view what);

  std::FILE* to_;
  bool terminal_;
  std::string name_;
  index_t units_ = 0, done_ = 0, first_ = 0, tokens_ = 0, tokens_before_ = 0;
  clock::time_point started_ = clock::now(), drawn_{};
  std::size_t shown_ = 0;
};

inline void progress::begin(std::string name, index_t units, index_t done) {
  name_ = std::move(name);
  units_ = units;
  first_ = done_ = done;
  tokens_ = tokens_before_ = 0;
  started_ = clock::now();
  draw(0, {});
}

inline void progress::update(double part, index_t tokens, std::string_view what) {
  tokens_ = tokens_before_ + tokens;
  if (terminal_ && clock::now() - drawn_ > std::chrono::milliseconds(100)) draw(part, what);
}

inline void progress::finish_one(index_t tokens, std::string_view line) {
  ++done_;
  tokens_ = tokens_before_ += tokens;
  if (terminal_) return draw(0, line);
  if (to_ && !line.empty()) {
    print_if_possible(to_, fmt::format("{} {}/{}  {}  {}\n", name_, done_, units_, line, rate()));
  }
}

inline void progress::say(std::string_view line) {
  clear();
  if (to_) print_if_possible(to_, fmt::format("{}\n", line));
}

inline void progress::clear() {
  if (terminal_ && shown_ > 0) {
    print_if_possible(to_, fmt::format("\r{:{}}\r", "", shown_));
    shown_ = 0;
  }
}

inline std::string progress::rate(double part) const {
  double const seconds = elapsed(), pieces = double(done_ - first_) + part;
  std::string out =
      seconds > 0 && tokens_ > 0 ? fmt::format("{:.0f} tokens/s", double(tokens_) / seconds) : std::string();
  if (pieces > 0 && done_ < units_)
    out += fmt::format("{}{} left", out.empty() ? "" : ", ",
                       format_duration(seconds / pieces * (double(units_ - done_) - part)));
  return out;
}

inline void progress::draw(double part, std::string_view what) {
  if (!terminal_) return;
  static constexpr int width = 24;
  double const share = units_ > 0 ? std::clamp((double(done_) + part) / double(units_), 0.0, 1.0) : 1.0;
  auto const filled = std::size_t(share * width);
  std::string line = fmt::format("{} {}/{} [{}{}] {}  {}", name_, std::min(done_ + (done_ < units_ ? 1 : 0), units_),
                                 units_, std::string(filled, '#'), std::string(width - filled, '.'), rate(part), what);
  line.resize(std::min<std::size_t>(line.size(), 160));
  print_if_possible(to_, fmt::format("\r{:<{}}", line, std::max(shown_, line.size())));
  shown_ = line.size();
  drawn_ = clock::now();
}

}  // namespace terminal
