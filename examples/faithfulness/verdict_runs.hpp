#pragma once
// Finished runs as they lie in their files, and which of them there are.
#include <atmanrl/io/file.hpp>

#include "verdict_measures.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace faithfulness {

namespace findings {

struct run {
  std::string kind, arm;
  std::uint64_t seed, rl_seed;
  json const* result;

  std::string place() const { return fmt::format("{}.{}", seed, rl_seed); }
  std::optional<double> value(measure const& m) const { return mean_of_asked(m.of(*result)); }
};

/// What is not trained by reinforcement has one run per pre-training seed.
inline bool once_a_seed(std::string_view arm) { return arm == "start" || arm == "reader_sft"; }
/// The arms whose update holds the gradient of their reward.
inline bool with_gradient(std::string_view arm) { return arm.ends_with("_gradient"); }

/// Runs in the order of the tables; they refer to results that must live as long.
class all_runs {
 public:
  explicit all_runs(std::vector<json> const& results) {
    for (json const& r : results)
      runs_.push_back({r.at("start").get<std::string>(), r.at("arm").get<std::string>(),
                       r.at("seed").get<std::uint64_t>(), r.at("rl_seed").get<std::uint64_t>(), &r});
    auto const key = [](run const& r) {
      return std::tuple(place_in(kinds_in_order, r.kind), r.kind, place_in(arms_in_order, r.arm), r.arm, r.seed,
                        r.rl_seed);
    };
    std::stable_sort(runs_.begin(), runs_.end(), [&](run const& a, run const& b) { return key(a) < key(b); });
  }

  bool empty() const { return runs_.empty(); }
  std::vector<run> const& list() const { return runs_; }
  std::vector<std::string> kinds() const {
    std::vector<std::string> out;
    for (run const& r : runs_)
      if (out.empty() || out.back() != r.kind) out.push_back(r.kind);
    return out;
  }
  std::vector<std::string> arms(std::string_view kind) const {
    std::vector<std::string> out;
    for (run const& r : runs_)
      if (r.kind == kind && (out.empty() || out.back() != r.arm)) out.push_back(r.arm);
    return out;
  }
  std::vector<run> of(std::string_view kind, std::string_view arm) const {
    std::vector<run> out;
    for (run const& r : runs_)
      if (r.kind == kind && r.arm == arm) out.push_back(r);
    return out;
  }
  /// The run of that pair of seeds; of an arm with one run a seed, that one.
  run const* find(std::string_view kind, std::string_view arm, std::uint64_t seed, std::uint64_t rl_seed) const {
    for (run const& r : runs_)
      if (r.kind == kind && r.arm == arm && r.seed == seed && (r.rl_seed == rl_seed || once_a_seed(arm))) return &r;
    return nullptr;
  }
  /// All pairs of seeds that runs of a kind are of, as if all were complete.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> grid(std::string_view kind, bool one_a_seed) const {
    std::set<std::uint64_t> seeds, rl_seeds;
    for (run const& r : runs_)
      if (r.kind == kind) seeds.insert(r.seed), rl_seeds.insert(r.rl_seed);
    std::vector<std::pair<std::uint64_t, std::uint64_t>> out;
    for (std::uint64_t const seed : seeds)
      for (std::uint64_t const rl : rl_seeds)
        if (!one_a_seed || rl == *rl_seeds.begin()) out.emplace_back(seed, rl);
    return out;
  }
  bool measured(std::string_view kind, measure const& m) const {
    return std::any_of(runs_.begin(), runs_.end(), [&](run const& r) { return r.kind == kind && r.value(m); });
  }

  /// Per pre-training seed the mean over its RL seeds.
  std::map<std::uint64_t, double> by_seed(std::string_view kind, std::string_view arm, measure const& m) const {
    std::map<std::uint64_t, std::vector<double>> values;
    for (run const& r : of(kind, arm))
      if (auto const x = r.value(m)) values[r.seed].push_back(*x);
    std::map<std::uint64_t, double> out;
    for (auto const& [seed, x] : values) out[seed] = *mean_of_asked(x);
    return out;
  }

 private:
  static constexpr std::array<std::string_view, 3> kinds_in_order{"soft", "hard", "control"};
  static constexpr std::array<std::string_view, 20> arms_in_order{"start",
                                                                  "reader_sft",
                                                                  "outcome",
                                                                  "outcome_wrong_hints",
                                                                  "re_enabled",
                                                                  "as_printed",
                                                                  "length",
                                                                  "shuffled",
                                                                  "leave_one_out",
                                                                  "knock_out",
                                                                  "chain_information",
                                                                  "edit",
                                                                  "hide_prompt",
                                                                  "hide_hint",
                                                                  "knock_out_gradient",
                                                                  "edit_gradient",
                                                                  "edit_log_gradient",
                                                                  "chain_only_edit_log_gradient",
                                                                  "re_enabled_gradient",
                                                                  "re_enabled_edit_gradient"};

  /// Its place in the list, or after it.
  static std::size_t place_in(auto const& list, std::string_view name) {
    return std::size_t(std::find(list.begin(), list.end(), name) - list.begin());
  }
  std::vector<run> runs_;
};

}  // namespace findings

/// The files of finished runs below a folder, in the order of their paths.
inline std::vector<std::filesystem::path> result_files(std::filesystem::path const& folder) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(folder))
    for (auto const& entry : std::filesystem::recursive_directory_iterator(folder))
      if (entry.path().extension() == ".json" && entry.path().filename() != "verdict.json")
        files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

/// All finished runs below a folder, in the order of their paths.
/// \param versions  of arms as they are now; a file without a version is of the first
/// \throws usage_error that names the file which was made with other settings or another version of its arm or is there
///         twice, or where no run is; file_error for a file that is not a run's
inline std::vector<json> read_results(std::filesystem::path const& folder, settings const& s,
                                      std::map<std::string, int> const& versions = {}) {
  auto const files = result_files(folder);
  expects<usage_error>(!files.empty(), "{} holds no finished run", folder.string());
  json const here = parse_json(dump_json(s.json_of()), "the settings");  // rounded as those in the files
  std::vector<json> out;
  std::map<std::string, std::string> known;
  for (auto const& file : files) {
    json const& r = out.emplace_back(read_json_file(file));
    for (char const* name : {"arm", "start", "seed", "rl_seed", "settings", "examination"})
      expects<file_error>(r.is_object() && r.contains(name), "{} is not a run's result: it has no \"{}\"",
                          file.string(), name);
    json const& there = r.at("settings");
    expects<file_error>(there.is_object(), "{}: its settings are no object", file.string());
    std::string differences;
    auto const compare = [&](std::string const& name, json const* mine, json const* its) {
      if (mine && its && *mine == *its) return;
      differences += fmt::format("{}{}: {}, there {}", differences.empty() ? "" : "; ", name,
                                 mine ? mine->dump() : "none", its ? its->dump() : "none");
    };
    for (auto const& [name, value] : here.items()) compare(name, &value, there.contains(name) ? &there[name] : nullptr);
    for (auto const& [name, value] : there.items())
      if (!here.contains(name)) compare(name, nullptr, &value);
    expects<usage_error>(differences.empty(), "{} was made with other settings ({}); another --out, or those settings",
                         file.string(), differences);
    try {
      for (findings::measure const& m : findings::all_measures()) {
        std::size_t const n = m.of(r).size();
        expects<file_error>(n <= 1 || n == std::size_t(s.questions), "{}: {} letters for {} questions ({})",
                            file.string(), n, s.questions, m.title);
      }
      auto const now = versions.find(r.at("arm").get<std::string>());
      int const then = r.value("arm_version", 1);
      expects<usage_error>(now == versions.end() || now->second == then,
                           "{} was made with version {} of the arm {}, which has version {} now; another --out",
                           file.string(), then, r.at("arm").get<std::string>(),
                           now == versions.end() ? 0 : now->second);
      auto const name =
          fmt::format("{} {} seed {}.{}", r.at("start").get<std::string>(), r.at("arm").get<std::string>(),
                      r.at("seed").get<std::uint64_t>(), r.at("rl_seed").get<std::uint64_t>());
      auto const [before, fresh] = known.emplace(name, file.string());
      expects<usage_error>(fresh, "{} and {} are the same run, {}", before->second, file.string(), name);
    } catch (json::exception const& e) {
      fail<file_error>("{} is not a run's result: {}", file.string(), atmanrl::detail::json_reason(e.what()));
    }
  }
  return out;
}

/// Those of these seeds alone.
inline std::vector<json> of_seeds(std::vector<json> results, std::vector<std::uint64_t> const& seeds,
                                  std::vector<std::uint64_t> const& rl_seeds) {
  auto const has = [](auto const& list, json const& x) {
    return std::find(list.begin(), list.end(), x.get<std::uint64_t>()) != list.end();
  };
  std::erase_if(results, [&](json const& r) { return !has(seeds, r.at("seed")) || !has(rl_seeds, r.at("rl_seed")); });
  expects<usage_error>(!results.empty(), "no finished run is of these seeds");
  return results;
}

}  // namespace faithfulness
