#pragma once
// The gate's areas under ROC curves, with their intervals over pre-training seeds.
#include <atmanrl/saliency/validation/rank_statistics.hpp>

#include "verdict_tables.hpp"

namespace faithfulness::findings {

/// Chains of one run with what a number gives them, some of them positive: what the number has to tell apart.
class scored_chains {
 public:
  /// \param problem  a problem may have several chains; problems are what a bootstrap draws
  void add(float score, bool positive, std::size_t problem) {
    chain const c{score, positive, problem};
    problems_ = std::max(problems_, problem + 1);
    within_.resize(problems_);
    for (chain const& other : chains_)
      if (other.problem == problem && other.positive != positive) {
        float const above = positive ? score : other.score, under = positive ? other.score : score;
        within_[problem].pairs += 1;
        within_[problem].below += under < above ? 1 : under == above ? 0.5 : 0;
      }
    chains_.insert(std::upper_bound(chains_.begin(), chains_.end(), c,
                                    [](chain const& a, chain const& b) { return a.score < b.score; }),
                   c);
  }
  std::size_t problems() const { return problems_; }

  /// The area under the ROC curve (`atmanrl::auroc`) of the chains of these problems, each as often as it is drawn;
  /// nothing where one side is empty. Two draws of one problem are not compared with each other: else draws would hold
  /// about twice as many pairs within a problem as the sample, and their areas would be drawn towards what these say.
  std::optional<double> area(std::span<int const> drawn) const {
    std::vector<double> times(problems_, 0);
    for (int const p : drawn) times[std::size_t(p)] += 1;
    double positives = 0, negatives = 0, below = 0;  // pairs in which the positive chain scores higher; a tie is half
    for (std::size_t i = 0; i < chains_.size();) {
      double tied_positives = 0, tied_negatives = 0;
      for (float const score = chains_[i].score; i < chains_.size() && chains_[i].score == score; ++i)
        (chains_[i].positive ? tied_positives : tied_negatives) += times[chains_[i].problem];
      below += tied_positives * (negatives + tied_negatives / 2);
      positives += tied_positives;
      negatives += tied_negatives;
    }
    double pairs = positives * negatives;
    for (std::size_t p = 0; p < problems_; ++p) {
      double const again = times[p] * (times[p] - 1);
      below -= again * within_[p].below;
      pairs -= again * within_[p].pairs;
    }
    if (pairs == 0) return std::nullopt;
    return below / pairs;
  }
  std::optional<double> area() const {
    std::vector<int> each(problems_);
    std::iota(each.begin(), each.end(), 0);
    return area(each);
  }

 private:
  struct chain {
    float score;
    bool positive;
    std::size_t problem;
  };
  struct comparisons {
    double pairs = 0, below = 0;
  };
  std::vector<chain> chains_;        ///< in rising order of score
  std::vector<comparisons> within_;  ///< of each problem's positive chains with its others
  std::size_t problems_ = 0;
};

/// What an interval says of a half, which is what a number gives that tells nothing.
enum class half { held, above, below, too_few };
inline std::string_view name_of(half h) {
  return h == half::held ? "yes" : h == half::above ? "no, above" : h == half::below ? "no, below" : "too few seeds";
}

/// One quantity of several runs, averaged over pre-training seeds.
struct gate_cell {
  std::map<std::uint64_t, std::vector<double>> values;
  std::map<std::uint64_t, std::vector<scored_chains>> chains;  ///< of `values` that are areas
  std::size_t runs = 0, known = 0;
  std::optional<interval> wide;  ///< 95 %; of areas, from two seeds on

  void add_share(std::uint64_t seed, std::optional<double> x) {
    ++runs;
    if (!x) return;
    ++known;
    values[seed].push_back(*x);
  }
  void add(std::uint64_t seed, scored_chains x) {
    auto const area = x.area();
    add_share(seed, area);
    if (area) chains[seed].push_back(std::move(x));
  }
  /// The interval of what was added. Runs without an area are left out, and so are draws of a run's problems without
  /// one.
  void draw_seeds(int resamples = 1000) {
    wide.reset();
    if (chains.size() < 2) return;
    seed_questions problems;
    std::vector<std::vector<scored_chains> const*> of_seeds;
    for (auto const& [seed, its] : chains) {
      of_seeds.push_back(&its);
      problems.emplace_back();
      for (scored_chains const& c : its) problems.back().push_back(c.problems());
    }
    wide = hierarchical_bootstrap_of(
        problems, 1,
        [&](std::size_t s, std::size_t r, std::span<int const> drawn) { return (*of_seeds[s])[r].area(drawn); }, 0.95,
        resamples);
  }
  half holds_half() const {
    if (!wide || chains.size() < fewest_seeds) return half::too_few;
    return wide->low > 0.5 ? half::above : wide->high < 0.5 ? half::below : half::held;
  }

  std::vector<double> by_seed() const {
    std::vector<double> out;
    for (auto const& [seed, x] : values) out.push_back(mean_of(x));
    return out;
  }
  /// The mean with its interval.
  std::string short_text(int digits = 2) const {
    auto const x = by_seed();
    if (x.empty()) return "–";
    std::string out = fixed(mean_of(x), digits);
    if (wide) out += fmt::format(" [{}, {}]", fixed(wide->low, digits), fixed(wide->high, digits));
    if (known < runs) out += fmt::format(", {} of {} runs", known, runs);
    return out;
  }
  std::string text() const {
    auto const x = by_seed();
    if (x.size() < 2) return short_text();
    auto const [low, high] = std::minmax_element(x.begin(), x.end());
    return short_text() + fmt::format(" ({} to {})", fixed(*low, 2), fixed(*high, 2));
  }
  json figures() const {
    auto const x = by_seed();
    if (x.empty()) return {{"runs", runs}, {"known", 0}};
    json out{{"mean", mean_of(x)},
             {"low", *std::min_element(x.begin(), x.end())},
             {"high", *std::max_element(x.begin(), x.end())},
             {"seeds", x.size()},
             {"known", known},
             {"runs", runs}};
    if (wide) out["interval_95"] = {wide->low, wide->high};
    return out;
  }
};

}  // namespace faithfulness::findings
