#pragma once
// What a run of an arm found, and its figures as values of questions.
#include <atmanrl/evaluation/evaluation.hpp>

#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace table1 {

using namespace atmanrl;

/// What a saliency measured on an arm's own correct completions is worth; all are means over completions.
struct causal_figures {
  double re_enabled = 0, as_printed = 0, mask_deletion = 0, random_deletion = 0, leave_one_out_deletion = 0,
         early_answering = 0, p_without = 0, items = 0;

  static constexpr auto members = std::to_array<std::pair<char const*, double causal_figures::*>>(
      {{"re_enabled", &causal_figures::re_enabled},
       {"as_printed", &causal_figures::as_printed},
       {"deletion_auc", &causal_figures::mask_deletion},
       {"deletion_auc_random", &causal_figures::random_deletion},
       {"deletion_auc_leave_one_out", &causal_figures::leave_one_out_deletion},
       {"early_answering_area", &causal_figures::early_answering},
       {"p_without_chain", &causal_figures::p_without},
       {"items", &causal_figures::items}});
};

struct arm_result {
  evaluation eval;
  causal_figures causal;
};

/// An arm's runs, one for each seed, in the same order for all arms.
struct arm_runs {
  std::string title;
  std::vector<arm_result> by_seed;
};

/// A figure as one value per question, whose mean it is. A share of words is a ratio of sums, for which the value is
/// the ratio plus what the question moves it by (nonparametric delta method, Davison & Hinkley 1997, section 2.7.2).
inline std::vector<double> question_values(measure const& m) {
  double const count = mean_of(m.count), ratio = count == 0 ? 0 : mean_of(m.sum) / count;
  std::vector<double> out;
  for (std::size_t q = 0; q < m.sum.size(); ++q)
    out.push_back(count == 0 ? 0 : ratio + (m.sum[q] - ratio * m.count[q]) / count);
  return out;
}

/// [seed][its one run][question] of a figure, by its name in measures_of; empty where the runs do not have it.
inline seed_results results_of(arm_runs const& arm, std::string_view name) {
  seed_results out;
  for (arm_result const& r : arm.by_seed)
    for (measure const& m : measures_of(r.eval))
      if (m.name == name) out.push_back({question_values(m)});
  return out;
}

/// The same of a causal figure, whose questions are not kept. A seed without a correct completion has none.
inline seed_results results_of(arm_runs const& arm, double causal_figures::*figure) {
  seed_results out;
  for (arm_result const& r : arm.by_seed)
    if (r.causal.items > 0) out.push_back({{r.causal.*figure}});
  return out;
}

/// Differences of a figure, paired by seed and by question.
/// \throws shape_error where the runs are of other seeds or questions
inline seed_results paired_differences(arm_runs const& arm, arm_runs const& against, std::string_view name) {
  seed_results x = results_of(arm, name);
  seed_results const y = results_of(against, name);
  expects<shape_error>(x.size() == y.size(), "{}: {} has {} seeds, {} has {}", name, arm.title, x.size(), against.title,
                       y.size());
  for (std::size_t s = 0; s < x.size(); ++s) {
    auto& values = x[s].front();
    expects<shape_error>(values.size() == y[s].front().size(), "{}: {} was asked {} questions, {} {}", name, arm.title,
                         values.size(), against.title, y[s].front().size());
    for (std::size_t q = 0; q < values.size(); ++q) values[q] -= y[s].front()[q];
  }
  return x;
}

}  // namespace table1
