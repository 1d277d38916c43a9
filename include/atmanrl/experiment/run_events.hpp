#pragma once

/// \file
/// What TensorBoard is shown of a run: each number of metrics.jsonl as train/NAME, those of the evaluations before the
/// first and after the last step as eval/NAME, as TRL's trainers name them.

#include <atmanrl/core/config.hpp>
#include <atmanrl/evaluation/evaluation.hpp>
#include <atmanrl/io/event_file.hpp>
#include <atmanrl/io/json.hpp>

#include <cstdint>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// The run's event file, which is not computed from and may be deleted.
class run_events {
 public:
  /// \param steps  that the run keeps when it goes on; TensorBoard drops what an earlier process wrote of later ones
  /// \throws as event_file_writer
  run_events(std::filesystem::path const& folder, std::uint64_t steps);

  /// \param metrics  a line of metrics.jsonl; its lists, texts and nulls are left out
  void add_step(json const& metrics);

  /// \param step  after which it was made
  void add_evaluation(std::uint64_t step, evaluation const& e);

 private:
  event_file_writer file_;
};

#if ATMANRL_BODIES

ATMANRL_INLINE run_events::run_events(std::filesystem::path const& folder, std::uint64_t steps)
    : file_(folder / "events.out.tfevents.0.atmanrl") {
  file_.restart(steps + 1);
}

ATMANRL_INLINE void run_events::add_step(json const& metrics) {
  std::vector<scalar_event> numbers;
  for (auto const& [name, value] : metrics.items())
    if (value.is_number() && name != "step") numbers.emplace_back("train/" + name, value.get<double>());
  file_.add(metrics.at("step").get<std::uint64_t>(), numbers);
}

ATMANRL_INLINE void run_events::add_evaluation(std::uint64_t step, evaluation const& e) {
  std::vector<scalar_event> numbers;
  for (measure const& m : measures_of(e)) {
    std::vector<int> all(m.sum.size());
    std::iota(all.begin(), all.end(), 0);
    numbers.emplace_back("eval/" + m.name, ratio_of(m.sum, m.count, all));
  }
  if (e.macro) numbers.emplace_back("eval/accuracy_macro", e.macro->value);
  file_.add(step, numbers);
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
