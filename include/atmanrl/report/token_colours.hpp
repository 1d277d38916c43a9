#pragma once

/// \file
/// A text whose tokens are coloured by a value each. The scale is sequential with nine steps of one hue; values beyond
/// its ends get the end's colour, so that a few outliers do not wash out the rest.

#include <atmanrl/core/statistics.hpp>
#include <atmanrl/report/html.hpp>

#include <algorithm>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::html {

struct token_scale {
  double low = 0, high = 1;
  bool clipped = false;  ///< some values lie beyond the ends

  /// From the 2nd to the 98th percentile of the finite values.
  static token_scale of(std::vector<double> values) {
    std::erase_if(values, [](double v) { return !std::isfinite(v); });
    if (values.empty()) return {};
    std::sort(values.begin(), values.end());
    token_scale s{quantile_of_sorted(values, 0.02), quantile_of_sorted(values, 0.98), false};
    if (!(s.low < s.high)) s = {values.front(), values.back(), false};
    s.clipped = values.front() < s.low || values.back() > s.high;
    return s;
  }

  /// 0 to 8; values that do not differ have the middle colour.
  int step(double v) const { return low < high ? int(std::clamp(9 * (v - low) / (high - low), 0.0, 8.0)) : 4; }
};

/// The colours with the numbers at the ends.
/// \param meaning  what the colour says, as text
inline std::string legend(token_scale const& s, std::string_view meaning) {
  std::string out = "<p class=\"scale\"><span>" + escape(meaning) + ":</span><span>" + (s.clipped ? "≤ " : "") +
                    number(s.low, 3) + "</span><i aria-hidden=\"true\">";
  for (int k = 0; k < 9; ++k) out += fmt::format("<b class=\"t{}\"></b>", k);
  return out + "</i><span>" + (s.clipped ? "≥ " : "") + number(s.high, 3) + "</span></p>\n";
}

/// The tokens as coloured spans, then `rest` as it is. A token without text is part of a character that ends in a later
/// token: a dot stands for it.
/// \param values  one per token; one that is not finite leaves the token uncoloured
[[gnu::cold]] inline std::string coloured(std::span<std::string const> tokens, std::span<double const> values,
                                          token_scale const& scale, std::string_view rest = {},
                                          std::size_t at_most = 4000) {
  std::string out = "<p class=\"t\">";
  std::size_t const shown = std::min(tokens.size(), at_most);
  for (std::size_t i = 0; i < shown; ++i) {
    std::string text;
    for (char const c : escape(tokens[i]))
      text += c == '\n' ? std::string("<span class=\"sign\">↵</span>\n") : std::string(1, c);
    if (text.empty()) text = "<span class=\"sign\">·</span>";
    if (std::isfinite(values[i]))
      out +=
          fmt::format("<span class=\"t{}\" title=\"{}\">{}</span>", scale.step(values[i]), number(values[i], 4), text);
    else
      out += "<span>" + text + "</span>";
  }
  if (shown < tokens.size()) out += fmt::format(" <em>[{} further tokens]</em>", tokens.size() - shown);
  if (!rest.empty()) out += "<span class=\"rest\">" + escape_front(rest, 4000) + "</span>";
  return out + "</p>\n";
}

/// The tokens with the largest values as a sentence: what the colours say, for those who do not see them.
[[gnu::cold]] inline std::string strongest(std::span<std::string const> tokens, std::span<double const> values,
                                           std::size_t count = 5) {
  std::vector<std::size_t> order(tokens.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::erase_if(order, [&](std::size_t i) { return !std::isfinite(values[i]); });
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] > values[b]; });
  if (order.size() > count) order.resize(count);
  if (order.empty()) return {};
  std::string out = "<p class=\"top5\">strongest: ";
  for (std::size_t k = 0; k < order.size(); ++k)
    out += fmt::format("{}<bdi>“{}”</bdi> {} (token {})", k ? ", " : "", escape(tokens[order[k]]),
                       number(values[order[k]], 3), order[k] + 1);
  return out + "</p>\n";
}

}  // namespace atmanrl::inline ATMANRL_ABI::html
