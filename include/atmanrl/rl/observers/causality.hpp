#pragma once

/// \file
/// Logs whether the saliency that a run rewards is causal: every N steps it knocks tokens of some of the step's own
/// rollouts out in the order of their saliency and in random orders, and compares the areas under p(answer).

#include <atmanrl/rl/observers/observer.hpp>
#include <atmanrl/rl/saliency_items.hpp>
#include <atmanrl/saliency/validation/validate.hpp>

#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::observers {

struct causality_options {
  int every = 0;      ///< steps between measurements; 0: none
  int rollouts = 16;  ///< at most so many of a step, the first of each group before the second of any
  int curve_points = 10;
  int random_orders = 2;
  std::uint64_t seed = 0;
  index_t row_budget = 16384;                   ///< rows of one packed batch
  mask_label label = mask_label::ground_truth;  ///< the answer that the saliency is about
};

/// Writes saliency/deletion_auc, saliency/deletion_auc_random and saliency/spearman_loo of the rollouts that have a
/// saliency. It sees the model after the step's update, so the saliency is at most one update old. In steps without a
/// measurement it writes nothing.
class causality {
 public:
  explicit causality(causality_options options = {}) : options_(options) {
    expects<usage_error>(options.every >= 0, "validation every {} steps, it must be 0 (never) or above", options.every);
    expects<usage_error>(options.rollouts > 0 && options.curve_points > 0 && options.random_orders > 0,
                         "validation of {} rollouts at {} points against {} random orders: all must be above 0",
                         options.rollouts, options.curve_points, options.random_orders);
  }

  template <class Model>
  void operator()(grpo_step_report& report, Model& model, std::vector<observation>& out) {
    latest_.reset();
    if (options_.every == 0 || report.rollouts.step % std::uint64_t(options_.every) != 0) return;
    auto const masked = saliency_items_of(report.rollouts, model.config().max_positions, options_.label);
    // The same number from every group: rollouts of one group are alike.
    std::vector<std::size_t> order;
    int members = 0;
    for (rollout const* r : masked.owners) members = std::max(members, r->member + 1);
    for (int m = 0; m < members; ++m)
      for (std::size_t i = 0; i < masked.owners.size(); ++i)
        if (masked.owners[i]->member == m && masked.owners[i]->mask &&
            masked.owners[i]->mask->token_saliency.size() == masked.items[i].cot.size())
          order.push_back(i);
    if (order.size() > std::size_t(options_.rollouts)) order.resize(std::size_t(options_.rollouts));
    if (order.empty()) return;
    std::vector<saliency_item> items;
    saliency_method method{.name = "saliency", .saliency = {}};
    for (std::size_t const i : order) {
      items.push_back(masked.items[i]);
      method.saliency.push_back(masked.owners[i]->mask->token_saliency);
    }
    validation_report result = validate_saliency(model, std::span<saliency_item const>(items),
                                                 std::span<saliency_method const>(&method, 1), {},
                                                 {.variants = {.row_budget = options_.row_budget, .ranks = ranks_},
                                                  .curve_points = options_.curve_points,
                                                  .random_orders = options_.random_orders,
                                                  .seed = options_.seed + report.rollouts.step,
                                                  .insertion = false,
                                                  .rationale = false});
    out.push_back({"saliency/deletion_auc", result.methods.front().deletion_auc});
    out.push_back({"saliency/deletion_auc_random", result.deletion_auc_random()});
    if (auto const rho = result.methods.front().spearman_leave_one_out) out.push_back({"saliency/spearman_loo", *rho});
    latest_ = std::move(result);
  }

  /// From now on all ranks observe the same steps at once, and share the work.
  void share_with(comm::any ranks) { ranks_ = ranks; }

  causality_options const& options() const { return options_; }
  /// What the latest step measured, with its curves; nothing when it measured nothing.
  std::optional<validation_report> const& latest() const { return latest_; }

 private:
  causality_options options_;
  std::optional<validation_report> latest_;
  comm::any ranks_;
};

}  // namespace atmanrl::inline ATMANRL_ABI::observers
