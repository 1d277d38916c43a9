#pragma once
// Paired differences of two arms. The unit of chance is the pre-training seed, then the RL seed, then the question.
#include "../seed_contrast.hpp"
#include "verdict_runs.hpp"

namespace faithfulness::findings {

inline constexpr double margin = 0.05;  ///< differences of shares within it are too small to matter

struct contrast : seed_contrast {
  std::string kind, arm, against, measure_id;
  std::vector<std::string> missing{};  ///< pairs of seeds, and the arms that lack them

  std::string name() const { return against.empty() ? arm : arm + " − " + against; }
};

/// `arm` minus `against` where both have a run of the same seeds, on the questions that both were asked.
/// \param against  empty: the measure is a difference already
/// \throws shape_error where two runs were asked different numbers of questions
inline contrast compare(all_runs const& runs, std::string const& kind, std::string const& arm,
                        std::string const& against, measure const& m, double too_small = margin, int resamples = 4000) {
  contrast out{{}, kind, arm, against, m.id};
  std::map<std::uint64_t, std::vector<std::vector<double>>> differences;
  for (auto const& [seed, rl_seed] : runs.grid(kind, once_a_seed(arm))) {
    run const *const a = runs.find(kind, arm, seed, rl_seed), *const b = against.empty()
                                                                             ? nullptr
                                                                             : runs.find(kind, against, seed, rl_seed);
    std::vector<double> x = a ? m.of(*a->result) : std::vector<double>{}, y = b ? m.of(*b->result) : x;
    std::string lacking = mean_of_asked(x) ? "" : arm;
    if (!against.empty() && (!b || !mean_of_asked(y))) lacking += (lacking.empty() ? "" : ", ") + against;
    std::vector<double> both;
    if (lacking.empty()) {
      expects<shape_error>(x.size() == y.size(), "{}: {} and {} were asked {} and {} questions", m.title, arm, against,
                           x.size(), y.size());
      for (std::size_t i = 0; i < x.size(); ++i)
        if (!std::isnan(x[i]) && !std::isnan(y[i])) both.push_back(against.empty() ? x[i] : x[i] - y[i]);
      if (both.empty()) lacking = "a common question";
    }
    if (lacking.empty())
      differences[seed].push_back(std::move(both));
    else
      out.missing.push_back(fmt::format("{}.{} ({})", seed, rl_seed, lacking));
  }
  seed_results x;
  for (auto& [seed, of_rl_seeds] : differences) x.push_back(std::move(of_rl_seeds));
  static_cast<seed_contrast&>(out) = contrast_over_seeds(x, too_small, resamples);
  return out;
}

inline std::array<char const*, 4> const primary_opponents{"outcome", "length", "shuffled", "leave_one_out"};

/// The contrasts that were fixed before the runs: E1 and E2, re_enabled minus each opponent. Holm counts all of them,
/// those without runs with p = 1. Where questions have no hints there is no E2, and they are four.
inline std::vector<contrast> primary_contrasts(all_runs const& runs, std::string const& kind, settings const& s) {
  std::vector<contrast> out;
  for (char const* id : {"E1", "E2"}) {
    if (std::string_view(id) == "E2" && !s.hinted()) continue;
    for (char const* against : primary_opponents)
      out.push_back(compare(runs, kind, "re_enabled", against, measure_named(id)));
  }
  std::vector<contrast*> family;
  for (contrast& c : out) family.push_back(&c);
  adjust_by_holm(family);
  return out;
}

/// Arms with their reward's gradient against those without: no family, no test.
inline std::vector<contrast> gradient_contrasts(all_runs const& runs, std::string const& kind, settings const& s) {
  std::vector<contrast> out;
  for (std::string const& arm : runs.arms(kind)) {
    if (!with_gradient(arm)) continue;
    for (char const* id : {"E1", "E2", "accuracy"})
      for (char const* against : {"outcome", "re_enabled"})
        if (s.hinted() || std::string_view(id) != "E2")
          out.push_back(compare(runs, kind, arm, against, measure_named(id), margin, 1000));
  }
  return out;
}

}  // namespace faithfulness::findings
