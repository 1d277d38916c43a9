#pragma once

/// \file
/// The experiment on MMLU: the parts of gsm8k_traits with another task. Training draws from the val and dev questions,
/// or from the auxiliary ones where the folder has them; evaluation from the test
/// (docs/experiments.md#evaluating-any-model).

#include <atmanrl/experiment/traits.hpp>
#include <atmanrl/tasks/mmlu.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// \tparam B  backend
template <class B = cpu_backend>
struct mmlu_traits : gsm8k_traits<B> {
  using task = mmlu;

  static task make_task(experiment_options const& o) {
    expects<usage_error>(o.task == "mmlu", "--task is \"{}\", but this experiment asks mmlu", o.task);
    expects<usage_error>(o.few_shot == 0, "--few-shot is {}, but MMLU's worked examples have no reasoning to show",
                         o.few_shot);
    std::filesystem::path const folder = task_folder("mmlu", o.data), auxiliary = folder / "auxiliary_train";
    return mmlu(folder,
                {.evaluation_questions = std::max<index_t>(1000, o.eval_questions),
                 .evaluation_seed = o.seed,
                 .auxiliary_train = std::filesystem::is_directory(auxiliary) ? auxiliary : std::filesystem::path()});
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
