#pragma once
// The tables of arms and of contrasts.
#include "verdict_contrasts.hpp"

namespace faithfulness::findings {

/// A table of text; `caption` says what its cells are.
struct table {
  std::string caption;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows = {};
  bool sentences = false;  ///< cells are long and may be broken
};

/// A number with so many digits after the point, zero without a sign.
inline std::string fixed(double x, int digits, bool sign = false) {
  std::string out = sign ? fmt::format("{:+.{}f}", x, digits) : fmt::format("{:.{}f}", x, digits);
  if (out.find_first_of("123456789") == std::string::npos && (out[0] == '-' || out[0] == '+')) out.erase(0, 1);
  return out;
}
/// A share in percent, or another quantity as it is.
inline std::string show(measure const& m, double x, bool sign = false) {
  return m.share ? fixed(100 * x, 1, sign) : fixed(x, std::abs(x) < 10 ? 3 : 1, sign);
}
inline std::string list_of(std::vector<std::string> const& names) {
  std::string out;
  for (std::string const& n : names) out += (out.empty() ? "" : ", ") + n;
  return out;
}

/// The middle and the ends of some values; a dash where there is none.
struct spread_of {
  double median = 0, low = 0, high = 0;
  std::size_t n = 0;

  explicit spread_of(std::map<std::uint64_t, double> const& by_seed) {
    std::vector<double> x;
    for (auto const& [seed, value] : by_seed) x.push_back(value);
    std::sort(x.begin(), x.end());
    n = x.size();
    if (n == 0) return;
    median = quantile_of_sorted(x, 0.5);
    low = x.front();
    high = x.back();
  }
};
inline std::string cell_of(measure const& m, spread_of const& s) {
  if (s.n == 0) return "–";
  if (s.n == 1) return show(m, s.median);
  return fmt::format("{} [{}, {}]", show(m, s.median), show(m, s.low), show(m, s.high));
}

/// One row per arm; measures that no run of the kind has are left out.
inline table arm_table(all_runs const& runs, std::string const& kind, std::string const& what,
                       std::vector<std::string> const& ids) {
  table out{.caption = what +
                       ". Median over pre-training seeds [least, most], each the mean over its RL seeds; shares "
                       "in percent.",
            .header = {"arm", "seeds", "runs"}};
  std::vector<measure const*> columns;
  for (std::string const& id : ids)
    if (measure const& m = measure_named(id); runs.measured(kind, m)) {
      columns.push_back(&m);
      out.header.push_back(m.title);
    }
  if (columns.empty()) return out;
  for (std::string const& arm : runs.arms(kind)) {
    std::set<std::uint64_t> seeds;
    auto const its = runs.of(kind, arm);
    for (run const& r : its) seeds.insert(r.seed);
    std::vector<std::string> row{arm, std::to_string(seeds.size()), std::to_string(its.size())};
    bool any = false;
    for (measure const* m : columns) {
      row.push_back(cell_of(*m, spread_of(runs.by_seed(kind, arm, *m))));
      any = any || row.back() != "–";
    }
    if (any) out.rows.push_back(std::move(row));
  }
  return out;
}

/// What a kind's arms lack of the runs that some arm of it has, a sentence per arm.
inline std::vector<std::string> incomplete_arms(all_runs const& runs, std::string const& kind) {
  std::vector<std::string> out;
  for (std::string const& arm : runs.arms(kind)) {
    std::vector<std::string> lacking;
    for (auto const& [seed, rl_seed] : runs.grid(kind, once_a_seed(arm)))
      if (!runs.find(kind, arm, seed, rl_seed)) lacking.push_back(fmt::format("{}.{}", seed, rl_seed));
    if (!lacking.empty()) out.push_back(fmt::format("{} is incomplete: it lacks {}", arm, list_of(lacking)));
  }
  return out;
}

/// \param tested  with the sign test and Holm's p
inline table contrast_table(all_runs const& runs, std::vector<contrast> const& contrasts, bool tested) {
  table out{.caption = fmt::format(
                "Mean paired differences in points, 95 % interval by a bootstrap of pre-training seeds, RL seeds "
                "within them and "
                "questions within these.{} No effect: the 90 % interval lies within ±{:.0f} points. Fewer than {} "
                "pre-training seeds judge nothing.",
                tested ? " p: sign test over pre-training seeds." : "", 100 * margin, fewest_seeds),
            .header = {"contrast", "endpoint", "seeds", "runs", "difference"}};
  if (tested) out.header.insert(out.header.end(), {"p", fmt::format("p, Holm of {}", contrasts.size())});
  out.header.insert(out.header.end(), {tested ? "judged" : "judged by the interval", "missing"});
  for (contrast const& c : contrasts) {
    measure const& m = measure_named(c.measure_id);
    std::vector<std::string> row{c.name(), m.title, std::to_string(c.seeds), std::to_string(c.pairs), "–"};
    if (c.pairs > 0) row.back() = show(m, c.value, true);
    if (c.seeds >= 2) row.back() += fmt::format(" [{}, {}]", show(m, c.wide.low, true), show(m, c.wide.high, true));
    if (tested)
      for (double const p : {c.p, c.adjusted}) row.push_back(c.pairs > 0 ? fixed(p, 3) : "–");
    row.push_back(tested ? c.tested_verdict() : c.verdict());
    std::string lacking;
    for (std::string const& arm : {c.arm, c.against})
      if (!arm.empty() && runs.of(c.kind, arm).empty()) lacking += (lacking.empty() ? "no run of " : ", of ") + arm;
    row.push_back(lacking.empty() ? list_of(c.missing) : lacking);
    out.rows.push_back(std::move(row));
  }
  return out;
}

}  // namespace faithfulness::findings
