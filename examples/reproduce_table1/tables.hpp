#pragma once
// The tables: arms, causal figures, and differences to the arm that is trained on the outcome alone. The unit of chance
// is the seed, then the question.
#include "../seed_contrast.hpp"
#include "results.hpp"

namespace table1 {

/// A figure whose differences are tested.
struct tested_figure {
  char const *name, *title, *margin_title;
  double unit, margin;  ///< of what is shown; differences within the margin, in units, do not matter
};
inline constexpr std::array tested_figures{
    tested_figure{"cot_tokens", "tokens per CoT", "±2 tokens", 1, 2},
    tested_figure{"accuracy_strict", "mean accuracy, points", "±2 points", 100, 2}};

inline constexpr std::size_t start = 0, outcome_only = 1;  ///< places of the arms that no contrast is of
using arm_contrasts = std::array<seed_contrast, tested_figures.size()>;

/// Each arm minus outcome only, where outcome only itself has nothing. Holm's family is all figures of all arms but the
/// start, which is no arm's training.
inline std::vector<arm_contrasts> contrasts_of(std::vector<arm_runs> const& all, int resamples = 4000) {
  std::vector<arm_contrasts> out(all.size());
  std::vector<seed_contrast*> family;
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t f = 0; i != outcome_only && f < tested_figures.size(); ++f) {
      tested_figure const& figure = tested_figures[f];
      out[i][f] = contrast_over_seeds(paired_differences(all[i], all[outcome_only], figure.name),
                                      figure.margin / figure.unit, resamples);
      if (i != start) family.push_back(&out[i][f]);
    }
  adjust_by_holm(family);
  return out;
}

inline std::string with_interval(interval const& i, double unit, int digits, std::size_t seeds) {
  std::string out = fmt::format("{:.{}f}", unit * i.value, digits);
  if (seeds >= 2) out += fmt::format(" [{:.{}f}, {:.{}f}]", unit * i.low, digits, unit * i.high, digits);
  return out;
}
/// The mean over seeds, with its 95 % interval where there are several.
inline std::string cell_of(seed_results const& x, double unit, int digits) {
  return x.empty() ? "–" : with_interval(hierarchical_bootstrap(x, 1, 0.95, 1000), unit, digits, x.size());
}

inline std::string row_of(std::vector<std::string> const& cells) {
  return fmt::format("| {} |\n", fmt::join(cells, " | "));
}
inline std::string header_of(std::vector<std::string> const& cells) {
  return row_of(cells) + row_of(std::vector<std::string>(cells.size(), "---"));
}

inline std::string arm_table(std::vector<arm_runs> const& all) {
  struct column {
    char const *title, *name;
    double unit;
    int digits;
  };
  static constexpr std::array columns{column{"tokens per CoT", "cot_tokens", 1, 1},
                                      column{"numbers %", "numbers", 100, 1},
                                      column{"stop words %", "stop_words", 100, 1},
                                      column{"symbols %", "symbols", 100, 1},
                                      column{"pass@4 %", "pass@4", 100, 1},
                                      column{"mean accuracy %", "accuracy_strict", 100, 1},
                                      column{"filler sentences", "filler_sentences", 1, 2}};
  std::vector<std::string> header{"arm"};
  for (column const& c : columns) header.push_back(c.title);
  std::string text = header_of(header);
  for (arm_runs const& arm : all) {
    std::vector<std::string> row{arm.title};
    for (column const& c : columns) row.push_back(cell_of(results_of(arm, c.name), c.unit, c.digits));
    text += row_of(row);
  }
  return text;
}

inline std::string causal_table(std::vector<arm_runs> const& all) {
  using f = causal_figures;
  static constexpr auto columns =
      std::to_array<std::pair<char const*, double f::*>>({{"saliency, re-enabled", &f::re_enabled},
                                                          {"as printed", &f::as_printed},
                                                          {"deletion AUC, learned mask", &f::mask_deletion},
                                                          {"leave-one-out", &f::leave_one_out_deletion},
                                                          {"random", &f::random_deletion},
                                                          {"early-answering area", &f::early_answering},
                                                          {"p(answer) without the CoT", &f::p_without}});
  std::vector<std::string> header{"arm"};
  for (auto const& [title, figure] : columns) header.push_back(title);
  header.push_back("completions");
  std::string text = header_of(header);
  for (arm_runs const& arm : all) {
    std::vector<std::string> row{arm.title};
    for (auto const& [title, figure] : columns) row.push_back(cell_of(results_of(arm, figure), 1, 3));
    double completions = 0;
    for (arm_result const& r : arm.by_seed) completions += r.causal.items;
    row.push_back(fmt::format("{:.0f}", completions));
    text += row_of(row);
  }
  return text;
}

inline std::string difference_table(std::vector<arm_runs> const& all) {
  auto const contrasts = contrasts_of(all);
  std::vector<std::string> header{"arm minus outcome only"};
  for (tested_figure const& f : tested_figures)
    header.insert(header.end(), {f.title, "p", "p, Holm", fmt::format("judged, {}", f.margin_title)});
  header.insert(header.end(), {"tokens, %", "pass@4, points", "tokens by seed", "accuracy by seed, %"});
  std::string text = header_of(header);
  double tokens = 0;
  for (arm_result const& r : all[outcome_only].by_seed)
    tokens += r.eval.cot_tokens.value / double(all[outcome_only].by_seed.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::vector<std::string> row{all[i].title};
    for (std::size_t f = 0; f < tested_figures.size(); ++f) {
      seed_contrast const& c = contrasts[i][f];
      bool const tested = i != start && i != outcome_only;
      row.push_back(i == outcome_only
                        ? "–"
                        : with_interval({c.value, c.wide.low, c.wide.high}, tested_figures[f].unit, 1, c.seeds));
      for (double const p : {c.p, c.adjusted}) row.push_back(tested ? fmt::format("{:.3g}", p) : "–");
      row.push_back(tested ? c.tested_verdict() : "–");
    }
    row.push_back(i == outcome_only ? "–" : fmt::format("{:.1f}", 100 * contrasts[i][0].value / tokens));
    row.push_back(i == outcome_only ? "–" : cell_of(paired_differences(all[i], all[outcome_only], "pass@4"), 100, 1));
    // Outcome only itself has no difference, but its figures by seed are what those of the others stand beside.
    std::vector<std::string> by_seed[2];
    for (arm_result const& r : all[i].by_seed) {
      by_seed[0].push_back(fmt::format("{:.1f}", r.eval.cot_tokens.value));
      by_seed[1].push_back(fmt::format("{:.1f}", 100 * r.eval.strict.value));
    }
    for (auto const& values : by_seed) row.push_back(fmt::format("{}", fmt::join(values, ", ")));
    text += row_of(row);
  }
  return text;
}

/// What the brackets, p-values and judgements are.
inline std::string notes(std::vector<arm_runs> const& all) {
  std::size_t const seeds = all.front().by_seed.size();
  return fmt::format(
      "Brackets: 95 %, by a bootstrap of seeds and of questions within them. p: two-sided sign test over the {0} "
      "seeds, of which the least possible value is {1:.4g}, then after Holm over one family of {2} contrasts: tokens "
      "per CoT and mean accuracy, each minus that of outcome only, of the {3} other arms. Judged: no effect where the "
      "90 % interval lies within the margin, else above or below where the 95 % interval excludes zero, else "
      "undecided; fewer than {4} seeds judge nothing.\n",
      seeds, std::exp2(1.0 - double(seeds)), (all.size() - 2) * tested_figures.size(), all.size() - 2, fewest_seeds);
}

inline std::string tables(std::vector<arm_runs> const& all) {
  return arm_table(all) + "\n" + causal_table(all) + "\n" + difference_table(all) + "\n" + notes(all);
}

}  // namespace table1
