#pragma once

/// \file
/// Small line charts as inline SVG: axes with round numbers, a legend, the values under the pointer, a sentence for
/// those who do not see it. Lines differ by dashes as well as by colour.

#include <atmanrl/core/error.hpp>
#include <atmanrl/report/html.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// y over x; a value that is not finite leaves a gap.
struct page_curve {
  std::string name;
  std::vector<double> x, y;
  bool control = false;  ///< random order and the like: drawn thin and grey
};

/// The area between two curves over x.
struct page_band {
  std::string name;
  std::vector<double> x, low, high;
};

struct page_chart {
  std::string title, x_label, y_label;
  std::vector<page_curve> curves;
  std::vector<page_band> bands = {};
  std::optional<double> y_low = {}, y_high = {};  ///< what the axis must show at least
  bool smooth = false;                            ///< draws a running mean over the values when there are 30 and more
  std::map<double, std::string> x_names = {};  ///< what the display under the pointer calls an x, else `x_label` and x
};

namespace html {

namespace detail {

/// About `count` round numbers that cover [low, high] (Heckbert 1990, Nice numbers for graph labels).
[[gnu::cold]] inline std::vector<double> ticks(double low, double high, int count) {
  double const raw = (high - low) / count, power = std::pow(10.0, std::floor(std::log10(raw)));
  double const share = raw / power, step = power * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
  std::vector<double> out;
  double const first = std::ceil(low / step - 1e-9);
  for (int k = 0; k <= 2 * count && (first + k) * step <= high + 1e-9 * step; ++k)
    out.push_back((first + k) * step + 0.0);
  return out;
}

struct axis {
  double low = 0, high = 1, from = 0, to = 1;  ///< values, and where they lie in the picture
  double operator()(double x) const { return from + (x - low) / (high - low) * (to - from); }
};

/// Beyond it, differences of values leave the range of double.
constexpr bool drawable(double x) { return x > -1e300 && x < 1e300; }

struct range {
  double low = INFINITY, high = -INFINITY;
  void add(double x) {
    if (!drawable(x)) return;
    low = std::min(low, x);
    high = std::max(high, x);
  }
  bool empty() const { return low > high; }
  /// Too narrow for an axis: rounding would decide where its values lie.
  bool flat() const { return !(high - low > 1e-9 * std::max(std::abs(low), std::abs(high))); }
  void widen(double share) {
    double const by = flat() ? (high == 0 ? 0.5 : std::abs(high) * 0.1) : share * (high - low);
    low -= by;
    high += by;
  }
};

/// Centred running mean; near the ends over what there is.
[[gnu::cold]] inline std::vector<double> running_mean(std::vector<double> const& y, std::size_t half) {
  std::vector<double> out(y.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    double sum = 0;
    int n = 0;
    std::size_t const reach = std::min({half, i, y.size() - 1 - i});
    for (std::size_t k = i - reach; k <= i + reach; ++k)
      if (std::isfinite(y[k])) sum += y[k], ++n;
    out[i] = n && std::isfinite(y[i]) ? sum / n : NAN;
  }
  return out;
}

[[gnu::cold]] inline std::string path_of(std::vector<double> const& x, std::vector<double> const& y, axis const& ax,
                                         axis const& ay) {
  std::string out;
  bool pen = false;
  for (std::size_t i = 0; i < x.size(); ++i) {
    bool const there = drawable(x[i]) && drawable(y[i]);
    if (there) out += fmt::format("{}{:.1f} {:.1f}", pen ? 'L' : 'M', ax(x[i]), ay(y[i]));
    pen = there;
  }
  return out;
}

inline constexpr std::array<char const*, 6> dashes{"", "6 3", "2 3", "9 3 2 3", "4 2", "1 4"};

/// Which of the six styles each curve has; controls have none.
inline std::vector<int> styles(page_chart const& c) {
  std::vector<int> out;
  int next = 0, control = 0;
  for (page_curve const& curve : c.curves) out.push_back(curve.control ? -1 - control++ : next++ % 6);
  return out;
}

inline std::string stroke_class(int style) { return style < 0 ? "sc" : fmt::format("s{}", style); }

inline std::string dash_attribute(int style) {
  char const* const dash = dashes[std::size_t(style < 0 ? (-style) % 6 : style)];
  return *dash ? fmt::format(" stroke-dasharray=\"{}\"", dash) : std::string();
}

inline std::string fill_class(int style) { return style < 0 ? "fc" : fmt::format("f{}", style); }

}  // namespace detail

/// The chart as a figure; a sentence where it has no values.
/// \throws shape_error when a curve has another number of x than of y
[[gnu::cold]] inline std::string chart(page_chart const& c) {
  using detail::axis, detail::range, detail::drawable, detail::ticks, detail::stroke_class, detail::dash_attribute;
  static constexpr double width = 420, height = 214, left = 46, right = 408, top = 8, bottom = 178;
  range rx, ry;
  auto const look_at = [&](std::vector<double> const& x, std::vector<double> const& y) {
    expects<shape_error>(x.size() == y.size(), "the chart \"{}\" has {} x but {} y", c.title, x.size(), y.size());
    for (std::size_t i = 0; i < x.size(); ++i)
      if (drawable(x[i]) && drawable(y[i])) rx.add(x[i]), ry.add(y[i]);
  };
  for (page_curve const& s : c.curves) look_at(s.x, s.y);
  for (page_band const& b : c.bands) look_at(b.x, b.low), look_at(b.x, b.high);

  std::string out = "<figure class=\"chart\"><figcaption><b>" + escape(c.title) + "</b>";
  if (!c.y_label.empty()) out += " <span>" + escape(c.y_label) + "</span>";
  out += "</figcaption>\n";
  if (ry.empty()) return out + "<p class=\"soft\">no values</p></figure>\n";

  std::vector<int> const style = detail::styles(c);
  out += "<ul class=\"legend\">";
  for (std::size_t k = 0; k < c.curves.size(); ++k)
    out += fmt::format(
        "<li><svg viewBox=\"0 0 24 10\" aria-hidden=\"true\"><path class=\"l {}\"{} d=\"M1 5H23\"/></svg>{}</li>",
        stroke_class(style[k]), dash_attribute(style[k]), escape(c.curves[k].name));
  for (std::size_t k = 0; k < c.bands.size(); ++k)
    out += fmt::format(
        "<li><svg viewBox=\"0 0 24 10\" aria-hidden=\"true\"><path class=\"b f{}\" d=\"M1 0H23V10H1Z\"/></svg>{}</li>",
        k % 6, escape(c.bands[k].name));
  out += "</ul>\n";

  double const data_low = ry.low, data_high = ry.high;
  if (c.y_low) ry.add(*c.y_low);
  if (c.y_high) ry.add(*c.y_high);
  if (ry.flat())
    ry.widen(0);
  else if (!(c.y_low && c.y_high && data_low >= *c.y_low && data_high <= *c.y_high))
    ry.widen(0.05);
  if (rx.flat()) rx.widen(0);
  axis const ax{rx.low, rx.high, left, right}, ay{ry.low, ry.high, bottom, top};

  std::string summary = c.title + " over " + c.x_label + ".";
  for (page_curve const& s : c.curves) {
    std::vector<double> known;
    for (double const y : s.y)
      if (drawable(y)) known.push_back(y);
    if (!known.empty())
      summary += fmt::format(" {}: from {} to {}.", s.name, number(known.front(), 4), number(known.back(), 4));
  }
  out += fmt::format("<svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", width, height,
                     escape(summary));
  for (double const y : ticks(ry.low, ry.high, 4))
    out += fmt::format(
        "<path class=\"g\" d=\"M{} {:.1f}H{}\"/><text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", left,
        ay(y), right, left - 6, ay(y) + 3.5, number(std::abs(y) < 1e-12 * (ry.high - ry.low) ? 0 : y, 4));
  for (double const x : ticks(rx.low, rx.high, 6)) {
    if (!c.x_names.empty() && x != std::floor(x)) continue;  // there is no half step
    out +=
        fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", ax(x), bottom + 16, number(x, 6));
  }
  out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", (left + right) / 2, height - 4,
                     escape(c.x_label));

  for (std::size_t k = 0; k < c.bands.size(); ++k) {
    page_band const& b = c.bands[k];
    std::string forth, back;
    for (std::size_t i = 0; i < b.x.size(); ++i) {
      if (!drawable(b.low[i]) || !drawable(b.high[i])) continue;
      forth += fmt::format("{}{:.1f} {:.1f}", forth.empty() ? 'M' : 'L', ax(b.x[i]), ay(b.high[i]));
      back.insert(0, fmt::format("L{:.1f} {:.1f}", ax(b.x[i]), ay(b.low[i])));
    }
    if (!forth.empty()) out += fmt::format("<path class=\"b f{}\" d=\"{}{}Z\"/>\n", k % 6, forth, back);
  }
  for (std::size_t k = 0; k < c.curves.size(); ++k) {
    page_curve const& s = c.curves[k];
    bool const smooth = c.smooth && s.y.size() >= 30;
    auto const line = [&](char const* kind, std::vector<double> const& y, std::string const& dash) {
      out += fmt::format("<path class=\"{} {}\"{} d=\"{}\"/>\n", kind, stroke_class(style[k]), dash,
                         detail::path_of(s.x, y, ax, ay));
    };
    if (smooth) {
      line("l raw", s.y, "");
      line("l", detail::running_mean(s.y, s.y.size() / 16), dash_attribute(style[k]));
    } else {
      line("l", s.y, dash_attribute(style[k]));
    }
    if (s.x.size() <= 24) {
      for (std::size_t i = 0; i < s.x.size(); ++i)
        if (drawable(s.y[i]) && drawable(s.x[i]))
          out += fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"/>\n",
                             detail::fill_class(style[k]), ax(s.x[i]), ay(s.y[i]), s.control ? 1.5 : 2.2);
    }
  }

  // A strip over each x shows the values there.
  std::map<double, std::string> at;
  for (page_curve const& s : c.curves)
    for (std::size_t i = 0; i < s.x.size(); ++i)
      if (drawable(s.x[i]) && drawable(s.y[i])) at[s.x[i]] += fmt::format("\n{}: {}", escape(s.name), number(s.y[i]));
  for (page_band const& b : c.bands)
    for (std::size_t i = 0; i < b.x.size(); ++i)
      if (drawable(b.low[i]) && drawable(b.high[i]))
        at[b.x[i]] += fmt::format("\n{}: {} to {}", escape(b.name), number(b.low[i]), number(b.high[i]));
  for (auto it = at.begin(); it != at.end(); ++it) {
    double const here = ax(it->first), before = it == at.begin() ? left - 6 : (ax(std::prev(it)->first) + here) / 2,
                 after = std::next(it) == at.end() ? right + 6 : (ax(std::next(it)->first) + here) / 2;
    auto const named = c.x_names.find(it->first);
    std::string const name = named == c.x_names.end() ? c.x_label + " " + number(it->first) : named->second;
    out += fmt::format(
        "<g class=\"h\"><title>{}{}</title><rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\"/><path "
        "d=\"M{:.1f} {}V{}\"/></g>\n",
        escape(name), it->second, before, top, after - before, bottom - top, here, top, bottom);
  }
  return out + "</svg></figure>\n";
}

}  // namespace html
}  // namespace atmanrl::inline ATMANRL_ABI
