#pragma once

/// \file
/// Evaluations as text: figures with their intervals, and what changed between two of them.

#include <atmanrl/core/config.hpp>
#include <atmanrl/evaluation/evaluation.hpp>

#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// One evaluation, a figure per line.
std::string evaluation_table(evaluation const& e);

/// Two evaluations of the same questions and their paired differences.
/// \throws usage_error when the questions differ
std::string comparison_table(evaluation const& a, evaluation const& b, std::string_view name_a,
                             std::string_view name_b);

#if ATMANRL_BODIES

namespace detail {

/// How a figure of an evaluation is written in tables.
struct figure_style {
  std::string label;
  double factor;  ///< 100 for percent
  int digits;
};

[[gnu::cold]] inline figure_style style_of(std::string const& name) {
  if (name == "accuracy_strict") return {"accuracy, strict (%)", 100, 1};
  if (name == "accuracy_flexible") return {"accuracy, flexible (%)", 100, 1};
  if (name == "accuracy_macro") return {"accuracy, by subject (%)", 100, 1};
  if (name == "unparsed") return {"unparsed (%)", 100, 1};
  if (name == "cot_tokens") return {"tokens per chain of thought", 1, 1};
  if (name == "delimiter") return {"with delimiter (%)", 100, 1};
  if (name == "truncated") return {"cut off (%)", 100, 1};
  if (name == "numbers") return {"numbers (% of words)", 100, 1};
  if (name == "stop_words") return {"stop words (% of words)", 100, 1};
  if (name == "symbols") return {"symbols (% of words)", 100, 1};
  if (name == "filler_sentences") return {"filler sentences per chain", 1, 2};
  return {name + " (%)", 100, 1};
}

inline std::string cell(interval const& i, figure_style const& s, char const* sign = "") {
  auto const number = [&](double x) {
    return fmt::format("{}{:.{}f}", *sign && x >= 0 ? sign : "", s.factor * x, s.digits);
  };
  return fmt::format("{} [{}, {}]", number(i.value), number(i.low), number(i.high));
}

inline constexpr char const* interval_note =
    "intervals: 2.5 to 97.5 % by bootstrap over questions; numbers, stop words and symbols by rules, a proxy\n";

}  // namespace detail

ATMANRL_INLINE std::string evaluation_table(evaluation const& e) {
  std::string out = fmt::format("{:<28}value\n", fmt::format("{} questions x {} samples", e.questions, e.samples));
  for (measure const& m : measures_of(e)) {
    if (m.name == "pass@1") continue;  // the mean accuracy again
    auto const style = detail::style_of(m.name);
    out += fmt::format("{:<28}{}\n", style.label, detail::cell(interval_of(m, e.seed), style));
    if (m.name == "accuracy_strict" && e.macro)
      out += fmt::format("{:<28}{}\n", detail::style_of("accuracy_macro").label, detail::cell(*e.macro, style));
  }
  return out + detail::interval_note;
}

ATMANRL_INLINE std::string comparison_table(evaluation const& a, evaluation const& b, std::string_view name_a,
                                            std::string_view name_b) {
  std::string out = fmt::format("{:<28}{:<26}{:<26}difference\n",
                                fmt::format("{} questions x {} samples", a.questions, a.samples), name_a, name_b);
  for (named_difference const& d : differences(a, b)) {
    if (d.name == "pass@1") continue;  // the mean accuracy again
    auto const style = detail::style_of(d.name);
    out += fmt::format("{:<28}{:<26}{:<26}{}\n", style.label, detail::cell(d.from, style), detail::cell(d.to, style),
                       detail::cell(d.difference, style, "+"));
  }
  return out + detail::interval_note;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
