#pragma once

/// \file
/// The closing table: evaluation before and after with intervals, and what the masks of the whole run said.

#include <atmanrl/core/config.hpp>
#include <atmanrl/evaluation/table.hpp>
#include <atmanrl/io/jsonl.hpp>

#include <optional>
#include <string>

namespace atmanrl::inline ATMANRL_ABI {

/// Sums over a run's metrics.jsonl; cross-entropies are means over masks, saliencies over the rollouts that have one.
struct run_totals {
  index_t steps = 0, rollouts = 0, groups = 0, groups_with_spread = 0, saliencies = 0, masks = 0;
  double ce_unmasked = 0, ce_start = 0, ce_end = 0, below_unmasked = 0, re_enabled = 0, as_printed = 0;
  double first_reward = 0, last_reward = 0;
};

/// \param group_size  rollouts per group
run_totals read_totals(std::filesystem::path const& metrics, int group_size);

/// \param before, after  none where there was no evaluation
std::string closing_table(std::optional<evaluation> const& before, std::optional<evaluation> const& after,
                          run_totals const& t);

#if ATMANRL_BODIES

ATMANRL_INLINE run_totals read_totals(std::filesystem::path const& metrics, int group_size) {
  run_totals t;
  for_each_json_line(metrics, [&](json const& m, index_t line) {
    try {
      ++t.steps;
      t.groups += m.at("groups").get<index_t>();
      t.groups_with_spread += m.at("groups_with_spread").get<index_t>();
      (t.steps == 1 ? t.first_reward : t.last_reward) = m.at("reward").get<double>();
      auto const masks = m.at("saliency/masks_trained").get<index_t>();
      auto const saliencies = m.value("saliency/rollouts", masks);  // which runs of older versions do not say
      auto const add = [&](double& sum, index_t count, char const* name) {
        if (count > 0) sum += double(count) * m.at(name).get<double>();
      };
      t.masks += masks;
      t.saliencies += saliencies;
      add(t.ce_unmasked, masks, "saliency/ce_unmasked");
      add(t.ce_start, masks, "saliency/ce_start");
      add(t.ce_end, masks, "saliency/ce_end");
      add(t.below_unmasked, masks, "saliency/below_unmasked_ratio");
      add(t.re_enabled, saliencies, "saliency/re_enabled/mean");
      add(t.as_printed, saliencies, "saliency/as_printed/mean");
    } catch (json::exception const& e) {
      fail<file_error>("{}:{}: is no line of metrics: {}", metrics.string(), line, detail::json_reason(e.what()));
    }
  });
  if (t.steps == 1) t.last_reward = t.first_reward;
  t.rollouts = t.groups * group_size;
  for (double* const x : {&t.ce_unmasked, &t.ce_start, &t.ce_end, &t.below_unmasked})
    *x /= double(std::max<index_t>(1, t.masks));
  for (double* const x : {&t.re_enabled, &t.as_printed}) *x /= double(std::max<index_t>(1, t.saliencies));
  return t;
}

ATMANRL_INLINE std::string closing_table(std::optional<evaluation> const& before,
                                         std::optional<evaluation> const& after, run_totals const& t) {
  std::string out;
  auto const line = [&](std::string_view name, std::string_view value) {
    out += fmt::format("{:<28}{}\n", name, value);
  };
  if (before && after) out += comparison_table(*before, *after, "before", "after") + '\n';
  line("steps", fmt::format("{}", t.steps));
  line("reward, first and last step", fmt::format("{:.4f} -> {:.4f}", t.first_reward, t.last_reward));
  line("groups with non-zero spread", fmt::format("{} of {}", t.groups_with_spread, t.groups));
  // Rollouts have a mask each, or none has one.
  line(t.masks == t.saliencies ? "masks trained" : "with saliency",
       fmt::format("{} of {} rollouts", t.saliencies, t.rollouts));
  if (t.masks > 0) {
    line("CE(0) / CE(c) / CE(H*)",
         fmt::format("{:.4f} / {:.4f} / {:.4f} nats per answer token", t.ce_unmasked, t.ce_start, t.ce_end));
    line("masks with CE(H*) < CE(0)", fmt::format("{:.1f} %", 100 * t.below_unmasked));
  }
  if (t.saliencies > 0)
    line("saliency", fmt::format("{:.4f} re-enabled, {:.4f} as printed", t.re_enabled, t.as_printed));
  return out;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
