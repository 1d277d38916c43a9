#pragma once

/// \file
/// The files of a run folder as a page needs them. A run may have been killed, edited or be under way: what cannot be
/// read is left out and a note says so.

#include <atmanrl/io/jsonl.hpp>
#include <atmanrl/report/chart.hpp>

#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::html {

/// Values by step; NaN where a step has none.
struct metric_table {
  std::vector<double> steps;
  std::vector<std::pair<std::string, std::vector<double>>> columns;
  std::vector<std::string> row_names;  ///< "step 4" or "steps 4 to 6, mean"

  std::vector<double> const* find(std::string_view name) const {
    for (auto const& [key, values] : columns)
      if (key == name) return &values;
    return nullptr;
  }
};

/// A row of completions.jsonl.
struct page_completion {
  double step = 0;
  int group = 0, member = 0;
  std::string item, prompt, text, truth;
  std::optional<std::string> extracted;
  bool correct = false, correct_flexible = false, truncated = false;
  double reward = 0, advantage = 0;
  std::vector<std::pair<std::string, double>> rewards;
  std::vector<std::string> tokens;  ///< of the chain of thought; empty where it has no saliency
  std::vector<double> saliency;
};

namespace detail {

inline double number_or_nan(json const& x) {
  return x.is_number() ? x.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

inline json parse_ordered(std::string_view text) {
  atmanrl::detail::check_json_depth(text, "not valid");
  try {
    return json::parse(text.begin(), text.end());
  } catch (json::exception const& e) {
    fail<file_error>("not valid JSON: {}", atmanrl::detail::json_reason(e.what()));
  }
}

/// Calls use(line, number) for every line that is not blank. What `use` throws makes the line a broken one; broken
/// lines are left out with one note for the file.
/// \returns false, with a note unless `optional`, when there is no such file
template <class Use>
bool for_each_good_line(std::filesystem::path const& path, bool optional, std::vector<std::string>& notes, Use&& use) {
  std::string const name = path.filename().string();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    if (!optional) notes.push_back(name + " is missing");
    return false;
  }
  try {
    atmanrl::detail::open_for_reading(path);
  } catch (file_error const&) {
    notes.push_back(name + " cannot be read");
    return false;
  }
  std::ifstream in(path, std::ios::binary);
  index_t broken = 0;
  std::string first, line;
  for (index_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    auto const complain = [&](std::string_view reason) {
      if (++broken == 1) first = fmt::format("line {}: {}", number, reason.substr(0, 300));
    };
    try {
      use(std::string_view(line), number);
    } catch (json::exception const& e) {
      complain(atmanrl::detail::json_reason(e.what()));
    } catch (error const& e) {
      complain(e.what());
    }
  }
  if (broken > 0)
    notes.push_back(fmt::format("{}: {} left out; {}{}", name,
                                broken == 1 ? "a broken line is" : fmt::format("{} broken lines are", broken),
                                broken == 1 ? "" : "the first is ", first));
  return true;
}

/// A file with one JSON value, or nothing and a note where it is broken.
[[gnu::cold]] inline std::optional<json> read_value(std::filesystem::path const& path, bool optional,
                                                    std::vector<std::string>& notes) {
  std::string const name = path.filename().string();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    if (!optional) notes.push_back(name + " is missing");
    return std::nullopt;
  }
  try {
    json value = parse_ordered(read_text_file(path));
    if (value.is_object()) return value;
    notes.push_back(name + " is left out: it holds no JSON object");
  } catch (error const& e) {
    notes.push_back(fmt::format("{} is left out: {}", name, e.what()));
  }
  return std::nullopt;
}

}  // namespace detail

/// Every number of metrics.jsonl; lists and texts are left out, null is NaN.
[[gnu::cold]] inline metric_table read_metrics(std::filesystem::path const& path, std::vector<std::string>& notes) {
  metric_table t;
  std::map<std::string, std::size_t> place;
  detail::for_each_good_line(path, false, notes, [&](std::string_view line, index_t) {
    json const m = detail::parse_ordered(line);
    double const step = m.at("step").get<double>();
    expects<file_error>(t.steps.empty() || step > t.steps.back(), "step {} comes after step {}", step,
                        t.steps.empty() ? 0 : t.steps.back());
    for (auto const& [key, value] : m.items()) {
      if (key == "step" || !(value.is_number() || value.is_null())) continue;
      auto const [at, fresh] = place.try_emplace(key, t.columns.size());
      if (fresh)
        t.columns.emplace_back(key, std::vector<double>(t.steps.size(), std::numeric_limits<double>::quiet_NaN()));
      t.columns[at->second].second.push_back(detail::number_or_nan(value));
    }
    t.steps.push_back(step);
    t.row_names.push_back(fmt::format("step {}", step));
    for (auto& [key, values] : t.columns) values.resize(t.steps.size(), std::numeric_limits<double>::quiet_NaN());
  });
  return t;
}

/// At most `rows` rows: each is the mean of so many consecutive steps, the last one of fewer.
[[gnu::cold]] inline metric_table thin(metric_table const& t, std::size_t rows) {
  std::size_t const n = t.steps.size(), each = (n + rows - 1) / std::max<std::size_t>(1, rows);
  if (each <= 1) return t;
  metric_table out;
  for (auto const& [key, values] : t.columns) out.columns.emplace_back(key, std::vector<double>());
  for (std::size_t first = 0; first < n; first += each) {
    std::size_t const last = std::min(n, first + each);
    out.steps.push_back(t.steps[last - 1]);
    out.row_names.push_back(last - first == 1 ? t.row_names[first]
                                              : fmt::format("steps {} to {}, mean", t.steps[first], t.steps[last - 1]));
    for (std::size_t k = 0; k < t.columns.size(); ++k) {
      double sum = 0;
      int known = 0;
      for (std::size_t i = first; i < last; ++i)
        if (double const v = t.columns[k].second[i]; std::isfinite(v)) sum += v, ++known;
      out.columns[k].second.push_back(known ? sum / known : std::numeric_limits<double>::quiet_NaN());
    }
  }
  return out;
}

[[gnu::cold]] inline page_completion completion_from(json const& c) {
  page_completion out;
  auto const text = [&](char const* key) { return c.at(key).get<std::string>(); };
  out.step = c.at("step").get<double>();
  out.group = c.at("group").get<int>();
  out.member = c.at("member").get<int>();
  out.item = text("item");
  out.prompt = text("prompt");
  out.text = text("text");
  out.truth = text("truth");
  if (c.contains("extracted") && c["extracted"].is_string()) out.extracted = text("extracted");
  out.correct = c.at("correct_strict").get<bool>();
  out.correct_flexible = c.value("correct_flexible", out.correct);
  out.truncated = c.value("truncated", false);
  out.reward = c.at("reward").get<double>();
  out.advantage = c.at("advantage").get<double>();
  if (c.contains("rewards"))
    for (auto const& [name, value] : c["rewards"].items()) out.rewards.emplace_back(name, detail::number_or_nan(value));
  if (c.contains("saliency") && c["saliency"].is_object()) {
    out.tokens = c["saliency"].at("tokens").get<std::vector<std::string>>();
    for (auto const& v : c["saliency"].at("values")) out.saliency.push_back(detail::number_or_nan(v));
    expects<file_error>(out.tokens.size() == out.saliency.size(), "{} tokens but {} saliency values", out.tokens.size(),
                        out.saliency.size());
  }
  return out;
}

/// Completions of the first, the last and evenly spaced steps between them, in the file's order.
/// \param how_many  steps
[[gnu::cold]] inline std::vector<page_completion> read_completions(std::filesystem::path const& path,
                                                                   std::size_t how_many,
                                                                   std::vector<std::string>& notes) {
  // Lines begin with the step; most of a long file need not be parsed.
  auto const step_of = [](std::string_view line) {
    static constexpr std::string_view front = "{\"step\":";
    if (line.starts_with(front)) {
      std::string_view const digits =
          line.substr(front.size(), line.find_first_not_of("0123456789", front.size()) - front.size());
      if (!digits.empty() && digits.size() < 16) return double(std::stoll(std::string(digits)));
    }
    return detail::parse_ordered(line).at("step").get<double>();
  };
  std::vector<double> steps;
  std::vector<std::string> found;
  bool const there = detail::for_each_good_line(path, false, found, [&](std::string_view line, index_t) {
    double const step = step_of(line);
    if (steps.empty() || steps.back() != step) steps.push_back(step);
  });
  if (!there) {
    notes.insert(notes.end(), found.begin(), found.end());
    return {};
  }
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  std::vector<double> chosen;
  for (std::size_t k = 0; k < how_many && !steps.empty(); ++k) {
    double const s = steps[how_many == 1 ? 0 : (k * (steps.size() - 1) + (how_many - 1) / 2) / (how_many - 1)];
    if (chosen.empty() || chosen.back() != s) chosen.push_back(s);
  }
  std::vector<page_completion> out;
  detail::for_each_good_line(path, true, notes, [&](std::string_view line, index_t) {
    if (!std::binary_search(chosen.begin(), chosen.end(), step_of(line))) return;
    out.push_back(completion_from(detail::parse_ordered(line)));
  });
  return out;
}

/// Seconds and tokens of a part of the run, over all its lines of timings.jsonl.
struct phase_time {
  std::string name;
  double seconds = 0, tokens = 0;
};

struct run_times {
  std::vector<phase_time> phases;  ///< in the order of first appearance
  double peak_process_bytes = 0, peak_tensor_bytes = 0;
};

[[gnu::cold]] inline run_times read_timings(std::filesystem::path const& path, std::vector<std::string>& notes) {
  run_times out;
  auto const add = [&](std::string const& name, json const& x) {
    double const seconds = x.at("seconds").get<double>(), tokens = x.value("tokens", 0.0);
    auto at = std::find_if(out.phases.begin(), out.phases.end(), [&](phase_time const& p) { return p.name == name; });
    if (at == out.phases.end()) at = out.phases.insert(at, {name});
    at->seconds += seconds;
    at->tokens += tokens;
  };
  detail::for_each_good_line(path, true, notes, [&](std::string_view line, index_t) {
    json const t = detail::parse_ordered(line);
    std::string const phase = t.at("phase").get<std::string>();
    if (t.contains("seconds")) add(phase, t);
    for (auto const& [key, value] : t.items())
      if (value.is_object() && value.contains("seconds")) add(key, value);
    out.peak_process_bytes = std::max(out.peak_process_bytes, t.value("peak_process_bytes", 0.0));
    out.peak_tensor_bytes = std::max(out.peak_tensor_bytes, t.value("peak_tensor_bytes", 0.0));
  });
  return out;
}

/// A line of causal.jsonl: a test of the saliency inside the run.
struct causal_line {
  double step = 0;
  std::vector<page_chart> charts;
  std::vector<std::pair<std::string, std::string>> numbers;
};

[[gnu::cold]] inline std::vector<causal_line> read_causal(std::filesystem::path const& path,
                                                          std::vector<std::string>& notes) {
  std::vector<causal_line> out;
  detail::for_each_good_line(path, true, notes, [&](std::string_view line, index_t) {
    json const j = detail::parse_ordered(line);
    causal_line c;
    c.step = j.at("step").get<double>();
    for (auto const& x : j.value("charts", json::array())) {
      page_chart chart{.title = x.at("title").get<std::string>(),
                       .x_label = x.value("x_label", ""),
                       .y_label = x.value("y_label", ""),
                       .curves = {}};
      for (auto const& y : x.at("curves")) {
        page_curve curve{
            .name = y.at("name").get<std::string>(), .x = {}, .y = {}, .control = y.value("control", false)};
        for (auto const& v : y.at("x")) curve.x.push_back(detail::number_or_nan(v));
        for (auto const& v : y.at("y")) curve.y.push_back(detail::number_or_nan(v));
        expects<file_error>(curve.x.size() == curve.y.size(), "the curve {} has {} x but {} y", curve.name,
                            curve.x.size(), curve.y.size());
        chart.curves.push_back(std::move(curve));
      }
      c.charts.push_back(std::move(chart));
    }
    for (auto const& [key, value] : j.items())
      if (key != "step" && value.is_number()) c.numbers.emplace_back(key, number(value.get<double>()));
    out.push_back(std::move(c));
  });
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI::html
