#pragma once

/// \file
/// The parts that an experiment is put together from, one type per slot. Derive and name another type for one slot:
///     struct mine : gsm8k_traits<> { using reward = rewards::weighted_sum<rewards::correct_answer,
///     rewards::saliency<>, brevity>; };

#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/reward_parts.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/rl/observers/causality.hpp>
#include <atmanrl/rl/samplers/any.hpp>
#include <atmanrl/rl/update_edits/update_edit.hpp>
#include <atmanrl/tasks/any_task.hpp>
#include <atmanrl/tasks/task_folder.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <concepts>

namespace atmanrl::inline ATMANRL_ABI {

/// Types of the matrices that a program is compiled for (decoder's W); `--dtype` chooses among them, and what they are
/// stored as.
template <class... Ws>
struct weight_types {};

namespace detail {
template <class B>
struct usual_weights {
  using type = weight_types<float, bf16>;
};
template <class B>
requires KeepsBf16<B, float>
struct usual_weights<B> {
  using type = weight_types<float>;
};
}  // namespace detail

/// Word problems with a numeric answer after "####": GSM8K, or generated ones in its style, with chains that need to
/// be read or with others. \tparam B  backend
template <class B = cpu_backend>
struct gsm8k_traits {
  using backend = B;
  using weights = typename detail::usual_weights<B>::type;
  using block = standard_block;                // what the model's layers are made of
  using attention = atmanrl::attention::none;  // an edit of scores that belongs to the model, after the block's own
  using tokenizer = atmanrl::tokenizer;        // of the model's files
  using task = any_task;
  // Estimator and gate of the saliency are the options' choice.
  using reward = rewards::penalized<rewards::balanced_sum<
      rewards::correct_answer, rewards::gated<rewards::saliency<estimators::any>, rewards::chosen_gate>>>;
  using advantage = advantages::any;  // what is called `any` is the options' choice
  using loss = losses::any;
  using sampler = samplers::any;
  using optimizer = optim::any;            // of the weights
  using schedule = schedules::any;         // of the learning rate
  using update_edit = update_edits::none;  // an edit of scores that the policy loss alone sees
  using observer = observers::causality;   // called after each step
  using chat = chat_format;                // how questions are put to the model: the options' choice, or a ChatTemplate

  static task make_task(experiment_options const& o) {
    if (o.task == "gsm8k") return gsm8k(gsm8k_folder(o.data), {.few_shot = o.few_shot, .evaluation_seed = o.seed});
    expects<usage_error>(is_generated_task(o.task), "--task is \"{}\", it must be gsm8k or one of {}", o.task,
                         fmt::join(generated_task_names, ", "));
    expects<usage_error>(o.few_shot == 0, "--few-shot is {}, but the task {} has no worked examples", o.few_shot,
                         o.task);
    return generated_task(o.task);
  }
  // A traits type may also have `static std::vector<own_option> own_options()`: numbers that become options of the
  // command line, are stored with the run, and are read with experiment_options::own_value; a model class of its own,
  // `template <class W> using model`, in place of block and attention; `static attention
  // make_attention(experiment_options const&)`, where the edit has numbers; and `static reward
  // make_reward(experiment_options const&)`; otherwise atmanrl::make_reward puts the reward together from its parts. So
  // it may have make_optimizer, make_schedule and make_update_edit, and `static std::unique_ptr<backend>
  // make_backend(experiment_options const&)` for a backend with options of its own; otherwise it is made from
  // `detail::backend_options`, or from nothing. A tokenizer of its own comes from `static tokenizer
  // make_tokenizer(experiment_options const&)`.
};

/// The options that a program of these traits begins with: the demo preset's, and those of the traits' own parts.
template <class Traits>
experiment_options options_of() {
  experiment_options o;
  if constexpr (requires { Traits::own_options(); }) o.own = Traits::own_options();
  return o;
}

namespace detail {

/// One sentence for what is wrong with a type that was meant to be an experiment's traits.
template <class Traits>
consteval bool explain_traits() {
  if constexpr (!requires {
                  typename Traits::backend;
                  typename Traits::weights;
                  typename Traits::task;
                  typename Traits::reward;
                  typename Traits::advantage;
                  typename Traits::loss;
                  typename Traits::sampler;
                  typename Traits::optimizer;
                  typename Traits::schedule;
                })
    static_assert(always_false<Traits>,
                  "atmanrl: not an experiment's traits: derive from atmanrl::gsm8k_traits<> and name other types for "
                  "some of backend, weights, task, reward, advantage, loss, sampler, optimizer, schedule (see "
                  "docs/extending.md)");
  else if constexpr (!requires(experiment_options const& o) {
                       { Traits::make_task(o) } -> std::convertible_to<typename Traits::task>;
                     })
    static_assert(
        always_false<Traits>,
        "atmanrl: traits with a task of their own need `static task make_task(atmanrl::experiment_options const&)`");
  return true;
}
}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
