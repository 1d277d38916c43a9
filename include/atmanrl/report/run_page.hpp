#pragma once

/// \file
/// The page of a run: report.html in its folder, made from the run's files alone, so that it can be made again at any
/// time (examples/report.cpp). docs/report.md says what stands on it.

#include <atmanrl/core/config.hpp>
#if ATMANRL_BODIES
#  include <atmanrl/core/statistics.hpp>
#  include <atmanrl/io/file.hpp>
#  include <atmanrl/report/completions.hpp>
#  include <atmanrl/report/page.hpp>
#  include <atmanrl/report/run_charts.hpp>
#  include <atmanrl/report/run_data.hpp>
#endif

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// The page as text, from the files of a run folder.
/// \throws file_error when there is no such folder; what cannot be read inside it is left out with a note on the page
std::string run_page(std::filesystem::path const& run_folder);

/// Writes report.html into the folder of a run; an older one is replaced when the new one is complete.
/// \throws file_error when there is no such folder or it cannot be written
void write_run_page(std::filesystem::path const& run_folder);

#if ATMANRL_BODIES

namespace html::detail {

struct interval_row {
  std::string name;
  std::optional<interval> before, after;
};

/// Every {"value", "low", "high"} of an evaluation, whatever it is called.
template <class Use>
void for_each_interval(json const& e, std::string const& front, Use&& use) {
  for (auto const& [key, value] : e.items()) {
    if (!value.is_object()) continue;
    std::string const name = front.empty() ? key : front + key;
    if (value.contains("value") && value.contains("low") && value.contains("high"))
      use(name, interval{number_or_nan(value["value"]), number_or_nan(value["low"]), number_or_nan(value["high"])});
    else
      for_each_interval(value, key == "pass_at" ? std::string("pass@") : key + " ", use);
  }
}

[[gnu::cold]] inline std::string readable(std::string const& name) {
  static constexpr std::pair<char const*, char const*> names[] = {
      {"accuracy_strict", "accuracy, strict"},     {"accuracy_flexible", "accuracy, flexible"},
      {"unparsed", "answers that cannot be read"}, {"cot_tokens", "tokens per chain of thought"},
      {"delimiter", "completions with delimiter"}, {"truncated", "completions cut off"}};
  for (auto const& [key, text] : names)
    if (name == key) return text;
  std::string out = name;
  std::replace(out.begin(), out.end(), '_', ' ');
  return out;
}

/// Two points with their intervals on one axis; the numbers stand beside it.
[[gnu::cold]] inline std::string interval_picture(interval_row const& r) {
  range x;
  for (auto const& i : {r.before, r.after})
    if (i) x.add(i->low), x.add(i->high), x.add(i->value);
  if (x.empty()) return {};
  if (x.low >= 0) x.low = 0;
  if (x.high <= 1 && x.low >= 0) x.high = 1;
  if (x.flat()) x.widen(0);
  axis const at{x.low, x.high, 6, 194};
  std::string out =
      "<svg width=\"200\" height=\"26\" viewBox=\"0 0 200 26\" aria-hidden=\"true\"><path class=\"g\" d=\"M6 "
      "13H194\"/>";
  auto const draw = [&](std::optional<interval> const& i, int y, char const* stroke, char const* dot) {
    if (!i || !drawable(i->value) || !drawable(i->low) || !drawable(i->high)) return;
    out += fmt::format(
        "<path class=\"l {}\" d=\"M{:.1f} {}H{:.1f}\"/><circle class=\"{}\" cx=\"{:.1f}\" cy=\"{}\" r=\"3.5\"/>",
        stroke, at(i->low), y, at(i->high), dot, at(i->value), y);
  };
  draw(r.before, 8, "s4", "hollow s4");
  draw(r.after, 18, "s0", "f0");
  return out + "</svg>";
}

/// Strict accuracy, after minus before: the same questions with the same random numbers, so that the difference per
/// question has the smaller interval, that of `differences` (evaluation/evaluation.hpp). Nothing where the questions
/// are not the same ones in the same order, or cannot be read.
[[gnu::cold]] inline std::optional<interval> strict_change(json const& before, json const& after) try {
  json const &from = before.at("per_question"), &to = after.at("per_question");
  auto const base = from.at("correct").get<std::vector<double>>();
  auto change = to.at("correct").get<std::vector<double>>();
  auto const base_samples = before.at("samples").get<double>(), samples = after.at("samples").get<double>();
  if (from.at("id") != to.at("id") || from.at("id").size() != base.size() || base.size() != change.size() ||
      base.empty() || base_samples < 1 || samples < 1)
    return std::nullopt;
  for (std::size_t i = 0; i < change.size(); ++i) change[i] = change[i] / samples - base[i] / base_samples;
  return bootstrap_mean(change, before.at("seed").get<std::uint64_t>());
} catch (json::exception const&) {
  return std::nullopt;
}

[[gnu::cold]] inline std::string evaluation_section(std::optional<json> const& before,
                                                    std::optional<json> const& after) {
  std::vector<interval_row> rows;
  auto const collect = [&](std::optional<json> const& e, auto member) {
    if (!e) return;
    for_each_interval(*e, "", [&](std::string const& name, interval const& i) {
      auto at = std::find_if(rows.begin(), rows.end(), [&](interval_row const& r) { return r.name == name; });
      if (at == rows.end()) at = rows.insert(at, {name, {}, {}});
      (*at).*member = i;
    });
  };
  collect(before, &interval_row::before);
  collect(after, &interval_row::after);
  json const& any = before ? *before : *after;
  auto const count = [&](char const* key) {
    return any.contains(key) ? number(number_or_nan(any[key])) : std::string("–");
  };
  std::string out = fmt::format(
      "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Evaluation table\"><table>\n<caption>{} "
      "held-out questions × "
      "{} samples; brackets: 2.5 to 97.5 % by bootstrap over questions</caption>\n<thead><tr><th "
      "scope=\"col\">measure</th>"
      "<th scope=\"col\">before (○)</th><th scope=\"col\">after (●)</th><th "
      "scope=\"col\">intervals</th></tr></thead>\n<tbody>\n",
      count("questions"), count("samples"));
  auto const cell = [](std::optional<interval> const& i) {
    return i ? fmt::format("{} <span class=\"soft\">[{}, {}]</span>", number(i->value, 4), number(i->low, 4),
                           number(i->high, 4))
             : std::string("–");
  };
  for (interval_row const& r : rows)
    out += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                       escape(readable(r.name)), cell(r.before), cell(r.after), interval_picture(r));
  out += "</tbody></table></div>\n";

  if (auto const d = before && after ? strict_change(*before, *after) : std::nullopt)
    out += fmt::format("<p>Strict accuracy, after minus before, paired by question: <b>{}</b> [{}, {}].</p>\n",
                       number(d->value, 3), number(d->low, 3), number(d->high, 3));
  return out;
}

/// Empty where the run measured nothing about its saliency.
[[gnu::cold]] inline std::string causal_section(metric_table const& metrics, std::vector<causal_line> const& lines) {
  std::string const by_step = causal_charts(metrics);
  if (by_step.empty() && lines.empty()) return {};
  std::string out =
      "<p>Tokens are knocked out of the chain of thought in falling order of saliency, or brought back into an empty "
      "one. "
      "What is drawn in grey are controls: without them the figure says nothing.</p>\n" +
      by_step;
  auto const one = [&](causal_line const& c) {
    out += fmt::format("<h3>Step {}</h3>\n<div class=\"grid\">\n", c.step);
    for (page_chart const& x : c.charts) out += chart(x);
    out += "</div>\n" + facts(c.numbers);
  };
  if (!lines.empty()) one(lines.front());
  if (lines.size() > 1) one(lines.back());
  if (lines.size() > 2)
    out += fmt::format("<p class=\"soft\">The first and the last of {} tests; causal.jsonl has the others.</p>\n",
                       lines.size());
  return out;
}

inline std::string duration(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  auto const s = std::int64_t(seconds + 0.5);
  return s < 3600 ? fmt::format("{} min {:02} s", s / 60, s % 60)
                  : fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}

[[gnu::cold]] inline std::string timing_section(run_times const& t) {
  double all = 0;
  for (phase_time const& p : t.phases) all += p.seconds;
  std::string out =
      "<table>\n<caption>Sums over the run</caption>\n<thead><tr><th scope=\"col\">part</th><th scope=\"col\" "
      "class=\"n\">time</th>"
      "<th scope=\"col\" class=\"n\">share</th>"
      "<th scope=\"col\" class=\"n\">tokens</th><th scope=\"col\" class=\"n\">tokens per second</th></tr>"
      "</thead>\n<tbody>\n";
  for (phase_time const& p : t.phases)
    out += fmt::format(
        "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td>"
        "<td class=\"n\">{:.0f} %</td><td class=\"n\">{:.0f}</td><td class=\"n\">{:.0f}</td></tr>\n",
        escape(readable(p.name)), duration(p.seconds), 100 * p.seconds / std::max(all, 1e-9), p.tokens,
        p.tokens / std::max(p.seconds, 1e-9));
  out += "</tbody></table>\n";
  if (t.peak_process_bytes > 0)
    out += fmt::format("<p class=\"soft\">Peak memory: {:.1f} MiB of the process, {:.1f} MiB in tensors.</p>\n",
                       t.peak_process_bytes / 1048576.0, t.peak_tensor_bytes / 1048576.0);
  return out;
}

/// The few figures that a reader looks for first.
[[gnu::cold]] inline std::string cards(metric_table const& m, std::optional<json> const& before,
                                       std::optional<json> const& after, run_times const& times,
                                       std::string const& planned_steps) {
  std::string out = "<dl class=\"cards\">\n";
  auto const card = [&](std::string const& name, std::string const& value, std::string const& small) {
    out += fmt::format("<div><dt>{}</dt><dd>{}{}</dd></div>\n", name, value,
                       small.empty() ? "" : "<small>" + small + "</small>");
  };
  card("steps", number(m.steps.empty() ? 0 : m.steps.back()),
       planned_steps.empty() ? "" : "of " + escape(planned_steps));
  auto const first_last = [&](char const* name, char const* key) {
    std::vector<double> known;
    if (auto const* v = m.find(key)) std::copy_if(v->begin(), v->end(), std::back_inserter(known), drawable);
    if (known.empty()) return;
    card(name, fmt::format("{:.3g} → {:.3g}", known.front(), known.back()),
         known.size() == m.steps.size() ? "first and last step" : "first and last step that have it");
  };
  first_last("reward", "reward");
  auto const evaluated = [&](char const* name, char const* key) {
    if (!before || !after || !before->contains(key) || !after->contains(key)) return;
    auto const& a = (*after)[key];
    if (!a.is_object() || !(*before)[key].is_object()) return;
    auto const of = [](json const& x, char const* part) {
      return number(x.contains(part) ? number_or_nan(x[part]) : NAN, 3);
    };
    card(name, of((*before)[key], "value") + " → " + of(a, "value"),
         fmt::format("after: [{}, {}]", of(a, "low"), of(a, "high")));
  };
  evaluated("held-out accuracy", "accuracy_strict");
  evaluated("tokens per chain", "cot_tokens");
  first_last("saliency, re-enabled", "saliency/re_enabled/mean");
  double seconds = 0;
  for (phase_time const& p : times.phases) seconds += p.seconds;
  if (seconds > 0) card("time", duration(seconds), "evaluation and training");
  return out + "</dl>\n";
}

[[gnu::cold]] inline std::string run_page_text(std::filesystem::path const& run_folder) {
  std::error_code ignored;
  expects<file_error>(std::filesystem::is_directory(run_folder, ignored), "{}: is no folder of a run",
                      run_folder.string());

  std::vector<std::string> problems;
  auto const options = read_value(run_folder / "options.json", false, problems);
  metric_table const metrics = read_metrics(run_folder / "metrics.jsonl", problems);
  auto const completions = read_completions(run_folder / "completions.jsonl", completion_limits{}.steps, problems);
  auto const before = read_value(run_folder / "evaluation_before.json", true, problems),
             after = read_value(run_folder / "evaluation_after.json", true, problems);
  run_times const times = read_timings(run_folder / "timings.jsonl", problems);
  auto const causal = read_causal(run_folder / "causal.jsonl", problems);

  auto const option = [&](char const* name) {
    if (!options || !options->contains(name)) return std::string();
    auto const& x = (*options)[name];
    return x.is_string() ? x.get<std::string>() : x.dump();
  };
  std::string const steps = option("steps");
  double const done = metrics.steps.empty() ? 0 : metrics.steps.back();
  if (!steps.empty() && fmt::format("{}", done) != steps)
    problems.push_back(fmt::format("this run has {} of {} steps so far", done, steps));

  std::string const model = std::filesystem::path(option("model")).filename().string(), own = option("task_name"),
                    task = own.empty() ? option("task") : own;
  std::string const title =
      !model.empty() && !task.empty() ? fmt::format("{} on {}", model, task) : "Run " + run_folder.filename().string();
  std::string const line =
      options ? escape(fmt::format("GRPO with preset {}: {} steps of {} × {} rollouts, learning rate {}, seed {}",
                                   option("preset"), steps, option("prompts-per-step"), option("group-size"),
                                   option("lr"), option("seed")))
              : std::string();

  std::vector<std::pair<std::string, std::string>> sections;
  std::string body;
  auto const section = [&](char const* id, char const* name, std::string const& content) {
    sections.emplace_back(id, name);
    body +=
        fmt::format("<section aria-labelledby=\"{0}\">\n<h2 id=\"{0}\">{1}</h2>\n{2}</section>\n", id, name, content);
  };
  if (before || after) section("evaluation", "Evaluation", evaluation_section(before, after));
  if (!metrics.steps.empty()) section("training", "Training", run_charts(metrics));
  if (std::string const tests = causal_section(metrics, causal); !tests.empty())
    section("causal", "Is the saliency causal?", tests);
  // Masks alone have a scale; a program with another estimator in its traits may leave the option as it is.
  std::string const estimator = option("saliency-estimator");
  section("completions", "Completions",
          completion_tables(completions, saliency_sentence(metrics.find("saliency/scale") != nullptr,
                                                           estimator == "learned_mask" ? "" : estimator)));
  if (!times.phases.empty()) section("time", "Time", timing_section(times));
  if (options) {
    std::vector<std::pair<std::string, std::string>> pairs;
    for (auto const& [name, value] : options->items())
      pairs.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
    section("options", "Options",
            "<details><summary>All options of the run</summary>\n" + facts(pairs) + "</details>\n");
  }
  return document(title, heading(title, line, sections) + "<main id=\"content\">\n" + notes(problems) +
                             cards(metrics, before, after, times, steps) + body +
                             "</main>\n<footer>Written by atmanrl from the files beside this page.</footer>\n");
}

}  // namespace html::detail

ATMANRL_INLINE std::string run_page(std::filesystem::path const& run_folder) {
  return html::detail::run_page_text(run_folder);
}

ATMANRL_INLINE void write_run_page(std::filesystem::path const& run_folder) {
  write_file_atomically(run_folder / "report.html", run_page(run_folder));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
