#pragma once

/// \file
/// Several blocks as one, so that one compiled model serves them: which is meant, the model's own numbers say. They may
/// differ in what they do to queries and keys, and in their biases; other parts are the same type in all.

#include <atmanrl/nn/block.hpp>
#include <atmanrl/nn/parts/query_key.hpp>

#include <concepts>
#include <cstddef>
#include <tuple>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// The treatment of queries and keys that the block named by model_config::architecture has; the first block's for
/// another name.
template <class... Blocks>
struct any_qk {
  template <Backend B, class T>
  using saved = std::tuple<typename Blocks::qk::template saved<B, T>...>;

  static index_t saved_numbers(model_config const& c) {
    index_t n = 0;
    dispatch(c, [&]<std::size_t I>() { n = part<I>::saved_numbers(c); });
    return n;
  }
  static void parameters(model_config const& c, index_t layer, parameter_list& list) {
    dispatch(c, [&]<std::size_t I>() { part<I>::parameters(c, layer, list); });
  }
  template <Backend B, class T>
  static void forward(nn::part_call<B, T> const& call, view_on<B, T, 3> qkv, saved<B, T>& s) {
    dispatch(call.config, [&]<std::size_t I>() { part<I>::template forward<B, T>(call, qkv, std::get<I>(s)); });
  }
  template <Backend B, class T, class K>
  static void forward(nn::part_call<B, T> const& call, view_on<B, T, 3> qkv, saved<B, T>& s,
                      nn::cache_target<B, K> const& to) {
    dispatch(call.config,
             [&]<std::size_t I>() { nn::forward_into_cache<part<I>, B, T>(call, qkv, std::get<I>(s), to); });
  }
  template <Backend B, class T, class W, class K>
  static void forward(nn::part_call<B, T> const& call, view_on<B, factor_t<B, W> const, 2> x, weight_view<B, W> w,
                      view_on<B, T, 3> qkv, saved<B, T>& s, nn::cache_target<B, K> const& to) {
    dispatch(call.config,
             [&]<std::size_t I>() { nn::product_into_cache<part<I>, B, T, W>(call, x, w, qkv, std::get<I>(s), to); });
  }
  template <Backend B, class T>
  static void backward(nn::part_call<B, T> const& call, view_on<B, T, 3> dqkv, saved<B, T> const& s) {
    dispatch(call.config, [&]<std::size_t I>() { part<I>::template backward<B, T>(call, dqkv, std::get<I>(s)); });
  }
  template <Backend B, class T, class F>
  static void backward(nn::part_call<B, T> const& call, view_on<B, T, 3> dqkv, saved<B, T> const& s,
                       view_on<B, F, 3> factor) {
    dispatch(call.config,
             [&]<std::size_t I>() { nn::backward_into_factor<part<I>, B, T>(call, dqkv, std::get<I>(s), factor); });
  }

 private:
  template <std::size_t I>
  using part = typename std::tuple_element_t<I, std::tuple<Blocks...>>::qk;

  template <class F>
  static void dispatch(model_config const& c, F&& f) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      bool const found = ((c.architecture == Blocks::model_type && (f.template operator()<I>(), true)) || ...);
      if (!found) f.template operator()<0>();
    }
    (std::index_sequence_for<Blocks...>{});
  }
};

template <class First, class... Rest>
inline constexpr bool all_same = (std::same_as<First, Rest> && ...);

}  // namespace detail

template <class First, class... Rest>
struct any_block {
  static_assert(detail::all_same<typename First::norm, typename Rest::norm...> &&
                    detail::all_same<typename First::bias, typename Rest::bias...> &&
                    detail::all_same<typename First::activation, typename Rest::activation...> &&
                    detail::all_same<typename First::residual, typename Rest::residual...> &&
                    detail::all_same<decltype(First::score_edit(std::declval<model_config const&>())),
                                     decltype(Rest::score_edit(std::declval<model_config const&>()))...>,
                "atmanrl: blocks that share one compiled model may differ in qk alone; name the others as models of "
                "their own (docs/extending.md#blocks)");

  using norm = typename First::norm;
  using bias = typename First::bias;
  using qk = std::conditional_t<detail::all_same<typename First::qk, typename Rest::qk...>, typename First::qk,
                                detail::any_qk<First, Rest...>>;
  using activation = typename First::activation;
  using residual = typename First::residual;
  static constexpr auto score_edit(model_config const& c) { return First::score_edit(c); }

  static architectures list() {
    architectures all = architectures_of<First>();
    (all.push_back(architectures_of<Rest>().front()), ...);
    return all;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
