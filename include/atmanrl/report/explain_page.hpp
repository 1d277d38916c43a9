#pragma once

/// \file
/// The page of an explanation: which tokens of a chain of thought an answer leans on, by several estimators side by
/// side, with deletion and insertion curves. Plain structs, so that any program can fill them.

#include <atmanrl/io/file.hpp>
#include <atmanrl/report/chart.hpp>
#include <atmanrl/report/page.hpp>
#include <atmanrl/report/token_colours.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// One estimator's value for every token of an item; NaN leaves a token uncoloured.
struct token_saliency_column {
  std::string name;
  std::vector<double> values;
  std::string note = {};  ///< shown below, such as its cost or its rank agreement with another one
};

struct explain_item {
  std::string id = {};  ///< may be empty
  std::string prompt = {}, text = {};
  std::string truth = {};
  std::optional<std::string> extracted = {};
  std::optional<bool> correct = {};
  std::vector<std::string> tokens = {};  ///< of the chain of thought
  std::vector<token_saliency_column> saliency = {};
  std::vector<page_chart> charts = {};
  std::vector<std::pair<std::string, std::string>> facts = {};  ///< name and value
};

struct explain_page {
  std::string title = "atmanrl explain";
  std::vector<std::pair<std::string, std::string>> facts = {};  ///< model, task, options
  std::vector<explain_item> items = {};
  std::vector<page_chart> charts = {};               ///< means over all items
  std::vector<std::vector<std::string>> table = {};  ///< the first row is the head, the first column names the rows
  std::string table_caption = {};
  std::vector<std::string> notes = {};
};

namespace html::detail {

[[gnu::cold]] inline std::string explain_table(explain_page const& p) {
  if (p.table.empty()) return {};
  std::string out = "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Estimators\"><table>\n<caption>" +
                    escape(p.table_caption) + "</caption>\n<thead><tr>";
  for (std::size_t k = 0; k < p.table.front().size(); ++k)
    out += fmt::format("<th scope=\"col\"{}>{}</th>", k ? " class=\"n\"" : "", escape(p.table.front()[k]));
  out += "</tr></thead>\n<tbody>\n";
  for (std::size_t i = 1; i < p.table.size(); ++i) {
    out += "<tr>";
    for (std::size_t k = 0; k < p.table[i].size(); ++k)
      out += k == 0 ? "<th scope=\"row\">" + escape(p.table[i][k]) + "</th>"
                    : "<td class=\"n\">" + escape(p.table[i][k]) + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

inline std::string charts_grid(std::vector<page_chart> const& charts) {
  if (charts.empty()) return {};
  std::string out = "<div class=\"grid\">\n";
  for (page_chart const& c : charts) out += chart(c);
  return out + "</div>\n";
}

/// An estimator's scale is its own: their units differ. It is the same for all items.
[[gnu::cold]] inline std::string explain_item_html(explain_item const& item, std::size_t number_of_item,
                                                   std::map<std::string, token_scale> const& scales) {
  std::string const id = fmt::format("item-{}", number_of_item);
  std::string const name = item.id.empty() ? fmt::format("Item {}", number_of_item) : fmt::format("{}", item.id);
  std::string out = fmt::format("<article class=\"item\" aria-labelledby=\"{0}\">\n<h3 id=\"{0}\">{1}</h3>\n", id,
                                escape_front(name, 120));
  if (item.prompt.size() <= 600)
    out += "<p class=\"t soft\">" + escape(item.prompt) + "</p>\n";
  else
    out +=
        "<details><summary>Prompt</summary><pre class=\"t\">" + escape_front(item.prompt, 8000) + "</pre></details>\n";
  if (!item.truth.empty() || item.extracted) {
    out += "<p>";
    if (item.correct)
      out += fmt::format("<span class=\"{}\">{}</span> ", *item.correct ? "good" : "bad",
                         *item.correct ? "✓ correct:" : "✗ wrong:");
    out += "answer <bdi>" + (item.extracted ? escape_front(*item.extracted, 200) : std::string("none")) + "</bdi>";
    if (!item.truth.empty()) out += ", truth <bdi>" + escape_front(item.truth, 200) + "</bdi>";
    out += "</p>\n";
  }
  std::string chain;
  for (std::string const& t : item.tokens) chain += t;
  std::string_view const rest =
      item.text.starts_with(chain) ? std::string_view(item.text).substr(chain.size()) : std::string_view();
  if (item.saliency.empty()) {
    out += "<p class=\"t\">" + escape_front(item.text.empty() ? chain : item.text, 8000) + "</p>\n";
  } else {
    out += "<div class=\"columns\">\n";
    for (token_saliency_column const& c : item.saliency) {
      token_scale const& scale = scales.at(c.name);
      out += "<figure><figcaption><b>" + escape(c.name) + "</b></figcaption>\n" + legend(scale, "value") +
             coloured(item.tokens, c.values, scale, rest) + strongest(item.tokens, c.values);
      if (!c.note.empty()) out += "<p class=\"top5\">" + escape(c.note) + "</p>\n";
      out += "</figure>\n";
    }
    out += "</div>\n";
  }
  return out + charts_grid(item.charts) + html::facts(item.facts) + "</article>\n";
}

}  // namespace html::detail

/// The page as text. Items beyond about 2.5 MB are left out, which a note says.
/// \throws shape_error when a column has another number of values than its item has tokens
[[gnu::cold]] inline std::string explain_page_text(explain_page const& page) {
  static constexpr std::size_t most_bytes = 2500000;
  std::map<std::string, std::vector<double>> values;
  for (std::size_t i = 0; i < page.items.size(); ++i)
    for (token_saliency_column const& c : page.items[i].saliency) {
      expects<shape_error>(c.values.size() == page.items[i].tokens.size(),
                           "item {}: the column {} has {} values but there are {} tokens", i + 1, c.name,
                           c.values.size(), page.items[i].tokens.size());
      auto& all = values[c.name];
      all.insert(all.end(), c.values.begin(), c.values.end());
    }
  std::map<std::string, html::token_scale> scales;
  for (auto& [name, all] : values) scales[name] = html::token_scale::of(std::move(all));

  std::vector<std::pair<std::string, std::string>> sections;
  std::vector<std::string> notes = page.notes;
  std::string overview = html::detail::explain_table(page) + html::detail::charts_grid(page.charts), items;
  std::size_t shown = 0;
  for (; shown < page.items.size(); ++shown) {
    std::string const next = html::detail::explain_item_html(page.items[shown], shown + 1, scales);
    if (items.size() + next.size() > most_bytes && shown > 0) break;
    items += next;
  }
  if (shown < page.items.size())
    notes.push_back(fmt::format("{} of {} items are shown, so that the file stays small", shown, page.items.size()));
  std::string body;
  auto const section = [&](char const* id, char const* name, std::string const& content) {
    if (content.empty()) return;
    sections.emplace_back(id, name);
    body +=
        fmt::format("<section aria-labelledby=\"{0}\">\n<h2 id=\"{0}\">{1}</h2>\n{2}</section>\n", id, name, content);
  };
  section("all", "All items", overview);
  section("items", "Items", items);
  return html::document(page.title, html::heading(page.title, "", sections) + "<main id=\"content\">\n" +
                                        html::notes(notes) + html::facts(page.facts) + body +
                                        "</main>\n<footer>Written by atmanrl. Saliency is a necessary, not a "
                                        "sufficient, condition for faithfulness.</footer>\n");
}

/// \throws shape_error when a column has another number of values than its item has tokens
/// \throws file_error when the file cannot be written
inline void write_explain_page(std::filesystem::path const& html, explain_page const& page) {
  write_file_atomically(html, explain_page_text(page));
}

}  // namespace atmanrl::inline ATMANRL_ABI
