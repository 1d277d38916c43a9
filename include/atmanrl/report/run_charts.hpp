#pragma once

/// \file
/// Charts of metrics.jsonl: a chosen list first, then every other number by the front of its name, then the numbers as
/// a table. A new metric needs no change here.

#include <atmanrl/report/run_data.hpp>

#include <set>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::html {

namespace detail {

/// Makes charts from a table and remembers which columns have been shown.
class chart_maker {
 public:
  explicit chart_maker(metric_table const& table) : table_(table) {}

  page_chart start(char const* title, char const* y_label) const {
    page_chart c{.title = title, .x_label = "step", .y_label = y_label, .curves = {}, .smooth = true};
    for (std::size_t i = 0; i < table_.steps.size(); ++i) c.x_names[table_.steps[i]] = table_.row_names[i];
    return c;
  }

  /// Adds a column, if it is there and has values. One that most steps lack is drawn from value to value, others have
  /// gaps.
  void add(page_chart& c, std::string const& key, std::string const& name, bool control = false) {
    auto const* values = table_.find(key);
    if (!values || !shown_.insert(key).second) return;
    page_curve curve{name, {}, {}, control};
    for (std::size_t i = 0; i < values->size(); ++i) {
      if (!std::isfinite((*values)[i])) continue;
      curve.x.push_back(table_.steps[i]);
      curve.y.push_back((*values)[i]);
    }
    if (curve.x.empty()) return;
    if (2 * curve.x.size() >= values->size()) curve.x = table_.steps, curve.y = *values;
    c.curves.push_back(std::move(curve));
  }

  /// Adds the columns that begin with `front` and end with `back`, named by what stands between.
  void add_all(page_chart& c, std::string_view front, std::string_view back) {
    for (auto const& [key, values] : table_.columns)
      if (key.size() > front.size() + back.size() && key.starts_with(front) && key.ends_with(back))
        add(c, key, key.substr(front.size(), key.size() - front.size() - back.size()));
  }

  void add_band(page_chart& c, std::string const& low, std::string const& high, char const* name) {
    auto const *const a = table_.find(low), *const b = table_.find(high);
    if (!a || !b) return;
    shown_.insert(low);
    shown_.insert(high);
    c.bands.push_back({name, table_.steps, *a, *b});
  }

  void skip(std::initializer_list<char const*> keys) { shown_.insert(keys.begin(), keys.end()); }
  bool shown(std::string const& key) const { return shown_.contains(key); }

 private:
  metric_table const& table_;
  std::set<std::string> shown_;
};

inline bool constant(std::vector<double> const& values) {
  range r;
  for (double const v : values) r.add(v);
  return !(r.low < r.high);
}

}  // namespace detail

[[gnu::cold]] inline std::string metrics_as_table(metric_table const& t, std::size_t columns = 80) {
  std::size_t const shown = std::min(columns, t.columns.size());
  std::string out =
      "<details><summary>All numbers by step</summary>\n"
      "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"All numbers by step\">"
      "<table class=\"values\">\n<caption>metrics.jsonl, 6 significant digits</caption>\n<thead><tr><th "
      "scope=\"col\">step</th>";
  for (std::size_t k = 0; k < shown; ++k)
    out += "<th scope=\"col\" class=\"n\">" + escape_front(t.columns[k].first, 80) + "</th>";
  out += "</tr></thead>\n<tbody>\n";
  for (std::size_t i = 0; i < t.steps.size(); ++i) {
    std::string const& name = t.row_names[i];
    out += "<tr><th scope=\"row\">" + (name.starts_with("step ") ? name.substr(5) : name) + "</th>";
    for (std::size_t k = 0; k < shown; ++k) out += "<td class=\"n\">" + number(t.columns[k].second[i]) + "</td>";
    out += "</tr>\n";
  }
  out += "</tbody></table></div>\n";
  if (shown < t.columns.size())
    out += fmt::format("<p>{} further columns are in metrics.jsonl.</p>\n", t.columns.size() - shown);
  return out + "</details>\n";
}

/// What a run measured about its own saliency while it trained, or nothing: the area under p(answer) as tokens are
/// knocked out in the order of their saliency beside that of random orders, and the agreement with leave-one-out.
[[gnu::cold]] inline std::string causal_charts(metric_table const& t) {
  detail::chart_maker make(t);
  page_chart area = make.start("Deletion AUC", "lower: the saliency finds what the answer needs");
  make.add(area, "saliency/deletion_auc", "saliency");
  make.add(area, "saliency/deletion_auc_random", "random order", true);
  page_chart rank = make.start("Agreement with leave-one-out", "Spearman");
  make.add(rank, "saliency/spearman_loo", "saliency");
  std::string out;
  for (page_chart const* c : {&area, &rank})
    if (!c->curves.empty()) out += chart(*c);
  return out.empty() ? out : "<div class=\"grid\">\n" + out + "</div>\n";
}

/// \param all  of the whole run; long runs are shown as means over consecutive steps
[[gnu::cold]] inline std::string run_charts(metric_table const& all) {
  static constexpr std::size_t most_rows = 150, most_further_charts = 24;
  metric_table const t = thin(all, most_rows);
  detail::chart_maker make(t);
  std::string out = "<div class=\"grid\">\n";
  auto const put = [&](page_chart const& c) {
    if (!c.curves.empty()) out += chart(c);
  };

  page_chart c = make.start("Reward", "mean over rollouts");
  make.add(c, "reward", "reward");
  make.add_all(c, "rewards/", "/mean");
  put(c);
  c = make.start("Accuracy", "share of rollouts");
  c.y_low = 0, c.y_high = 1;
  make.add_all(c, "accuracy/", "");
  put(c);
  c = make.start("Completion length", "tokens");
  c.y_low = 0;
  make.add(c, "completions/mean_length", "completion, mean");
  make.add(c, "completions/mean_cot_length", "chain of thought, mean");
  make.add_band(c, "completions/min_length", "completions/max_length", "shortest to longest");
  put(c);
  c = make.start("Saliency", "mean over rollouts that have one");
  make.add(c, "saliency/re_enabled/mean", "re-enabled");
  make.add(c, "saliency/as_printed/mean", "as printed");
  put(c);
  c = make.start("Cross-entropy of the answer", "nats per token");
  make.add(c, "saliency/ce_unmasked", "without mask");
  make.add(c, "saliency/ce_start", "mask at its start");
  make.add(c, "saliency/ce_end", "mask trained");
  put(c);
  c = make.start("Spread inside groups", "standard deviation");
  make.add(c, "reward_std", "reward");
  make.add_all(c, "rewards/", "/group_std");
  put(c);
  c = make.start("Entropy", "nats per token");
  c.y_low = 0;
  make.add(c, "entropy", "entropy");
  put(c);
  c = make.start("Ratio to the sampling policy", "");
  make.add(c, "ratio/mean", "mean");
  make.add_band(c, "ratio/min", "ratio/max", "smallest to largest");
  put(c);
  c = make.start("Clipped tokens", "share");
  c.y_low = 0;
  make.add_all(c, "clip_ratio/", "");
  put(c);
  c = make.start("Gradient norm", "");
  c.y_low = 0;
  make.add(c, "grad_norm", "before clipping");
  put(c);
  c = make.start("Loss", "");
  make.add(c, "loss", "loss");
  put(c);
  c = make.start("KL to the reference", "nats per token");
  make.add(c, "kl", "KL");
  make.add_all(c, "kl/", "");
  put(c);
  c = make.start("Shares", "of completions or groups");
  c.y_low = 0, c.y_high = 1;
  make.add(c, "completions/delimiter_ratio", "with delimiter");
  make.add(c, "completions/clipped_ratio", "cut off");
  make.add(c, "frac_reward_zero_std", "groups without spread");
  put(c);
  out += "</div>\n";

  // Whatever else there is and changes, six lines to a chart; causal_charts has its own section.
  make.skip({"saliency/deletion_auc", "saliency/deletion_auc_random", "saliency/spearman_loo"});
  std::map<std::string, page_chart> further;
  std::vector<std::string> order;
  for (auto const& [key, values] : t.columns) {
    if (make.shown(key) || detail::constant(values)) continue;
    std::string const front = key.substr(0, key.find('/'));
    std::string const rest = front.size() == key.size() ? key : key.substr(front.size() + 1);
    int part = 1;
    auto const name = [&] { return part == 1 ? front : fmt::format("{} ({})", front, part); };
    while (further.contains(name()) && further[name()].curves.size() == 6) ++part;
    auto const [at, fresh] = further.try_emplace(name(), make.start(name().c_str(), ""));
    if (fresh) order.push_back(name());
    make.add(at->second, key, rest);
  }
  if (!order.empty()) {
    out += "<details><summary>Further metrics</summary>\n<div class=\"grid\">\n";
    for (std::size_t k = 0; k < std::min(order.size(), most_further_charts); ++k) out += chart(further[order[k]]);
    out += "</div>\n";
    if (order.size() > most_further_charts)
      out += fmt::format("<p>{} further charts are left out.</p>\n", order.size() - most_further_charts);
    out += "</details>\n";
  }
  if (t.steps.size() < all.steps.size())
    out += fmt::format("<p class=\"soft\">{} steps: each value shown is the mean over {} of them.</p>\n",
                       all.steps.size(), (all.steps.size() + most_rows - 1) / most_rows);
  if (t.steps.size() >= 30)
    out += fmt::format("<p class=\"soft\">Bold lines are running means over {} values.</p>\n",
                       2 * (t.steps.size() / 16) + 1);
  return out + metrics_as_table(t);
}

}  // namespace atmanrl::inline ATMANRL_ABI::html
