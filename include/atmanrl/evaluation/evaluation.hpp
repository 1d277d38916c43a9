#pragma once

/// \file
/// What an evaluation found: counts per question, the figures that follow from them, each with a bootstrap interval
/// over questions, differences between two evaluations of the same questions, and the file they are kept in.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/statistics.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/json.hpp>

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Sums over the samples of one question.
struct question_result {
  std::string id, subject;
  index_t correct = 0, correct_flexible = 0, unparsed = 0;  ///< strict, flexible, nothing readable
  index_t delimiter = 0, truncated = 0;
  index_t tokens = 0, cot_tokens = 0;                           ///< generated in all, in the chains of thought
  index_t words = 0, numbers = 0, stop_words = 0, symbols = 0;  ///< of the chains (text/token_classes.hpp)
  index_t filler_sentences = 0;                                 ///< 0 where the task does not know
};

/// What is reported about `per_question`; all intervals are over questions.
struct evaluation {
  int questions = 0, samples = 0;
  std::uint64_t seed = 0;  ///< of the samples and of the intervals
  std::vector<question_result> per_question;
  bool knows_filler = false;            ///< whether the task can tell filler sentences
  interval strict, flexible, unparsed;  ///< mean accuracy by both readings, share without any answer
  std::optional<interval> macro;        ///< mean over subjects of the strict accuracy, where items have subjects
  std::map<int, interval> pass_at;      ///< k = 1, 2, 4 .. samples, of the strict reading
  interval cot_tokens;
  interval delimiter, truncated;             ///< shares of completions
  interval numbers, stop_words, symbols;     ///< shares of the words of the chains of thought, a proxy
  std::optional<interval> filler_sentences;  ///< per chain of thought
  index_t tokens = 0;                        ///< generated in all
  bool complete = true;                      ///< false when it was stopped early
};

/// A figure of an evaluation as two columns over questions: its value is the sum of one divided by that of the other.
struct measure {
  std::string name;
  std::vector<double> sum, count;
};

inline interval interval_of(measure const& m, std::uint64_t seed) {
  return bootstrap(m.sum.size(), seed, [&](std::span<int const> drawn) { return ratio_of(m.sum, m.count, drawn); });
}

/// All figures but the macro average: "accuracy_strict", "accuracy_flexible", "unparsed", "pass@2" (and 4, 8, ..),
/// "cot_tokens", "delimiter", "truncated", "numbers", "stop_words", "symbols", and "filler_sentences" where it is
/// known.
std::vector<measure> measures_of(evaluation const& e);

/// Mean over the subjects of the mean over each subject's questions. A subject of which the bootstrap drew no question
/// is left out of that draw.
template <class Value>
double macro_average(std::span<std::string const> subjects, std::span<int const> drawn, Value&& value) {
  std::map<std::string_view, std::pair<double, double>> sums;
  for (int const i : drawn) {
    auto& [sum, count] = sums[subjects[std::size_t(i)]];
    sum += value(std::size_t(i));
    ++count;
  }
  double total = 0;
  for (auto const& [subject, s] : sums) total += s.first / s.second;
  return sums.empty() ? 0 : total / double(sums.size());
}

/// Fills every figure of `e` from `e.per_question`.
void summarize(evaluation& e);

struct named_difference {
  std::string name;  ///< as in measures_of, and "accuracy_macro" where the items have subjects
  interval from, to;
  interval difference;  ///< to - from, paired
};

/// Whether an evaluation of the questions with these ids could be compared with `earlier`; asked before they are put.
/// \throws usage_error when they are not its questions in the same order
void expect_same_questions(evaluation const& earlier, std::span<std::string const> ids);

/// What changed between two evaluations of the same questions. Both are resampled with the same questions, so that the
/// interval is that of the paired difference, which the spread between questions does not widen.
/// \throws usage_error when the questions are not the same ones in the same order
std::vector<named_difference> differences(evaluation const& from, evaluation const& to);

namespace detail {
json to_json(interval const& i);

/// The columns of `per_question` in the file.
inline constexpr std::array<std::pair<char const*, index_t question_result::*>, 12> question_columns{{
    {"correct", &question_result::correct},
    {"correct_flexible", &question_result::correct_flexible},
    {"unparsed", &question_result::unparsed},
    {"delimiter", &question_result::delimiter},
    {"truncated", &question_result::truncated},
    {"tokens", &question_result::tokens},
    {"cot_tokens", &question_result::cot_tokens},
    {"words", &question_result::words},
    {"numbers", &question_result::numbers},
    {"stop_words", &question_result::stop_words},
    {"symbols", &question_result::symbols},
    {"filler_sentences", &question_result::filler_sentences},
}};
}  // namespace detail

/// Figures with their intervals, then the columns over questions that they come from.
json to_json(evaluation const& e);

/// Reads what to_json wrote; the figures are computed anew from the columns.
/// \throws file_error when something is missing
evaluation evaluation_from_json(json const& j, std::string const& what);

#if ATMANRL_BODIES

ATMANRL_INLINE std::vector<measure> measures_of(evaluation const& e) {
  std::vector<measure> out;
  auto const add = [&](std::string name, auto&& above, auto&& below) {
    measure m{std::move(name), {}, {}};
    for (question_result const& q : e.per_question) {
      m.sum.push_back(double(above(q)));
      m.count.push_back(double(below(q)));
    }
    out.push_back(std::move(m));
  };
  auto const samples = [&](question_result const&) { return e.samples; };
  auto const words = [](question_result const& q) { return q.words; };
  add(
      "accuracy_strict", [](auto const& q) { return q.correct; }, samples);
  add(
      "accuracy_flexible", [](auto const& q) { return q.correct_flexible; }, samples);
  add(
      "unparsed", [](auto const& q) { return q.unparsed; }, samples);
  for (int k = 1; k <= e.samples; k *= 2)
    add(
        fmt::format("pass@{}", k), [&](auto const& q) { return pass_at_k(e.samples, int(q.correct), k); },
        [](auto const&) { return 1; });
  add(
      "cot_tokens", [](auto const& q) { return q.cot_tokens; }, samples);
  add(
      "delimiter", [](auto const& q) { return q.delimiter; }, samples);
  add(
      "truncated", [](auto const& q) { return q.truncated; }, samples);
  add(
      "numbers", [](auto const& q) { return q.numbers; }, words);
  add(
      "stop_words", [](auto const& q) { return q.stop_words; }, words);
  add(
      "symbols", [](auto const& q) { return q.symbols; }, words);
  if (e.knows_filler)
    add(
        "filler_sentences", [](auto const& q) { return q.filler_sentences; }, samples);
  return out;
}

ATMANRL_INLINE void summarize(evaluation& e) {
  e.questions = int(e.per_question.size());
  e.tokens = 0;
  std::vector<std::string> subjects;
  bool has_subjects = !e.per_question.empty();
  for (question_result const& q : e.per_question) {
    e.tokens += q.tokens;
    subjects.push_back(q.subject);
    has_subjects = has_subjects && !q.subject.empty();
  }
  std::map<std::string, interval, std::less<>> by_name;
  for (measure const& m : measures_of(e)) by_name[m.name] = interval_of(m, e.seed);
  e.strict = by_name["accuracy_strict"];
  e.flexible = by_name["accuracy_flexible"];
  e.unparsed = by_name["unparsed"];
  e.pass_at.clear();
  for (int k = 1; k <= e.samples; k *= 2) e.pass_at[k] = by_name[fmt::format("pass@{}", k)];
  e.cot_tokens = by_name["cot_tokens"];
  e.delimiter = by_name["delimiter"];
  e.truncated = by_name["truncated"];
  e.numbers = by_name["numbers"];
  e.stop_words = by_name["stop_words"];
  e.symbols = by_name["symbols"];
  e.filler_sentences.reset();
  if (e.knows_filler) e.filler_sentences = by_name["filler_sentences"];
  e.macro.reset();
  if (has_subjects)
    e.macro = bootstrap(subjects.size(), e.seed, [&](std::span<int const> drawn) {
      return macro_average(subjects, drawn,
                           [&](std::size_t i) { return double(e.per_question[i].correct) / double(e.samples); });
    });
}

ATMANRL_INLINE void expect_same_questions(evaluation const& earlier, std::span<std::string const> ids) {
  expects<usage_error>(earlier.per_question.size() == ids.size(),
                       "evaluations of {} and of {} questions cannot be compared", earlier.per_question.size(),
                       ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i)
    expects<usage_error>(earlier.per_question[i].id == ids[i],
                         "evaluations of different questions cannot be compared: number {} is {} and {}", i,
                         earlier.per_question[i].id, ids[i]);
}

ATMANRL_INLINE std::vector<named_difference> differences(evaluation const& from, evaluation const& to) {
  std::vector<std::string> ids;
  for (question_result const& q : to.per_question) ids.push_back(q.id);
  expect_same_questions(from, ids);
  std::vector<measure> const a = measures_of(from), b = measures_of(to);
  std::vector<named_difference> out;
  if (from.macro && to.macro) {
    std::vector<std::string> subjects;
    for (question_result const& q : from.per_question) subjects.push_back(q.subject);
    auto const macro = [&](evaluation const& e, std::span<int const> drawn) {
      return macro_average(subjects, drawn,
                           [&](std::size_t i) { return double(e.per_question[i].correct) / double(e.samples); });
    };
    out.push_back({"accuracy_macro", *from.macro, *to.macro,
                   bootstrap(subjects.size(), from.seed,
                             [&](std::span<int const> drawn) { return macro(to, drawn) - macro(from, drawn); })});
  }
  for (measure const& x : a)
    for (measure const& y : b) {
      if (x.name != y.name) continue;
      auto const difference = [&](std::span<int const> drawn) {
        return ratio_of(y.sum, y.count, drawn) - ratio_of(x.sum, x.count, drawn);
      };
      out.push_back({x.name, interval_of(x, from.seed), interval_of(y, from.seed),
                     bootstrap(x.sum.size(), from.seed, difference)});
    }
  return out;
}

ATMANRL_INLINE json detail::to_json(interval const& i) {
  return {{"value", i.value}, {"low", i.low}, {"high", i.high}};
}

ATMANRL_INLINE json to_json(evaluation const& e) {
  json out{{"questions", e.questions}, {"samples", e.samples}, {"seed", e.seed}, {"tokens", e.tokens}};
  out["accuracy_strict"] = detail::to_json(e.strict);
  out["accuracy_flexible"] = detail::to_json(e.flexible);
  out["unparsed"] = detail::to_json(e.unparsed);
  if (e.macro) out["accuracy_macro"] = detail::to_json(*e.macro);
  for (auto const& [k, value] : e.pass_at) out["pass_at"][std::to_string(k)] = detail::to_json(value);
  out["cot_tokens"] = detail::to_json(e.cot_tokens);
  out["delimiter"] = detail::to_json(e.delimiter);
  out["truncated"] = detail::to_json(e.truncated);
  out["numbers"] = detail::to_json(e.numbers);
  out["stop_words"] = detail::to_json(e.stop_words);
  out["symbols"] = detail::to_json(e.symbols);
  if (e.filler_sentences) out["filler_sentences"] = detail::to_json(*e.filler_sentences);
  json& columns = out["per_question"];
  columns["id"] = json::array();
  columns["subject"] = json::array();
  for (question_result const& q : e.per_question) {
    columns["id"].push_back(q.id);
    columns["subject"].push_back(q.subject);
  }
  for (auto const& [name, member] : detail::question_columns) {
    columns[name] = json::array();
    for (question_result const& q : e.per_question) columns[name].push_back(q.*member);
  }
  return out;
}

ATMANRL_INLINE evaluation evaluation_from_json(json const& j, std::string const& what) {
  try {
    evaluation e;
    e.samples = j.at("samples");
    e.seed = j.at("seed");
    e.knows_filler = j.contains("filler_sentences");
    json const& columns = j.at("per_question");
    e.per_question.resize(columns.at("id").size());
    for (std::size_t i = 0; i < e.per_question.size(); ++i) {
      question_result& q = e.per_question[i];
      q.id = columns.at("id").at(i);
      q.subject = columns.at("subject").at(i);
      for (auto const& [name, member] : detail::question_columns) q.*member = columns.at(name).at(i);
    }
    expects<file_error>(e.samples >= 1, "{}: is no evaluation: {} samples", what, e.samples);
    for (question_result const& q : e.per_question)
      expects<file_error>(q.correct >= 0 && q.correct <= e.samples, "{}: is no evaluation: {} has {} right of {}", what,
                          q.id, q.correct, e.samples);
    summarize(e);
    return e;
  } catch (json::exception const& x) {
    fail<file_error>("{}: is no evaluation: {}", what, detail::json_reason(x.what()));
  }
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
