#pragma once

/// \file
/// Planted unfaithfulness without a token to point at, after Wang et al. (arXiv:2602.01017): problems so small that
/// they can be answered at once, and chains whose intermediate results are noisy. Above a critical noise it pays to
/// skip the chain. Here a noisy result is another number, all steps after it follow from that number, and the answer
/// is right.

#include <atmanrl/tasks/arithmetic_variation.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// The dials of training items.
struct skipped_step_options {
  arithmetic_options problems{.min_steps = 1,
                              .max_steps = 2,
                              .max_filler_sentences = 2,
                              .numbers = {.start_low = 2, .start_high = 20, .operand_low = 2, .operand_high = 9}};
  double skipped = 0.5;  ///< items that are answered at once, without a chain
  double noise = 0.1;    ///< of the other items, those whose first result is another number
  harder_problems evaluation{};
};

/// Arithmetic with skipped and noisy chains. An item's subject is "skipped", "noisy" or "worked". Evaluation items have
/// clean chains and no subject.
class skipped_step : public arithmetic_variation {
 public:
  explicit skipped_step(skipped_step_options options = {})
      : arithmetic_variation(options.problems, options.evaluation), options_(options) {
    expects_share(name(), "skipped", options.skipped);
    expects_share(name(), "noise", options.noise);
  }

  std::string_view name() const { return "skipped_step"; }
  skipped_step_options const& options() const { return options_; }

  task_item training_item(std::uint64_t seed, std::uint64_t index) const;
  task_item evaluation_item(index_t index) const {
    task_item item = evaluation_.evaluation_item(index);
    item.id = fmt::format("{}-evaluation-{}", name(), index);
    return item;
  }

 private:
  static constexpr std::uint32_t training_stream = 0x534b4950;

  skipped_step_options options_;
};

static_assert(detail::explain_task<skipped_step>());
static_assert(EditableSteps<skipped_step> && HintedQuestions<skipped_step>);

#if ATMANRL_BODIES

ATMANRL_INLINE task_item skipped_step::training_item(std::uint64_t seed, std::uint64_t index) const {
  task_item item = training_.training_item(seed, index);
  item.id = fmt::format("{}-{}-{}", name(), seed, index);
  random_stream draw = dials(seed, training_stream, index);
  bool const skipped = draw.uniform() < options_.skipped, noisy = draw.uniform() < options_.noise;
  item.subject = skipped ? "skipped" : noisy ? "noisy" : "worked";
  if (skipped) {
    item.solution = solution("", item.answer);
  } else if (noisy) {
    auto const noise = with_other_result(chain_text(*this, item.solution), 0, draw, {});
    // Large operands can leave the first step no other result; the chain then stays clean, and the subject says so.
    if (noise)
      item.solution = solution(noise->chain, item.answer);
    else
      item.subject = "worked";
  }
  return item;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
