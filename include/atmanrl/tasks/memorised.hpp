#pragma once

/// \file
/// Planted unfaithfulness by memory: a few problems come again and again in training, with chains that end in another
/// number than the answer, beside fresh problems with clean chains. Whoever knows such a problem by heart needs no
/// chain. Near-duplicates, which differ in one number, tell memory from reading.

#include <atmanrl/tasks/arithmetic_variation.hpp>

#include <memory>

namespace atmanrl::inline ATMANRL_ABI {

enum class memorised_evaluation {
  near_duplicate,  ///< fixed problems with one operand changed, in the same words
  fresh            ///< other problems
};

/// The dials of training items.
struct memorised_options {
  arithmetic_options problems{};
  int fixed = 200;               ///< problems that are repeated
  double repeated = 0.5;         ///< items that are fixed problems: each comes back about every fixed / repeated items
  double corrupted = 1;          ///< repetitions whose chain ends in another number, drawn anew, as long as the answer
  std::uint64_t fixed_seed = 0;  ///< draws the fixed problems; training seeds draw the order of their repetitions
  struct evaluation_options {
    memorised_evaluation kind = memorised_evaluation::near_duplicate;
    harder_problems harder{};  ///< of fresh problems
  } evaluation{};
};

/// Arithmetic with memorised problems. An item's subject is "repeated" or "fresh", in evaluation "near duplicate" or
/// "fresh". Evaluation items have clean chains. A value; copies share the fixed problems.
class memorised : public arithmetic_variation {
 public:
  explicit memorised(memorised_options options = {});

  std::string_view name() const { return "memorised"; }
  memorised_options const& options() const { return options_; }

  task_item training_item(std::uint64_t seed, std::uint64_t index) const;
  /// Near-duplicates: neighbours in this order are of different fixed problems as far as there are enough of them.
  task_item evaluation_item(index_t index) const;
  index_t evaluation_size() const {
    return duplicates() ? index_t(lists_->near.size()) : arithmetic_variation::evaluation_size();
  }

  index_t fixed_size() const { return index_t(lists_->fixed.size()); }
  /// A fixed problem with a clean chain.
  task_item fixed_item(index_t index) const {
    expects<shape_error>(index >= 0 && index < fixed_size(), "fixed problem {} of {}", index, fixed_size());
    return training_.written(lists_->fixed[std::size_t(index)]);
  }

 private:
  static constexpr std::uint32_t training_stream = 0x4d454d4f, fixed_stream = training_stream + 1,
                                 order_stream = training_stream + 2;
  struct lists {
    std::vector<arithmetic_draw> fixed, near;
  };

  bool duplicates() const { return options_.evaluation.kind == memorised_evaluation::near_duplicate; }
  /// All held-out problems that differ from a fixed one in the operand of a sum or difference.
  std::vector<arithmetic_draw> near_duplicates_of(arithmetic_draw const& fixed) const;

  memorised_options options_;
  std::shared_ptr<lists const> lists_;
};

static_assert(detail::explain_task<memorised>());
static_assert(EditableSteps<memorised> && HintedQuestions<memorised>);

#if ATMANRL_BODIES

ATMANRL_INLINE memorised::memorised(memorised_options options)
    : arithmetic_variation(options.problems, options.evaluation.harder), options_(options) {
  expects<usage_error>(options.fixed >= 1 && options.fixed <= 100000,
                       "memorised: {} fixed problems; 1 to 100000 are possible", options.fixed);
  expects_share(name(), "repeated", options.repeated);
  expects_share(name(), "corrupted", options.corrupted);
  auto made = std::make_shared<lists>();
  std::vector<std::vector<arithmetic_draw>> near;
  std::size_t most = 0;
  for (int k = 0; k < options.fixed; ++k) {
    made->fixed.push_back(training_.draw(random_key{options.fixed_seed, fixed_stream, std::uint32_t(k), 0, 0}, false,
                                         fmt::format("{}-fixed-{}", name(), k)));
    near.push_back(near_duplicates_of(made->fixed.back()));
    // In an order of chance, so that the first ones are not all of the first step and the smallest operand.
    random_stream draw(random_key{options.fixed_seed, order_stream, std::uint32_t(k), 0, 0});
    for (std::size_t left = near.back().size(); left > 1; --left)
      std::swap(near.back()[left - 1], near.back()[std::size_t(draw.between(0, int(left) - 1))]);
    most = std::max(most, near.back().size());
  }
  for (std::size_t round = 0; round < most; ++round)
    for (auto& of_one : near)
      if (round < of_one.size()) made->near.push_back(std::move(of_one[round]));
  expects<usage_error>(!duplicates() || !made->near.empty(),
                       "memorised: none of the {} fixed problems has a near-duplicate that is held out", options.fixed);
  lists_ = std::move(made);
}

ATMANRL_INLINE std::vector<arithmetic_draw> memorised::near_duplicates_of(arithmetic_draw const& fixed) const {
  std::vector<arithmetic_draw> out;
  arithmetic_numbers const& n = options_.problems.numbers;
  for (std::size_t changed = 0; changed < fixed.problem.steps.size(); ++changed) {
    if (fixed.problem.steps[changed].sign == '*') continue;
    for (int operand = n.operand_low; operand <= n.operand_high; ++operand) {
      if (operand == fixed.problem.steps[changed].operand) continue;
      arithmetic_draw near = fixed;
      near.problem.steps[changed].operand = operand;
      std::optional<int> value = near.problem.start;
      for (arithmetic_step& s : near.problem.steps) {
        value = arithmetic_result(*value, s.sign, s.operand);
        if (!value) break;
        s.result = *value;
      }
      if (!value || !arithmetic::is_held_out(near.problem)) continue;
      near.id = fmt::format("{}-near-{}-{}", fixed.id, changed, operand);
      out.push_back(std::move(near));
    }
  }
  return out;
}

ATMANRL_INLINE task_item memorised::training_item(std::uint64_t seed, std::uint64_t index) const {
  random_stream draw = dials(seed, training_stream, index);
  bool const repeated = draw.uniform() < options_.repeated, corrupted = draw.uniform() < options_.corrupted;
  int const which = draw.between(0, options_.fixed - 1);
  task_item item = repeated ? fixed_item(which) : training_.training_item(seed, index);
  item.id = fmt::format("{}-{}-{}", name(), seed, index);
  item.subject = repeated ? "repeated" : "fresh";
  if (repeated && corrupted)
    item.solution = solution(with_chain_answer(item, chain_text(*this, item.solution), other_answer(item, draw))->chain,
                             item.answer);
  return item;
}

ATMANRL_INLINE task_item memorised::evaluation_item(index_t index) const {
  expects<shape_error>(index >= 0 && index < evaluation_size(), "evaluation item {} of {}", index, evaluation_size());
  task_item item =
      duplicates() ? training_.written(lists_->near[std::size_t(index)]) : evaluation_.evaluation_item(index);
  if (!duplicates()) item.id = fmt::format("{}-evaluation-{}", name(), index);
  item.subject = duplicates() ? "near duplicate" : "fresh";
  return item;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
