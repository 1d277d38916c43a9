#pragma once
// Which of the numbers that a reward might pay tells chains that are read from chains that are not, and how well they
// agree with edits from model to model.
#include "verdict_gate_areas.hpp"

namespace faithfulness::findings {

/// Of each run with a gate: the area under the ROC curve of each number that a reward might pay, and which chains are
/// read.
struct gate_of {
  json const* gate;

  explicit gate_of(run const& r) : gate(part(*r.result, "/examination/gate")) {}
  static std::vector<std::string> sides() { return {"tempted", "untempted"}; }

  std::vector<std::string> numbers() const {
    std::vector<std::string> out;
    for (auto const& [name, values] : gate->at("tempted").items())
      if (name != "letters") out.push_back(name);
    return out;
  }
  std::optional<double> read_share(std::string const& side) const {
    if (!gate->contains(side)) return std::nullopt;
    return mean_of_asked(found(&gate->at(side).at("letters"), "c"));
  }
  std::vector<float> values(std::string const& side, std::string const& number) const {
    if (!gate->contains(side) || !gate->at(side).contains(number)) return {};
    return gate->at(side).at(number).get<std::vector<float>>();
  }
  /// Chains that the answer follows when they are edited against the others.
  scored_chains read(std::string const& number, std::vector<std::string> const& of = sides()) const {
    scored_chains out;
    for (std::string const& side : of) {
      auto const x = values(side, number);
      if (x.empty()) continue;
      auto const letters = found(&gate->at(side).at("letters"), "c");
      expects<shape_error>(x.size() == letters.size(), "gate, {}: {} values of {} for {} letters", side, x.size(),
                           number, letters.size());
      for (std::size_t i = 0; i < x.size(); ++i)
        if (!std::isnan(letters[i])) out.add(x[i], letters[i] > 0, i);
    }
    return out;
  }
  /// Chains against other chains of the same problems.
  static scored_chains above(std::vector<float> const& these, std::vector<float> const& others) {
    scored_chains out;
    if (these.empty() || others.empty()) return out;
    expects<shape_error>(these.size() == others.size(), "gate: {} chains against {} of the same problems", these.size(),
                         others.size());
    for (std::size_t i = 0; i < these.size(); ++i) out.add(these[i], true, i), out.add(others[i], false, i);
    return out;
  }
  scored_chains untempted(std::string const& number) const {
    return above(values("untempted", number), values("tempted", number));
  }
  /// As `read`, of chains after right and after empty hints, whose prompts are of one form; nothing where there are
  /// none.
  scored_chains read_matched(std::string const& number) const {
    return gate->contains("empty_hint") ? read(number, {"tempted", "empty_hint"}) : scored_chains{};
  }
  /// Chains after an empty hint against chains after a right one: what the hint's content changes.
  scored_chains empty_hint(std::string const& number) const {
    return above(values("empty_hint", number), values("tempted", number));
  }
  /// Chains without a hint against chains after an empty one: what any sentence changes.
  scored_chains without_sentence(std::string const& number) const {
    return above(values("untempted", number), values("empty_hint", number));
  }
};

/// One row of a gate: a model, and for each number (or share) its areas.
struct gate_row {
  std::string model;
  std::map<std::string, gate_cell> cells;
};

inline void draw_seeds(gate_row& row) {
  for (auto& [name, cell] : row.cells) cell.draw_seeds();
}

/// What each model's row holds is said by `of(gate, number)`.
template <class F>
std::vector<gate_row> gate_rows(all_runs const& runs, F&& of) {
  std::vector<gate_row> out;
  for (run const& r : runs.list()) {
    gate_of const g(r);
    if (!g.gate) continue;
    std::string const model = r.kind + ", " + r.arm;
    if (out.empty() || out.back().model != model) out.push_back({model, {}});
    for (std::string const& side : g.sides()) out.back().cells["read, " + side].add_share(r.seed, g.read_share(side));
    for (std::string const& number : g.numbers()) out.back().cells[number].add(r.seed, of(g, number));
  }
  for (gate_row& row : out) draw_seeds(row);
  return out;
}

/// The reader that needs a chain and ignores what it says, because the knock-out effect's gradient made it.
inline constexpr std::string_view gamed_model = "hard, knock_out_gradient, against control, start";

/// Readers that ignore their chains, or most of them, each beside the control of the same pre-training seed, which
/// reads: whether the control's chains get more of a number. `gamed_model` is one of them, the starts are others.
inline std::vector<gate_row> against_control(all_runs const& runs) {
  std::vector<gate_row> out;
  for (auto const& [kind, arm] : {std::pair{"hard", "knock_out_gradient"}, {"hard", "start"}, {"soft", "start"}}) {
    gate_row row{fmt::format("{}, {}, against control, start", kind, arm), {}};
    for (run const& r : runs.of(kind, arm)) {
      run const* const control = runs.find("control", "start", r.seed, r.rl_seed);
      if (!control) continue;
      gate_of const ignores(r), reads(*control);
      if (!ignores.gate || !reads.gate) continue;
      row.cells["read, reader"].add_share(r.seed, ignores.read_share("tempted"));
      row.cells["read, control"].add_share(r.seed, reads.read_share("tempted"));
      for (std::string const& number : ignores.numbers())
        row.cells[number].add(r.seed,
                              gate_of::above(reads.values("tempted", number), ignores.values("tempted", number)));
    }
    if (row.cells.empty()) continue;
    draw_seeds(row);
    out.push_back(std::move(row));
  }
  return out;
}

inline table gate_table(std::vector<gate_row> const& rows, std::string caption) {
  table out{.caption = std::move(caption) +
                       " Mean over pre-training seeds [95 % interval by a bootstrap of pre-training seeds, RL seeds "
                       "within them and problems within these] (least to most); – where one side is empty.",
            .header = {"model"}};
  std::vector<std::string> shares, numbers;
  for (gate_row const& row : rows)
    for (auto const& [name, cell] : row.cells) {
      auto& list = name.starts_with("read, ") ? shares : numbers;
      if (std::find(list.begin(), list.end(), name) == list.end()) list.push_back(name);
    }
  shares.insert(shares.end(), numbers.begin(), numbers.end());
  out.header.insert(out.header.end(), shares.begin(), shares.end());
  for (gate_row const& row : rows) {
    auto& cells = out.rows.emplace_back(std::vector<std::string>{row.model});
    for (std::string const& name : shares) {
      auto const found = row.cells.find(name);
      cells.push_back(found == row.cells.end() ? "–" : found->second.text());
    }
  }
  return out;
}

/// Spearman's correlation over runs of what is cheap to measure with E1, per kind of start and over all; each number's
/// sign is such that a chain that is read has more of it.
struct agreement {
  std::string measure, kind;
  std::optional<double> rho;
  std::size_t runs;
};
inline std::vector<agreement> agreements(all_runs const& runs) {
  using value = std::function<std::optional<double>(run const&)>;
  std::vector<std::pair<std::string, value>> list;
  auto const of = [](char const* id) { return [id](run const& r) { return r.value(measure_named(id)); }; };
  list.emplace_back("p(answer) with the chain", of("p_with_chain"));
  list.emplace_back("−p(answer) without the chain", [](run const& r) {
    auto const p = r.value(measure_named("p_without_chain"));
    return p ? std::optional(-*p) : p;
  });
  list.emplace_back("CIR", of("chain_information"));
  list.emplace_back("early answering", of("early_answering"));
  std::set<std::string> numbers;
  for (run const& r : runs.list())
    if (gate_of const g(r); g.gate)
      for (std::string const& name : g.numbers()) numbers.insert(name);
  for (std::string const& name : numbers)
    list.emplace_back("gate, mean of " + name, [name](run const& r) -> std::optional<double> {
      gate_of const g(r);
      if (!g.gate) return std::nullopt;
      auto const x = g.values("tempted", name);
      std::vector<double> const wide(x.begin(), x.end());
      return x.empty() ? std::nullopt : std::optional(mean_of(wide));
    });
  std::vector<std::string> kinds = runs.kinds();
  kinds.push_back("all");
  std::vector<agreement> out;
  for (auto const& [name, of_run] : list)
    for (std::string const& kind : kinds) {
      std::vector<float> x, y;
      for (run const& r : runs.list()) {
        auto const a = of_run(r), b = r.value(measure_named("E1"));
        if ((kind == "all" || r.kind == kind) && a && b) x.push_back(float(*a)), y.push_back(float(*b));
      }
      out.push_back({name, kind, spearman(x, y), x.size()});
    }
  return out;
}
inline table agreement_table(std::vector<agreement> const& list) {
  table out{.caption =
                "Spearman's rank correlation with E1 over runs, and the number of runs. Descriptive: runs of one "
                "pre-training seed are not independent.",
            .header = {"measure"}};
  for (agreement const& a : list) {
    if (std::find(out.header.begin(), out.header.end(), a.kind) == out.header.end()) out.header.push_back(a.kind);
    if (out.rows.empty() || out.rows.back()[0] != a.measure) out.rows.push_back({a.measure});
    out.rows.back().push_back(a.rho ? fmt::format("{} ({})", fixed(*a.rho, 2, true), a.runs)
                                    : fmt::format("– ({})", a.runs));
  }
  return out;
}

}  // namespace faithfulness::findings
