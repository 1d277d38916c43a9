#pragma once

/// \file
/// What a step writes down: a line of metrics (TRL's names where TRL has one), a line per completion. Nothing here
/// depends on the clock, so that equal runs write equal bytes; timings have their own file. A value that does not exist
/// in a step is null.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/statistics.hpp>
#include <atmanrl/experiment/reward_parts.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/text/stream_decoder.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
/// "name", and "name_2" for the second component of that name.
std::vector<std::string> component_names(reward_table const& rewards);
}  // namespace detail

/// The step's line of metrics.jsonl.
/// \param masks  of the learned masks in use; nullptr where the reward trains none, and what is said of masks is null
json metrics_of(grpo_step_report const& report, mask_figures const* masks);

/// The texts of consecutive tokens, each valid UTF-8; a character that several tokens share stands at the last of them.
template <Tokenizer Z>
std::vector<std::string> token_texts(Z const& tokenizer, std::span<int const> ids) {
  stream_decoder<Z> decoder(tokenizer);
  std::vector<std::string> out;
  for (int const id : ids) out.push_back(decoder.push(id));
  if (!out.empty()) out.back() += decoder.flush();
  return out;
}

/// The step's lines of completions.jsonl, one for each rollout.
template <Tokenizer Z>
std::vector<json> completion_lines(grpo_step_report const& report, Z const& tokenizer) {
  std::vector<json> lines;
  auto const names = detail::component_names(report.rewards);
  auto const span_json = [](token_span s) { return json{s.first, s.last}; };
  report.rollouts.for_each([&](rollout_group const& g, rollout const& r, std::size_t i) {
    json& c = lines.emplace_back();
    c["step"] = report.rollouts.step;
    c["group"] = i / g.rollouts.size();
    c["member"] = r.member;
    c["item"] = g.item.id;
    c["prompt"] = to_valid_utf8(tokenizer.decode(g.prompt_ids));
    c["text"] = to_valid_utf8(r.text);
    c["truth"] = g.item.answer;
    c["extracted"] = r.grade.extracted ? json(to_valid_utf8(*r.grade.extracted)) : json();
    c["extracted_flexible"] = r.grade.extracted_flexible ? json(to_valid_utf8(*r.grade.extracted_flexible)) : json();
    c["correct_strict"] = r.grade.correct_strict;
    c["correct_flexible"] = r.grade.correct_flexible;
    c["truncated"] = r.truncated;
    c["reward"] = report.rewards.total[i];
    for (std::size_t k = 0; k < names.size(); ++k) c["rewards"][names[k]] = report.rewards.components[k].values[i];
    c["advantage"] = report.advantages[i];
    if (!report.token_advantages.empty()) c["token_advantages"] = report.token_advantages[i];
    c["spans"] = {{"cot", span_json(r.spans.cot)},
                  {"delimiter", span_json(r.spans.delimiter)},
                  {"answer", span_json(r.spans.answer)}};
    c["ids"] = r.ids;
    c["saliency"] = nullptr;
    if (r.mask) {
      auto const of_mask = [&](double x) { return r.mask->mask.empty() ? json() : json(x); };
      c["saliency"] = {{"tokens", token_texts(tokenizer, r.cot())},
                       {"values", r.mask->token_saliency},
                       {"ce_unmasked", r.mask->ce_unmasked},
                       {"ce_start", of_mask(r.mask->ce_start)},
                       {"ce_end", of_mask(r.mask->ce_end)},
                       {"re_enabled", r.mask->re_enabled},
                       {"as_printed", r.mask->as_printed}};
    }
  });
  return lines;
}
std::vector<json> completion_lines(grpo_step_report const& report, tokenizer const& words);

#if ATMANRL_BODIES

namespace detail {

ATMANRL_INLINE std::vector<std::string> component_names(reward_table const& rewards) {
  std::vector<std::string> names;
  std::map<std::string, int> seen;
  for (reward_component const& c : rewards.components) {
    int const n = ++seen[c.name];
    names.push_back(n == 1 ? c.name : fmt::format("{}_{}", c.name, n));
  }
  return names;
}

/// Mean over finite values, null without any.
inline json mean_or_null(std::vector<double> const& x) { return x.empty() ? json() : json(mean_of(x)); }

/// Unbiased standard deviation of a reward in each group.
inline std::vector<double> group_spreads(std::vector<float> const& rewards, std::size_t group_size) {
  std::vector<double> out;
  for (std::size_t i = 0; i + group_size <= rewards.size(); i += group_size)
    out.push_back(std_of(
        std::vector<double>(rewards.begin() + std::ptrdiff_t(i), rewards.begin() + std::ptrdiff_t(i + group_size))));
  return out;
}

[[gnu::cold]] inline void add_reward_metrics(json& m, grpo_step_report const& report, std::size_t group_size) {
  std::vector<double> const total(report.rewards.total.begin(), report.rewards.total.end());
  std::vector<double> const spreads = group_spreads(report.rewards.total, group_size);
  // TRL calls a spread zero below torch.isclose's absolute tolerance.
  auto const flat = std::count_if(spreads.begin(), spreads.end(), [](double s) { return s < 1e-8; });
  m["reward"] = mean_of(total);
  m["reward_std"] = mean_of(spreads);
  m["frac_reward_zero_std"] = double(flat) / double(std::max<std::size_t>(1, spreads.size()));
  m["groups"] = spreads.size();
  m["groups_with_spread"] = spreads.size() - std::size_t(flat);
  auto const names = component_names(report.rewards);
  for (std::size_t c = 0; c < names.size(); ++c) {
    reward_component const& part = report.rewards.components[c];
    std::vector<double> const values(part.values.begin(), part.values.end());
    m[fmt::format("rewards/{}/mean", names[c])] = mean_of(values);
    m[fmt::format("rewards/{}/std", names[c])] = std_of(values);
    m[fmt::format("rewards/{}/group_std", names[c])] = mean_of(group_spreads(part.values, group_size));
    m[fmt::format("rewards/{}/weight", names[c])] = part.weight;
  }
}

[[gnu::cold]] inline void add_completion_metrics(json& m, step_rollouts const& rollouts) {
  std::vector<double> lengths, terminated, cot, entropy;
  double truncated = 0, delimiter = 0, strict = 0, flexible = 0, unparsed = 0;
  rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t) {
    lengths.push_back(double(r.ids.size()));
    if (!r.truncated) terminated.push_back(double(r.ids.size()));
    cot.push_back(double(r.spans.cot.size()));
    entropy.insert(entropy.end(), r.entropies.begin(), r.entropies.end());
    truncated += r.truncated;
    delimiter += r.spans.has_delimiter;
    strict += r.grade.correct_strict;
    flexible += r.grade.correct_flexible;
    unparsed += !r.grade.extracted_flexible;
  });
  double const n = double(std::max<std::size_t>(1, lengths.size()));
  m["accuracy/strict"] = strict / n;
  m["accuracy/flexible"] = flexible / n;
  m["accuracy/unparsed"] = unparsed / n;
  m["completions/mean_length"] = mean_of(lengths);
  m["completions/min_length"] = lengths.empty() ? 0 : *std::min_element(lengths.begin(), lengths.end());
  m["completions/max_length"] = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
  m["completions/mean_terminated_length"] = mean_or_null(terminated);
  m["completions/mean_cot_length"] = mean_of(cot);
  m["completions/clipped_ratio"] = truncated / n;
  m["completions/delimiter_ratio"] = delimiter / n;
  m["entropy"] = mean_of(entropy);
}

[[gnu::cold]] inline void add_saliency_metrics(json& m, step_rollouts const& rollouts, mask_figures const* masks) {
  using result = saliency_result;
  auto const all = [&](auto&& figure) {
    std::vector<double> out;
    rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t) {
      if (r.mask) out.push_back(std::invoke(figure, *r.mask));
    });
    return out;
  };
  // Estimators without masks have other things in these places.
  auto const of_masks = [&](auto&& figure) { return masks ? mean_or_null(all(figure)) : json(); };
  std::vector<double> const re_enabled = all(&result::re_enabled), as_printed = all(&result::as_printed);
  auto const known = [&](double x) { return re_enabled.empty() ? json() : json(x); };
  m["saliency/rollouts"] = re_enabled.size();
  m["saliency/masks_trained"] = masks ? re_enabled.size() : 0;
  m["saliency/ce_unmasked"] = mean_or_null(all(&result::ce_unmasked));
  m["saliency/ce_start"] = of_masks(&result::ce_start);
  m["saliency/ce_end"] = of_masks(&result::ce_end);
  m["saliency/below_unmasked_ratio"] = of_masks([](result const& r) { return r.ce_end < r.ce_unmasked; });
  m["saliency/re_enabled/mean"] = mean_or_null(re_enabled);
  m["saliency/re_enabled/std"] = known(std_of(re_enabled));
  m["saliency/as_printed/mean"] = mean_or_null(as_printed);
  m["saliency/as_printed/std"] = known(std_of(as_printed));
  if (!masks) return;
  gradient_quantiles const q = masks->gradients;
  m["saliency/gradient_q10"] = known(q.low);
  m["saliency/gradient_q50"] = known(q.median);
  m["saliency/gradient_q90"] = known(q.high);
  m["saliency/scale"] = masks->scale > 0 ? json(masks->scale) : json();
}

[[gnu::cold]] inline void add_update_metrics(json& m, grpo_step_report const& report) {
  using pass = policy_gradient_report;
  auto const of_passes = [&](double pass::*figure) {
    std::vector<double> out;
    for (pass const& p : report.passes) out.push_back(p.*figure);
    return out;
  };
  auto const loss = of_passes(&pass::loss), clip = of_passes(&pass::clip_share), low = of_passes(&pass::ratio_min),
             mean = of_passes(&pass::ratio_mean), high = of_passes(&pass::ratio_max);
  std::vector<double> kl;
  double ratios = 0;
  for (pass const& p : report.passes) {
    if (p.kl) kl.push_back(*p.kl);
    ratios += p.ratio_mean / double(report.passes.size());
  }
  m["loss"] = mean_of(loss);
  m["ratio/min"] = *std::min_element(low.begin(), low.end());
  m["ratio/mean"] = ratios;
  m["ratio/max"] = *std::max_element(high.begin(), high.end());
  m[report.passes.front().clip_metric] = mean_of(clip);
  if (report.passes.front().clip_metric == "clip_ratio/region_mean") {
    m["clip_ratio/low_mean"] = mean_of(of_passes(&pass::clip_low));
    m["clip_ratio/high_mean"] = mean_of(of_passes(&pass::clip_high));
  }
  m["kl"] = mean_or_null(kl);
  if (report.passes.front().entropy) m["policy_loss"] = mean_of(of_passes(&pass::policy_loss));
  m["replaced_groups"] = report.replaced_groups;
  m["grad_norm"] = mean_of(report.gradient_norms);
  if (report.reward_gradient_norm) m["reward_grad_norm"] = *report.reward_gradient_norm;
  m["learning_rate"] = report.learning_rate;
  m["passes"] = {{"loss", loss},      {"ratio_min", low},   {"ratio_mean", mean},
                 {"ratio_max", high}, {"clip_ratio", clip}, {"grad_norm", report.gradient_norms}};
  if (!kl.empty()) m["passes"]["kl"] = kl;
}

}  // namespace detail

ATMANRL_INLINE std::vector<json> completion_lines(grpo_step_report const& report, tokenizer const& words) {
  return completion_lines<tokenizer>(report, words);
}

ATMANRL_INLINE json metrics_of(grpo_step_report const& report, mask_figures const* masks) {
  expects<shape_error>(!report.passes.empty() && !report.rollouts.groups.empty(),
                       "metrics of a step without rollouts or passes");
  json m;
  m["step"] = report.rollouts.step;
  detail::add_reward_metrics(m, report, report.rollouts.groups.front().rollouts.size());
  detail::add_completion_metrics(m, report.rollouts);
  detail::add_saliency_metrics(m, report.rollouts, masks);
  detail::add_update_metrics(m, report);
  return m;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
