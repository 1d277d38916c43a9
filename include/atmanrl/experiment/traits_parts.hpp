#pragma once

/// \file
/// The parts of an experiment, made from its traits and its options: model, backend, reward, tokenizer and the rest.
/// What a program brings itself is not contradicted by an option: that is refused.

#include <atmanrl/backend/has_options.hpp>
#include <atmanrl/cpu/product_options.hpp>
#include <atmanrl/experiment/traits.hpp>

#include <concepts>
#include <memory>
#include <string>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// The model of an experiment with matrices stored as `W`.
template <class Traits, class W>
struct model_of_traits {
  using type = decoder<typename Traits::backend, W, typename Traits::block, typename Traits::attention>;
};
template <class Traits, class W>
requires requires { typename Traits::template model<W>; }
struct model_of_traits<Traits, W> {
  using type = typename Traits::template model<W>;
};

/// Whether it is said to a model what its matrices are stored as.
template <class Model, class B>
concept LoadsStored = requires(B& b, model_file const& file) {
  Model::load(b, file, {}, weight_storage::full);
};
template <class Traits>
constexpr bool loads_stored = LoadsStored<typename model_of_traits<Traits, float>::type, typename Traits::backend>;
/// Whether a program's float model can be loaded packed, or with matrices in bfloat16.
template <class Traits>
concept LoadsPacked = KeepsBlocks<typename Traits::backend, float> && loads_stored<Traits>;
template <class Traits>
concept LoadsBf16 = KeepsBf16<typename Traits::backend, float> && loads_stored<Traits>;

/// The edit of scores that the model holds.
template <class Traits>
auto make_traits_attention([[maybe_unused]] experiment_options const& o) {
  if constexpr (requires { Traits::make_attention(o); })
    return Traits::make_attention(o);
  else if constexpr (requires { typename Traits::attention; })
    return typename Traits::attention{};
  else
    return attention::none{};
}

/// What a model's matrices are stored as; bf16 may be their type instead.
template <class Model>
weight_storage storage_of_matrices(experiment_options const& o) {
  if (o.dtype == weight_dtype::packed) return weight_storage::packed;
  bool const is_type = requires { requires std::same_as<typename Model::weight_type, bf16>; };
  return o.dtype == weight_dtype::bf16 && !is_type ? weight_storage::bf16 : weight_storage::full;
}

template <class Traits, class Model>
Model load_model(typename Traits::backend& backend, model_file const& file, experiment_options const& o) {
  if constexpr (LoadsStored<Model, typename Traits::backend>)
    return Model::load(backend, file, make_traits_attention<Traits>(o), storage_of_matrices<Model>(o));
  else if constexpr (requires { Traits::make_attention(o); })
    return Model::load(backend, file, Traits::make_attention(o));
  else
    return Model::load(backend, file);
}

/// Whether a model can be made from a file without its numbers, which are zero then: one of one's own needs
/// `static Model zeros(backend&, model_file const&)` or a constructor from a backend and a model_config.
template <class Model, class Traits>
concept MadeUnread = requires(typename Traits::backend& b, model_file const& file) {
  Model::zeros(b, file);
}
|| std::constructible_from<Model, typename Traits::backend&, model_config>;

template <class Traits, MadeUnread<Traits> Model>
Model unread_model(typename Traits::backend& backend, model_file const& file, experiment_options const& o) {
  if constexpr (requires {
                  Model::zeros(backend, file, make_traits_attention<Traits>(o), storage_of_matrices<Model>(o));
                })
    return Model::zeros(backend, file, make_traits_attention<Traits>(o), storage_of_matrices<Model>(o));
  else if constexpr (requires { Model::zeros(backend, file); })
    return Model::zeros(backend, file);
  else
    return Model(backend, file.config());
}

/// \throws usage_error for ways to compute that this processor or program has not
template <HasOptions B>
typename B::options_type backend_options(experiment_options const& o) {
  if constexpr (HasDeviceOptions<B>)
    return {.device = o.device,
            .tf32 = o.tf32,
            .bf16_weight_gradients = *o.bf16_weight_gradients,
            .skinny_products = o.skinny_products,
            .graphs = o.graphs};
  else if constexpr (std::same_as<typename B::options_type, cpu_options>)
    return cpu::with_products({.threads = o.threads}, o.bf16_products, o.bf16_weight_gradients.value_or(false),
                              o.split_weight_gradients, o.dtype == weight_dtype::bf16);
  else
    return {};
}

/// The options as they are recorded: with what "auto" means on backend B.
/// \throws usage_error for those that it does not have
template <class B>
experiment_options settled_for(experiment_options o) {
  if constexpr (HasDeviceOptions<B>) {
    expects<usage_error>(o.dtype != weight_dtype::bf16 || o.bf16_weight_gradients.value_or(true),
                         "--bf16-weight-gradients is false, but with bf16 weights the factors of all products are bf16 "
                         "on a GPU: leave it out, or use --dtype f32");
    expects<usage_error>(o.dtype == weight_dtype::bf16 || !o.skinny_products,
                         "--skinny-products is on, but it is for bf16 weights: --dtype bf16");
  }
  if (!o.bf16_weight_gradients) o.bf16_weight_gradients = HasDeviceOptions<B> && o.dtype == weight_dtype::bf16;
  if constexpr (!HasDeviceOptions<B>) {
    expects<usage_error>(!o.tf32, "--tf32 is for backends with matrix units of that kind: --backend cuda");
    expects<usage_error>(o.device == 0, "--device is {}, but it is for GPUs: --backend cuda", o.device);
    expects<usage_error>(o.graphs, "--graphs is off, but graphs are for GPUs: --backend cuda");
    expects<usage_error>(!o.skinny_products, "--skinny-products is for GPUs: --backend cuda");
  }
  if constexpr (requires { requires std::same_as<typename B::options_type, cpu_options> && HasOptions<B>; }) {
    backend_options<B>(o);
  } else {
    expects<usage_error>(o.bf16_products == "auto" && !o.split_weight_gradients, "--{} is for CPUs: --backend cpu",
                         o.split_weight_gradients ? "split-weight-gradients" : "bf16-products");
    expects<usage_error>(HasDeviceOptions<B> || !*o.bf16_weight_gradients,
                         "--bf16-weight-gradients is for backends with matrix units: --backend cuda, or cpu with AMX");
  }
  return o;
}

template <class Traits>
std::unique_ptr<typename Traits::backend> make_backend(experiment_options const& given) {
  using B = typename Traits::backend;
  experiment_options const o = settled_for<B>(given);
  if constexpr (requires {
                  { Traits::make_backend(o) } -> std::same_as<std::unique_ptr<B>>;
                })
    return Traits::make_backend(o);
  else if constexpr (HasOptions<B>)
    return std::make_unique<B>(backend_options<B>(o));
  else
    return std::make_unique<B>();
}

template <class Traits>
typename Traits::reward make_traits_reward(experiment_options const& o) {
  if constexpr (requires {
                  { Traits::make_reward(o) } -> std::same_as<typename Traits::reward>;
                })
    return Traits::make_reward(o);
  else
    return atmanrl::make_reward<typename Traits::reward>(o);
}

/// A part as the options ask for it, or the traits' own, which an option must not contradict.
template <class Part, class Make>
Part make_traits_part(char const* option, std::string const& chosen, std::string const& standard, Make&& make) {
  if constexpr (std::same_as<Part, decltype(make())>) {
    return make();
  } else {
    expects<usage_error>(chosen == standard, "--{} is {}, but this program has a part of its own in its place", option,
                         chosen);
    return Part{};
  }
}
template <class Traits>
typename Traits::advantage make_traits_advantage(experiment_options const& o) {
  return make_traits_part<typename Traits::advantage>("advantage", o.advantage, experiment_options{}.advantage,
                                                      [&] { return advantages::by_name(o.advantage); });
}
template <class Traits>
typename Traits::loss make_traits_loss(experiment_options const& o) {
  experiment_options const standard;
  bool const plain = o.beta == 0 && o.kl == standard.kl && o.loss_settings == standard.loss_settings;
  expects<usage_error>(plain || std::same_as<typename Traits::loss, losses::any>,
                       "--beta, --kl, --ratio, --clip-low, --clip-high and --clip-delta are numbers of the built-in "
                       "losses, but this program has one of its own");
  return make_traits_part<typename Traits::loss>("loss", o.loss, experiment_options{}.loss, [&] {
    return losses::add_kl(losses::by_name(o.loss, o.loss_settings), o.kl, o.beta);
  });
}
template <class Traits>
typename Traits::sampler make_traits_sampler(experiment_options const& o) {
  expects<usage_error>(o.cuts == experiment_options{}.cuts || std::same_as<typename Traits::sampler, samplers::any>,
                       "--top-k, --top-p and --min-p are numbers of the built-in samplers, not of this program's own");
  return make_traits_part<typename Traits::sampler>("sampler", o.sampler, experiment_options{}.sampler,
                                                    [&] { return samplers::by_name(o.sampler, o.cuts); });
}

template <class Traits>
typename Traits::optimizer make_traits_optimizer(experiment_options const& o) {
  using Optimizer = typename Traits::optimizer;
  if constexpr (requires {
                  { Traits::make_optimizer(o) } -> std::same_as<Optimizer>;
                }) {
    return Traits::make_optimizer(o);
  } else {
    optim::settings const& s = o.optimizer_settings;
    expects<usage_error>(std::same_as<Optimizer, optim::any> ||
                             !(s.beta1 || s.beta2 || s.eps || s.momentum || s.nesterov || s.weight_decay),
                         "--optimizer-beta1, -beta2, -eps, --momentum, --nesterov and --weight-decay are numbers of "
                         "the built-in optimizers, but this program has one of its own");
    return make_traits_part<Optimizer>("optimizer", o.optimizer, experiment_options{}.optimizer,
                                       [&] { return optim::by_name(o.optimizer, o.optimizer_settings); });
  }
}
template <class Traits>
typename Traits::schedule make_traits_schedule(experiment_options const& o) {
  using Schedule = typename Traits::schedule;
  if constexpr (requires {
                  { Traits::make_schedule(o) } -> std::same_as<Schedule>;
                }) {
    return Traits::make_schedule(o);
  } else {
    expects<usage_error>(
        std::same_as<Schedule, schedules::any> || o.lr_warmup == experiment_options::of_preset(o.preset).lr_warmup,
        "--lr-warmup is {}, but this program has a schedule of its own", o.lr_warmup);
    return make_traits_part<Schedule>("lr-schedule", o.lr_schedule, experiment_options{}.lr_schedule,
                                      [&] { return schedules::by_name(o.lr_schedule, std::uint64_t(o.lr_warmup)); });
  }
}

/// The traits' update edit, or none.
template <class Traits>
auto make_traits_update_edit([[maybe_unused]] experiment_options const& o) {
  if constexpr (requires { Traits::make_update_edit(o); })
    return Traits::make_update_edit(o);
  else if constexpr (requires { typename Traits::update_edit; })
    return typename Traits::update_edit{};
  else
    return update_edits::none{};
}

/// The tokenizer of an experiment.
template <class Traits>
struct tokenizer_of_traits {
  using type = tokenizer;
};
template <class Traits>
requires requires { typename Traits::tokenizer; }
struct tokenizer_of_traits<Traits> {
  using type = typename Traits::tokenizer;
};

/// Whether the traits name a chat template that takes the place of the options' choice.
template <class Traits>
constexpr bool has_own_chat() {
  if constexpr (requires { typename Traits::chat; })
    return !std::same_as<typename Traits::chat, chat_format>;
  else
    return false;
}

/// The tokenizer of the traits, or that of the model's files, with the chat format of the traits or the one that the
/// options choose. A tokenizer of one's own carries its chat format itself.
template <class Traits>
typename tokenizer_of_traits<Traits>::type open_tokenizer(experiment_options const& o) {
  using Z = typename tokenizer_of_traits<Traits>::type;
  static_assert(explain_tokenizer<Z>());
  if constexpr (!std::same_as<Z, tokenizer>) {
    static_assert(
        requires {
          { Traits::make_tokenizer(o) } -> std::same_as<Z>;
        },
        "atmanrl: traits with a tokenizer of their own need `static tokenizer make_tokenizer("
        "atmanrl::experiment_options const&)` (see docs/extending.md#tokenizers)");
    static_assert(
        !has_own_chat<Traits>(),
        "atmanrl: traits name a tokenizer and a chat template: a tokenizer of one's own has its chat format as "
        "`atmanrl::chat_format const& chat() const` (see docs/extending.md#tokenizers)");
    expects<usage_error>(
        o.chat == chat_options{},
        "--chat is {}, --thinking is {} and --system is {}, but this program has a tokenizer of its own", o.chat.format,
        o.chat.thinking, o.chat.system ? "given" : "not given");
    return Traits::make_tokenizer(o);
  } else {
    tokenizer const words = [&] {
      if constexpr (requires {
                      { Traits::make_tokenizer(o) } -> std::same_as<tokenizer>;
                    })
        return Traits::make_tokenizer(o);
      else
        return tokenizer::load(o.model);
    }();
    if constexpr (has_own_chat<Traits>()) {
      static_assert(explain_chat_template<typename Traits::chat>());
      expects<usage_error>(o.chat.format == "auto" && o.chat.thinking == "auto",
                           "--chat is {} and --thinking is {}, but this program has a chat template of its own",
                           o.chat.format, o.chat.thinking);
      return words.with_chat(chat_format(typename Traits::chat{}).with_system(o.chat.system));
    }
    return words.with_chat(o.chat);
  }
}

}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
