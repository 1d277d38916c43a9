#pragma once

/// \file
/// The parts that an experiment is put together from, one type per slot. Derive and name another type for one slot:
///     struct mine : gsm8k_traits<> { using reward = rewards::weighted_sum<rewards::correct_answer, rewards::saliency, brevity>; };

#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/reward_parts.hpp>
#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
#include <atmanrl/tasks/any_task.hpp>

#include <cstdlib>

namespace atmanrl {

/// Folder with train.jsonl and test.jsonl: the given one, else $ATMANRL_DATA_DIR/gsm8k, else data/gsm8k.
inline std::filesystem::path gsm8k_folder(std::filesystem::path const& given) {
  if (!given.empty()) return given;
  char const* const named = std::getenv("ATMANRL_DATA_DIR");
  return (named && *named ? std::filesystem::path(named) : std::filesystem::path("data")) / "gsm8k";
}

/// Storage types of the matrices that a program is compiled for; `--dtype` chooses among them.
template <class... Ws>
struct weight_types {};

/// Word problems with a numeric answer behind "####": GSM8K, or generated ones in its style.
/// \tparam B  backend
template <class B = cpu_backend>
struct gsm8k_traits {
  using backend = B;
  using weights = weight_types<float, bf16>;
  using task = any_task;
  using reward = rewards::balanced_sum<rewards::correct_answer, rewards::saliency>;
  using advantage = advantages::mean_centered;
  using loss = losses::grpo;
  using sampler = samplers::multinomial;

  static task make_task(experiment_options const& o) {
    if (o.task == "gsm8k") return gsm8k(gsm8k_folder(o.data), {.few_shot = o.few_shot, .evaluation_seed = o.seed});
    expects<usage_error>(o.task == "arithmetic", "--task is \"{}\", it must be arithmetic or gsm8k", o.task);
    expects<usage_error>(o.few_shot == 0, "--few-shot is {}, but the task arithmetic has no worked examples", o.few_shot);
    return arithmetic();
  }
  // A traits type may also have `static reward make_reward(experiment_options const&)`; otherwise atmanrl::make_reward
  // puts the reward together from its parts.
};

namespace detail {

template <class Traits>
std::unique_ptr<typename Traits::backend> make_backend(experiment_options const& o) {
  using B = typename Traits::backend;
  if constexpr (std::is_constructible_v<B, cpu_options>) return std::make_unique<B>(cpu_options{.threads = o.threads});
  else return std::make_unique<B>();
}

template <class Traits>
typename Traits::reward make_traits_reward(experiment_options const& o) {
  if constexpr (requires { { Traits::make_reward(o) } -> std::same_as<typename Traits::reward>; }) return Traits::make_reward(o);
  else return atmanrl::make_reward<typename Traits::reward>(o);
}

/// One sentence for what is wrong with a type that was meant to be an experiment's traits.
template <class Traits>
consteval bool explain_traits() {
  if constexpr (!requires { typename Traits::backend; typename Traits::weights; typename Traits::task; typename Traits::reward; typename Traits::advantage; typename Traits::loss; typename Traits::sampler; })
    static_assert(always_false<Traits>, "atmanrl: not an experiment's traits: derive from atmanrl::gsm8k_traits<> and name other types for some of backend, weights, task, reward, advantage, loss, sampler (see docs/extending.md)");
  else if constexpr (!requires(experiment_options const& o) { { Traits::make_task(o) } -> std::convertible_to<typename Traits::task>; })
    static_assert(always_false<Traits>, "atmanrl: traits with a task of their own need `static task make_task(atmanrl::experiment_options const&)`");
  return true;
}
}  // namespace detail

}  // namespace atmanrl
