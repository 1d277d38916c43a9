#pragma once

/// \file
/// The best and the worst completion of each group as a table, the chain of thought coloured by token saliency.

#include <atmanrl/report/run_data.hpp>
#include <atmanrl/report/token_colours.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::html {

struct completion_limits {
  std::size_t steps = 5;            ///< first, last and between
  std::size_t groups_per_step = 4;  ///< the first ones
  std::size_t bytes = 1600000;      ///< of HTML over all steps
};

namespace detail {

/// The rows of one group: its best and its worst completion by reward, or the first where all are equal.
struct shown_group {
  std::vector<page_completion const*> rows;
  std::size_t size = 0;
};

[[gnu::cold]] inline shown_group best_and_worst(std::vector<page_completion const*> const& group) {
  auto const less = [](page_completion const* a, page_completion const* b) { return a->reward < b->reward; };
  page_completion const *const best = *std::max_element(group.begin(), group.end(), less), *const worst =
                                                                                               *std::min_element(
                                                                                                   group.begin(),
                                                                                                   group.end(), less);
  if (best->reward == worst->reward) return {{best}, group.size()};
  return {{best, worst}, group.size()};
}

inline std::string reward_cell(page_completion const& c) {
  std::string out =
      "<td data-name=\"Reward\"><dl class=\"parts\"><dt>reward</dt><dd><b>" + number(c.reward, 4) + "</b></dd>";
  for (auto const& [name, value] : c.rewards) out += "<dt>" + escape(name) + "</dt><dd>" + number(value, 4) + "</dd>";
  return out + "</dl></td>";
}

[[gnu::cold]] inline std::string answer_cell(page_completion const& c) {
  std::string const said = c.extracted ? "<bdi>" + escape_front(*c.extracted, 80) + "</bdi>" : std::string("none");
  std::string out = fmt::format(
      "<td data-name=\"Answer\"><span class=\"{}\"><span class=\"verdict\">{}</span> {}</span>"
      "<br><span class=\"soft\">truth <bdi>{}</bdi></span>",
      c.correct ? "good" : "bad", c.correct ? "✓ correct:" : "✗ wrong:", said, escape_front(c.truth, 80));
  if (c.truncated) out += "<br><span class=\"soft\">cut off</span>";
  return out + "</td>";
}

[[gnu::cold]] inline std::string text_cell(page_completion const& c, token_scale const& scale) {
  std::string out = "<td class=\"cot\" data-name=\"Completion\">";
  if (c.tokens.empty())
    return out + "<p class=\"t\">" + escape_front(c.text, 6000) + "</p><p class=\"top5\">it has no saliency</p></td>";
  std::string chain;
  for (std::string const& t : c.tokens) chain += t;
  // After the chain: the delimiter and the answer.
  std::string_view const rest =
      c.text.starts_with(chain) ? std::string_view(c.text).substr(chain.size()) : std::string_view();
  return out + coloured(c.tokens, c.saliency, scale, rest) + strongest(c.tokens, c.saliency) + "</td>";
}

[[gnu::cold]] inline std::string group_rows(shown_group const& g, token_scale const& scale) {
  page_completion const& first = *g.rows.front();
  std::string out =
      "<tbody><tr><th class=\"q\" colspan=\"5\" scope=\"rowgroup\"><b>" + escape_front(first.item, 80) + "</b>";
  if (first.prompt.size() <= 600)
    out += " <p class=\"t\">" + escape(first.prompt) + "</p>";
  else
    out +=
        "<details><summary>Prompt</summary><pre class=\"t\">" + escape_front(first.prompt, 6000) + "</pre></details>";
  out += "</th></tr>\n";
  for (std::size_t k = 0; k < g.rows.size(); ++k) {
    page_completion const& c = *g.rows[k];
    std::string const name = g.rows.size() == 1 ? fmt::format("all {} rewards are equal", g.size)
                                                : fmt::format("{} of {}", k == 0 ? "best" : "worst", g.size);
    out += fmt::format("<tr{}><th scope=\"row\">{}</th>", k + 1 == g.rows.size() ? " class=\"last\"" : "", name) +
           text_cell(c, scale) + answer_cell(c) + reward_cell(c) +
           fmt::format("<td class=\"n\" data-name=\"Advantage\">{}</td></tr>\n", number(c.advantage, 4));
  }
  return out + "</tbody>\n";
}

}  // namespace detail

/// What the colours say.
/// \param masks      whether they are of learned masks
/// \param estimator  the name of another one, where it is known
[[gnu::cold]] inline std::string saliency_sentence(bool masks, std::string const& estimator) {
  if (masks)
    return "Colours are token saliency: 1 where the mask was fully re-enabled, 0 where it stayed at its start, below 0 "
           "where it was suppressed further.";
  return estimator.empty() ? "Colours are token saliency, in the units of its estimator."
                           : "Colours are token saliency by " + escape(estimator) + ", in its units.";
}

/// The tables, one per step, or a sentence where there are no completions. What does not fit is named in a sentence.
/// \param meaning  of the colours
[[gnu::cold]] inline std::string completion_tables(std::vector<page_completion> const& all, std::string const& meaning,
                                                   completion_limits const& limits = {}) {
  if (all.empty()) return "<p>There are no completions.</p>\n";
  std::map<double, std::map<int, std::vector<page_completion const*>>> by_step;
  std::vector<double> values;
  for (page_completion const& c : all) {
    by_step[c.step][c.group].push_back(&c);
    values.insert(values.end(), c.saliency.begin(), c.saliency.end());
  }
  token_scale const scale = token_scale::of(std::move(values));
  std::string out = "<p>" + meaning + " Values stand under the pointer.</p>\n" + legend(scale, "token saliency");
  for (auto const& [step, groups] : by_step) {
    std::size_t const budget = limits.bytes / by_step.size();
    std::string rows;
    std::size_t shown = 0;
    for (auto const& [group, members] : groups) {
      std::string const next =
          shown < limits.groups_per_step ? detail::group_rows(detail::best_and_worst(members), scale) : std::string();
      if (next.empty() || rows.size() + next.size() > budget) break;
      rows += next;
      ++shown;
    }
    out += fmt::format("<h3>Step {}</h3>\n", step);
    if (shown == 0) {
      out += "<p>Its completions are too long to be shown here; completions.jsonl has them.</p>\n";
      continue;
    }
    out += fmt::format(
        "<table class=\"completions\"><caption>{} of {} groups, best and worst completion of each by "
        "reward</caption>\n",
        shown, groups.size());
    out +=
        "<thead><tr><th scope=\"col\">Rank</th><th scope=\"col\">Completion</th><th scope=\"col\">Answer</th><th "
        "scope=\"col\">Reward</th>"
        "<th scope=\"col\" class=\"n\">Advantage</th></tr></thead>\n" +
        rows + "</table>\n";
  }
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI::html
