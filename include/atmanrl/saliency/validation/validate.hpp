#pragma once

/// \file
/// One row of figures per saliency method, so that a saliency never stands without its controls: agreement with planted
/// truth where it is known, deletion and insertion areas beside random and recency orders, comprehensiveness and
/// sufficiency, rank agreement with leave-one-out and with AtMan's suppression, cost.

#include <atmanrl/saliency/estimators/single_edit.hpp>
#include <atmanrl/saliency/validation/baselines.hpp>
#include <atmanrl/saliency/validation/deletion.hpp>
#include <atmanrl/saliency/validation/stability.hpp>

#include <fmt/format.h>

#include <optional>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// What is known about an item's tokens. Lists may be empty where nothing is known.
struct token_labels {
  std::vector<bool> narrow;  ///< the tokens that the answer is copied from
  std::vector<bool> wide;    ///< those and the ones that feed them
  std::vector<bool> digit;   ///< tokens that hold a digit
};

/// A named saliency of every token of every item, and what it cost.
struct saliency_method {
  std::string name;
  std::vector<std::vector<float>> saliency;  ///< per item, per token
  double seconds = 0;
  row_count rows{};
};

/// Runs an estimator into a method's entry.
template <class Estimator, class Model>
saliency_method run_method(std::string name, Estimator estimator, Model& model, std::span<saliency_item const> items) {
  auto estimate = estimate_saliency(estimator, model, items);
  saliency_method m{std::move(name), {}, estimate.seconds, estimate.rows};
  for (saliency_result& r : estimate.items) m.saliency.push_back(std::move(r.token_saliency));
  return m;
}

struct validation_options {
  variant_options variants{};
  int curve_points = 20;   ///< of deletion and insertion curves; 0: one for each token
  int random_orders = 3;   ///< orders of the random control
  std::uint64_t seed = 0;  ///< of the random orders
  bool insertion = true;   ///< also insertion curves
  bool rationale = true;   ///< also comprehensiveness and sufficiency
  bool references = true;  ///< also rank agreement with leave-one-out and AtMan suppression
};

/// Means over items; nothing where a figure is not defined or was not asked for.
struct validation_row {
  std::string name;
  std::optional<double> auroc_narrow, auroc_wide,
      auroc_digits;             ///< narrow among all tokens, wide, narrow among digit tokens
  std::optional<double> top_1;  ///< the highest token is a narrow one
  std::optional<double> precision_at_k,
      recall_at_k;  ///< k = number of wide tokens; the two are equal by that choice of k
  double deletion_auc = 0;
  std::optional<double> insertion_auc;
  std::optional<std::array<double, rationale_shares.size()>> comprehensiveness, sufficiency;
  std::optional<double> spearman_leave_one_out, spearman_atman;
  double seconds = 0;
  row_count rows{};
  share_curve deletion{}, insertion{};  ///< mean curves on the grid 0, 1/20, .. 1
};

struct validation_report {
  std::vector<validation_row> methods;  ///< in the given order
  std::vector<validation_row>
      controls;  ///< random (mean of its orders), recency; with digits known also is_digit and late_digits
  double p_whole = 0, p_without = 0;  ///< mean p(answer) with the whole chain and with none of it
  std::size_t items = 0;

  /// The random control's deletion area.
  double deletion_auc_random() const { return controls.empty() ? 0 : controls.front().deletion_auc; }
};

namespace detail {

/// Mean over curves, read off by linear interpolation at 0, 1/20, .. 1: items have different numbers of tokens.
inline share_curve mean_curve(std::span<share_curve const> curves) {
  share_curve out;
  static constexpr int points = 20;
  for (int p = 0; p <= points; ++p) {
    double const x = double(p) / points;
    double sum = 0;
    for (share_curve const& c : curves) {
      std::size_t i = 1;
      while (i + 1 < c.share.size() && c.share[i] < x) ++i;
      double const width = c.share[i] - c.share[i - 1];
      double const t = width > 0 ? std::clamp((x - c.share[i - 1]) / width, 0.0, 1.0) : 1;
      sum += c.probability[i - 1] + t * (c.probability[i] - c.probability[i - 1]);
    }
    out.share.push_back(x);
    out.probability.push_back(curves.empty() ? 0 : sum / double(curves.size()));
  }
  return out;
}

inline double mean_area(std::span<share_curve const> curves) {
  double sum = 0;
  for (share_curve const& c : curves) sum += c.area();
  return curves.empty() ? 0 : sum / double(curves.size());
}

inline std::vector<token_order> orders_of(std::span<std::vector<float> const> saliency) {
  std::vector<token_order> out;
  for (std::size_t i = 0; i < saliency.size(); ++i) out.push_back({i, falling_order(saliency[i])});
  return out;
}

inline void add_label_figures(validation_row& row, std::span<std::vector<float> const> saliency,
                              std::span<token_labels const> labels) {
  std::vector<std::optional<double>> narrow, wide, digits, top_1, precision, recall;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    token_labels const& l = labels[i];
    auto const& s = saliency[i];
    auto const marked = [](std::vector<bool> const& x) { return std::size_t(std::count(x.begin(), x.end(), true)); };
    if (!l.narrow.empty()) {
      narrow.push_back(auroc(s, l.narrow));
      if (marked(l.narrow) > 0) top_1.push_back(precision_at_k(s, l.narrow, 1));
    }
    if (!l.wide.empty()) {
      wide.push_back(auroc(s, l.wide));
      if (std::size_t const k = marked(l.wide); k > 0) {
        precision.push_back(precision_at_k(s, l.wide, k));
        recall.push_back(recall_at_k(s, l.wide, k));
      }
    }
    if (!l.narrow.empty() && !l.digit.empty()) {
      std::vector<float> among;
      std::vector<bool> relevant;
      for (std::size_t t = 0; t < s.size(); ++t)
        if (l.digit[t]) {
          among.push_back(s[t]);
          relevant.push_back(l.narrow[t]);
        }
      digits.push_back(auroc(among, relevant));
    }
  }
  row.auroc_narrow = mean_of_known(narrow);
  row.auroc_wide = mean_of_known(wide);
  row.auroc_digits = mean_of_known(digits);
  row.top_1 = mean_of_known(top_1);
  row.precision_at_k = mean_of_known(precision);
  row.recall_at_k = mean_of_known(recall);
}

}  // namespace detail

/// Validates saliencies of the same items against each other and against controls. All curves of a method go through
/// the model in packed batches over the computed chains.
/// \param labels  one per item, or empty where no truth is known
/// \throws usage_error when a method has another number of items or tokens than `items`
template <LanguageModel Model>
validation_report validate_saliency(Model& model, std::span<saliency_item const> items,
                                    std::span<saliency_method const> methods, std::span<token_labels const> labels = {},
                                    validation_options const& options = {}) {
  expects<usage_error>(!items.empty(), "validating a saliency needs at least one item");
  expects<usage_error>(labels.empty() || labels.size() == items.size(), "labels of {} items for {} items",
                       labels.size(), items.size());
  for (saliency_method const& m : methods) {
    expects<usage_error>(m.saliency.size() == items.size(), "the saliency {} has {} items of {}", m.name,
                         m.saliency.size(), items.size());
    for (std::size_t i = 0; i < items.size(); ++i)
      expects<usage_error>(m.saliency[i].size() == items[i].cot.size(),
                           "the saliency {} has {} values for the {} tokens of item {}", m.name, m.saliency[i].size(),
                           items[i].cot.size(), i);
  }
  curve_options const curves{.variants = options.variants, .points = options.curve_points};
  std::vector<std::vector<float>> leave_one_out, atman;
  if (options.references) {
    leave_one_out = run_method("", estimators::leave_one_out{.options = options.variants}, model, items).saliency;
    atman = run_method("", estimators::atman_suppression{.options = options.variants}, model, items).saliency;
  }

  auto const row_of = [&](saliency_method const& m) {
    validation_row row;
    row.name = m.name;
    row.seconds = m.seconds;
    row.rows = m.rows;
    detail::add_label_figures(row, m.saliency, labels);
    auto const orders = detail::orders_of(m.saliency);
    auto const deleted = deletion_curves(model, items, std::span<token_order const>(orders), curves);
    row.deletion_auc = detail::mean_area(deleted);
    row.deletion = detail::mean_curve(deleted);
    if (options.insertion) {
      auto const inserted = insertion_curves(model, items, std::span<token_order const>(orders), curves);
      row.insertion_auc = detail::mean_area(inserted);
      row.insertion = detail::mean_curve(inserted);
    }
    if (options.rationale) {
      row.comprehensiveness.emplace();
      row.sufficiency.emplace();
      for (auto const& r : rationale_scores(model, items, std::span<token_order const>(orders), options.variants))
        for (std::size_t k = 0; k < rationale_shares.size(); ++k) {
          (*row.comprehensiveness)[k] += r.comprehensiveness[k] / double(items.size());
          (*row.sufficiency)[k] += r.sufficiency[k] / double(items.size());
        }
    }
    if (options.references) {
      row.spearman_leave_one_out = agreement(m.saliency, leave_one_out).spearman;
      row.spearman_atman = agreement(m.saliency, atman).spearman;
    }
    return row;
  };

  validation_report report;
  report.items = items.size();
  for (saliency_method const& m : methods) report.methods.push_back(row_of(m));

  auto const control = [&](std::string name, auto&& values_of) {
    saliency_method m{std::move(name), {}};
    for (std::size_t i = 0; i < items.size(); ++i) m.saliency.push_back(values_of(i));
    return row_of(m);
  };
  std::vector<validation_row> random;
  for (int r = 0; r < std::max(1, options.random_orders); ++r)
    random.push_back(control("random", [&](std::size_t i) {
      return baselines::random(items[i].cot.size(), options.seed, i, std::size_t(r));
    }));
  report.controls.push_back(random.front());
  validation_row& mean = report.controls.front();
  double const n = double(random.size());
  auto const average = [&](auto member) {
    std::vector<std::optional<double>> all;
    for (validation_row const& r : random) all.push_back(r.*member);
    mean.*member = mean_of_known(all);
  };
  for (auto const member :
       {&validation_row::auroc_narrow, &validation_row::auroc_wide, &validation_row::auroc_digits,
        &validation_row::top_1, &validation_row::precision_at_k, &validation_row::recall_at_k,
        &validation_row::insertion_auc, &validation_row::spearman_leave_one_out, &validation_row::spearman_atman})
    average(member);
  for (auto const member : {&validation_row::comprehensiveness, &validation_row::sufficiency}) {
    if (!(mean.*member)) continue;
    for (std::size_t k = 0; k < rationale_shares.size(); ++k) {
      double sum = 0;
      for (validation_row const& r : random) sum += (*(r.*member))[k] / n;
      (*(mean.*member))[k] = sum;
    }
  }
  mean.deletion_auc = 0;
  for (validation_row const& r : random) mean.deletion_auc += r.deletion_auc / n;
  auto const average_curve = [&](share_curve validation_row::*curve) {
    std::vector<share_curve> all;
    for (validation_row const& r : random)
      if (!(r.*curve).share.empty()) all.push_back(r.*curve);
    if (!all.empty()) mean.*curve = detail::mean_curve(all);
  };
  average_curve(&validation_row::deletion);
  average_curve(&validation_row::insertion);

  report.controls.push_back(control("recency", [&](std::size_t i) { return baselines::recency(items[i].cot.size()); }));
  bool const digits = !labels.empty() &&
                      std::all_of(labels.begin(), labels.end(), [](token_labels const& l) { return !l.digit.empty(); });
  if (digits) {
    report.controls.push_back(
        control("is a digit", [&](std::size_t i) { return baselines::is_digit(labels[i].digit); }));
    report.controls.push_back(
        control("all digits, late first", [&](std::size_t i) { return baselines::late_digits(labels[i].digit); }));
  }
  report.p_whole = report.controls.front().deletion.probability.front();
  report.p_without = report.controls.front().deletion.probability.back();
  return report;
}

/// The report as a table in Markdown.
inline std::string markdown(validation_report const& r) {
  auto const number = [](std::optional<double> x) { return x ? fmt::format("{:.3f}", *x) : std::string("–"); };
  std::string out =
      "| saliency | AUROC narrow | wide | digits only | top-1 | deletion AUC | insertion AUC | compr. 10 % | suff. 10 "
      "% | ρ leave-one-out "
      "| ρ AtMan | "
      "rows forward + backward | seconds |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  auto const line = [&](validation_row const& v, bool costs) {
    auto const at_10 = [](auto const& x) { return x ? std::optional((*x)[2]) : std::nullopt; };
    out += fmt::format("| {} | {} | {} | {} | {} | {:.3f} | {} | {} | {} | {} | {} | {} | {} |\n", v.name,
                       number(v.auroc_narrow), number(v.auroc_wide), number(v.auroc_digits), number(v.top_1),
                       v.deletion_auc, number(v.insertion_auc), number(at_10(v.comprehensiveness)),
                       number(at_10(v.sufficiency)), number(v.spearman_leave_one_out), number(v.spearman_atman),
                       costs ? fmt::format("{} + {}", v.rows.forward, v.rows.backward) : std::string("–"),
                       costs ? fmt::format("{:.2f}", v.seconds) : std::string("–"));
  };
  for (validation_row const& v : r.methods) line(v, true);
  for (validation_row const& v : r.controls) line(v, false);
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
