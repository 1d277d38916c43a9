#pragma once
// The difference of two arms where the seed is the unit of chance: its intervals, its test, and what they allow to say.
#include <atmanrl/core/statistics.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

/// With fewer seeds an interval over them excludes zero too often to judge by: all of n differences have one sign with
/// probability 2^(1 - n) where there is no effect, and that is 1/16 at five.
inline constexpr std::size_t fewest_seeds = 5;

struct seed_contrast {
  std::size_t seeds = 0, pairs = 0;
  atmanrl::interval wide{}, narrow{};           ///< the mean difference with its 95 and its 90 % interval; seeds >= 2
  double value = 0;                             ///< the mean difference; pairs > 0
  double p = 1, adjusted = 1;                   ///< of the sign test over seeds, and after Holm
  std::optional<atmanrl::difference> judged{};  ///< nothing where there are too few seeds

  std::string verdict() const { return judged ? std::string(name_of(*judged)) : "not enough runs"; }
  /// The same for a contrast of a family: an effect has to pass the family's tests, too.
  std::string tested_verdict() const {
    using enum atmanrl::difference;
    return verdict() + ((judged == above || judged == below) && adjusted > 0.05 ? ", but not after Holm" : "");
  }
};

/// \param x          differences: [seed][run of the seed][question]
/// \param too_small  differences within it do not matter
inline seed_contrast contrast_over_seeds(atmanrl::seed_results const& x, double too_small, int resamples) {
  seed_contrast c{.seeds = x.size()};
  std::vector<double> of_seeds;
  for (auto const& runs : x) {
    c.pairs += runs.size();
    double sum = 0;
    for (auto const& questions : runs) sum += atmanrl::mean_of(questions);
    of_seeds.push_back(sum / double(runs.size()));
  }
  if (x.empty()) return c;
  c.value = atmanrl::mean_of(of_seeds);
  c.p = c.adjusted = atmanrl::sign_test(of_seeds);
  if (c.seeds < 2) return c;
  c.wide = atmanrl::hierarchical_bootstrap(x, 1, 0.95, resamples);
  c.narrow = atmanrl::hierarchical_bootstrap(x, 1, 0.90, resamples);
  if (c.seeds >= fewest_seeds) c.judged = atmanrl::judge_difference(c.wide, c.narrow, too_small);
  return c;
}

/// Holm's p-values for the contrasts of a family, which are all that are given.
/// \param family  pointers to them
template <class Contrast>
void adjust_by_holm(std::vector<Contrast*> const& family) {
  std::vector<double> p;
  for (Contrast const* c : family) p.push_back(c->p);
  auto const adjusted = atmanrl::holm(p);
  for (std::size_t i = 0; i < family.size(); ++i) family[i]->adjusted = adjusted[i];
}
