#pragma once
// One content, as markdown and as a page.
#include <atmanrl/report/chart.hpp>
#include <atmanrl/report/page.hpp>

#include "verdict_tables.hpp"

#include <variant>

namespace faithfulness::findings {

struct heading {
  std::string text;
};
struct paragraph {
  std::string text;
};
/// One row per name; every value is drawn, and a bar where the median is.
struct dot_chart {
  struct point {
    double value;
    std::string name;
  };
  struct row {
    std::string name;
    std::vector<point> points;
    double median;
  };
  std::string title, label;
  std::optional<std::pair<double, double>> range;  ///< of the axis, where it is known
  std::vector<row> rows;
};
struct section {
  std::string id, title;
  std::vector<std::variant<heading, paragraph, table, std::vector<dot_chart>>> blocks = {};
};

/// A cell's text, so that its bars do not end the cell.
inline std::string markdown_cell(std::string const& text) {
  std::string out;
  for (char const c : text) out += c == '|' ? "\\|" : std::string(1, c);
  return out;
}
inline std::string markdown_row(std::vector<std::string> const& cells) {
  std::string out = "|";
  for (std::string const& c : cells) out += " " + markdown_cell(c) + " |";
  return out + "\n";
}
inline std::string markdown(table const& t) {
  std::string out = t.caption + "\n\n" + markdown_row(t.header) + "|";
  for (std::size_t i = 0; i < t.header.size(); ++i) out += "---|";
  out += "\n";
  for (auto const& row : t.rows) out += markdown_row(row);
  return out;
}
/// Charts are the page's alone; the tables hold their medians and ends.
inline std::string markdown(std::string const& title, std::vector<section> const& sections) {
  std::string out = "# " + title + "\n";
  for (section const& s : sections) {
    out += "\n## " + s.title + "\n";
    for (auto const& block : s.blocks) {
      if (auto const* h = std::get_if<heading>(&block)) out += "\n### " + h->text + "\n";
      if (auto const* p = std::get_if<paragraph>(&block)) out += "\n" + p->text + "\n";
      if (auto const* t = std::get_if<table>(&block)) out += "\n" + markdown(*t);
    }
  }
  return out;
}

inline std::string html_of(table const& t) {
  using html::escape;
  // A caption inside would be as wide as the table, which may have to be moved to be seen.
  std::string const caption = escape(t.caption);
  std::string out = fmt::format("<p class=\"soft\">{}</p>\n<div{}><table aria-label=\"{}\"><thead><tr>", caption,
                                t.sentences ? "" : " class=\"wide\" tabindex=\"0\"", caption);
  for (std::string const& h : t.header) out += "<th scope=\"col\">" + escape(h) + "</th>";
  out += "</tr></thead><tbody>\n";
  for (auto const& row : t.rows) {
    out += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i)
      out += i == 0 ? "<th scope=\"row\">" + escape(row[i]) + "</th>" : "<td>" + escape(row[i]) + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

inline std::string html_of(dot_chart const& c) {
  using html::escape, html::number;
  static constexpr double width = 420, left = 150, right = 408, line = 20, top = 6;
  std::string out = fmt::format("<figure class=\"chart\"><figcaption><b>{}</b> <span>{}</span></figcaption>\n",
                                escape(c.title), escape(c.label));
  html::detail::range x;
  for (auto const& row : c.rows)
    for (auto const& p : row.points) x.add(p.value);
  if (x.empty()) return out + "<p class=\"soft\">no values</p></figure>\n";
  if (c.range) x.add(c.range->first), x.add(c.range->second);
  if (!c.range || x.flat()) x.widen(0.05);
  html::detail::axis const at{x.low, x.high, left, right};
  double const bottom = top + line * double(c.rows.size());
  std::string summary = c.title + ".";
  for (auto const& row : c.rows)
    summary += fmt::format(" {}: median {} of {} runs.", row.name, number(row.median, 4), row.points.size());
  out += fmt::format("<svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", width, bottom + 22,
                     escape(summary));
  for (double const tick : html::detail::ticks(x.low, x.high, 5))
    out += fmt::format(
        "<path class=\"g\" d=\"M{:.1f} {}V{}\"/><text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
        at(tick), top, bottom, at(tick), bottom + 15, number(tick, 4));
  for (std::size_t i = 0; i < c.rows.size(); ++i) {
    auto const& row = c.rows[i];
    double const y = top + line * (double(i) + 0.5);
    out +=
        fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", left - 8, y + 3.5, escape(row.name));
    // Above and below the row's line by turns, so that equal values are seen side by side.
    for (std::size_t k = 0; k < row.points.size(); ++k)
      out += fmt::format(
          "<g class=\"h\"><title>{}, {}: {}</title><circle class=\"f0\" fill-opacity=\"0.6\" cx=\"{:.1f}\" "
          "cy=\"{:.1f}\" r=\"2.6\"/></g>\n",
          escape(row.name), escape(row.points[k].name), number(row.points[k].value, 4), at(row.points[k].value),
          y + 2.2 * (double(k % 5) - 2));
    out += fmt::format("<path class=\"l s1\" d=\"M{:.1f} {:.1f}V{:.1f}\"/>\n", at(row.median), y - 8, y + 8);
  }
  return out + "</svg></figure>\n";
}

inline std::string page(std::string const& title, std::string const& line, std::vector<section> const& sections) {
  using html::escape;
  std::vector<std::pair<std::string, std::string>> links;
  for (section const& s : sections) links.emplace_back(s.id, s.title);
  std::string body = html::heading(title, escape(line), links) + "<main id=\"content\">\n";
  for (section const& s : sections) {
    body += fmt::format("<section><h2 id=\"{}\">{}</h2>\n", s.id, escape(s.title));
    for (auto const& block : s.blocks) {
      if (auto const* h = std::get_if<heading>(&block)) body += "<h3>" + escape(h->text) + "</h3>\n";
      if (auto const* p = std::get_if<paragraph>(&block)) body += "<p>" + escape(p->text) + "</p>\n";
      if (auto const* t = std::get_if<table>(&block)) body += html_of(*t);
      if (auto const* charts = std::get_if<std::vector<dot_chart>>(&block)) {
        body += "<p class=\"soft\">Each point is a run; bars are medians over pre-training seeds.</p>\n";
        body += "<div class=\"grid\">\n";
        for (dot_chart const& c : *charts) body += html_of(c);
        body += "</div>\n";
      }
    }
    body += "</section>\n";
  }
  return html::document(title, body + "</main>\n");
}

/// Every run of a kind as a point, a row per arm, for a quantity that some run has.
inline std::optional<dot_chart> chart_of(all_runs const& runs, std::string const& kind, measure const& m) {
  if (!runs.measured(kind, m)) return std::nullopt;
  dot_chart out{.title = m.title,
                .label = m.share ? "percent" : "mean",
                .range = m.share ? std::optional(std::pair(0.0, 100.0)) : std::nullopt,
                .rows = {}};
  double const scale = m.share ? 100 : 1;
  for (std::string const& arm : runs.arms(kind)) {
    dot_chart::row row{.name = arm, .points = {}, .median = 0};
    for (run const& r : runs.of(kind, arm))
      if (auto const x = r.value(m)) row.points.push_back({scale * *x, "seed " + r.place()});
    if (row.points.empty()) continue;
    row.median = scale * spread_of(runs.by_seed(kind, arm, m)).median;
    out.rows.push_back(std::move(row));
  }
  return out;
}

}  // namespace faithfulness::findings
