#pragma once

/// \file
/// What a model is for those who sample from it, train masks over it and train it: the members that rl/ and saliency/
/// call. `decoder` has them, and so may a class of one's own.

#include <atmanrl/attention/policy.hpp>
#include <atmanrl/comm/shares.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/nn/cache_and_pass.hpp>
#include <atmanrl/nn/lora.hpp>
#include <atmanrl/nn/model_calls.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/nn/ragged_batch.hpp>

#include <concepts>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// An edit with parameters that no model can know: what takes it takes any.
struct unknown_edit {
  struct params_type {
    ATMANRL_HOST_DEVICE index_t parameter(score_site) const { return -1; }
    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, T, score_site) const {
      return score;
    }
  };
  params_type params() const { return {}; }
  index_t parameter_count() const { return 0; }
};

template <class M>
concept NamesScalars = requires {
  requires Backend<typename M::backend_type>;
  typename M::scalar;
};

/// Arguments of a model's members.
template <NamesScalars M>
struct calls_of {
  using B = typename M::backend_type;
  using T = typename M::scalar;
  M& model;
  kv_cache<B, T>& cache;
  forward_pass<B, T>& pass;
  ragged_batch const& batch;
  std::span<int const> rows;
  std::span<scored_token const> tokens;
  loss_gradients<T> loss;
  pass_gradients<B, T> gradients;
  tensor<B, T, 2>& matrix;
  view_on<B, T, 1> flat;
  view_on<B, T const, 1> values;
};

template <class M>
concept DescribesItself = NamesScalars<M> && requires(M& m, M const& c) {
  { c.backend() } -> std::same_as<typename M::backend_type&>;
  { c.config() } -> std::convertible_to<model_config const&>;
};
template <class M>
concept LendsPasses = NamesScalars<M> && requires(M const& c, index_t rows) {
  { c.memory() } -> std::same_as<workspace&>;
  { c.borrow_pass(rows, true) } -> std::same_as<borrowed<cache_and_pass<typename M::backend_type, typename M::scalar>>>;
  c.borrow_pass(rows);
};
template <class M>
concept RunsForward = NamesScalars<M> && requires(calls_of<M> a) {
  a.model.forward(a.cache, a.batch, a.pass);
  a.model.forward(a.cache, a.batch, a.pass, forward_options{});
  a.model.forward(a.cache, a.batch, a.pass, forward_options{}, edited{attention::none{}});
};
template <class M>
concept RunsEdited = RunsForward<M> && requires(calls_of<M> a) {
  a.model.forward(a.cache, a.batch, a.pass, forward_options{}, edited{unknown_edit{}, a.values});
};
template <class M>
concept ScoresTokens = NamesScalars<M> && requires(calls_of<M> a) {
  a.model.log_probs(a.pass, a.tokens);
  a.model.log_probs(a.pass, a.tokens, 1.0, true);
  a.model.logits(a.pass, a.rows, a.matrix);
};
template <class M>
concept RunsBackward = NamesScalars<M> && requires(calls_of<M> a) {
  a.model.backward(a.cache, a.pass, a.loss, a.gradients);
  a.model.backward(a.cache, a.pass, a.loss, a.gradients, edited{unknown_edit{}, a.values});
};
template <class M>
concept ListsParameters = requires(M const& c) {
  { c.trainable_layout() } -> std::convertible_to<parameter_layout const&>;
};
template <class M>
concept CopiesParameters = NamesScalars<M> && requires(M& m, M const& c, calls_of<M> a) {
  c.read_trainable(a.flat);
  m.assign_trainable(a.values);
};

}  // namespace detail

/// Runs rows over a prefix tree, scores tokens, and gives the gradient of an attention edit's parameters: all that
/// sampling, evaluation and masks need. Everything refers to the computing type `scalar` on `backend_type`.
/// - `backend()`, `config()`  of which vocab, max_positions, stop_ids, layers, hidden, heads and kv_heads are read
/// - `memory()`, `borrow_pass(rows, recompute)`  see nn/cache_and_pass.hpp
/// - `forward(cache, batch, pass, options, edit)`  appends the batch's rows to the cache; the edit is of any policy,
///   with values or without
/// - `log_probs(pass, tokens, temperature, want_entropy)`, `logits(pass, rows, out)`  after a forward pass
/// - `backward(cache, pass, loss, gradients, edit)`  after log_probs; the edit is that of the forward pass
/// nn/model_calls.hpp has the types of options, edit, loss and gradients; decoder says what each member does and
/// refuses. Used where they are there: `forbid(ids)` (rows that no token stands for), `backward_from_logits` (mask
/// objectives of full logits), `mean_attention` (attention rollout), `static constexpr bool gives_input_gradients =
/// true` where `backward` fills pass_gradients::input (gradient × input), `stores_as_bf16(p)` (whether
/// `assign_trainable` rounds a trainable parameter to bf16: ranks then exchange it as that), `gradient_stretches()`
/// with `read_trainable(first, values)` and `assign_trainable(first, values)` for one of them, where `backward` hands
/// gradients over as pass_gradients::stretches says (--gradient-memory layers), `static constexpr bool is_recordable =
/// true` (whether the same calls may be recorded, as decoder says it), `forward_again(cache, pass, longest)` (the rows
/// of the latest forward pass after the backend has moved them on: such a model's decoding is recorded as well), and
/// the refinements below.
template <class M>
concept LanguageModel = detail::DescribesItself<M> && detail::LendsPasses<M> && detail::RunsEdited<M> &&
    detail::ScoresTokens<M> && detail::RunsBackward<M>;

/// Whose weights can be trained: gradients of `backward` and the values of `read_trainable` and `assign_trainable` are
/// flat arrays in the order of `trainable_layout()`.
template <class M>
concept TrainableModel = LanguageModel<M> && detail::ListsParameters<M> && detail::CopiesParameters<M>;

/// Which may have low-rank adapters, and runs without them when forward_options says so. Other models need no such
/// members.
template <class M>
concept AdaptableModel = LanguageModel<M> && requires(M const& c) {
  { c.has_adapters() } -> std::convertible_to<bool>;
  { c.adapter_config() } -> std::convertible_to<lora_config const*>;
};

namespace detail {

template <class M>
concept StoresBf16 = TrainableModel<M> && requires(M const& c, parameter_info const& p) {
  requires std::same_as<typename M::scalar, float>;
  { c.stores_as_bf16(p) } -> std::convertible_to<bool>;
};
template <class M>
concept HandsOverGradients = TrainableModel<M> && requires(M& m, M const& c, calls_of<M> a, index_t first) {
  { c.gradient_stretches() } -> std::convertible_to<std::vector<comm::range>>;
  c.read_trainable(first, a.flat);
  m.assign_trainable(first, a.values);
};
template <class M>
concept TakesLogitGradients = LanguageModel<M> && requires(calls_of<M> a) {
  a.model.backward_from_logits(a.cache, a.pass, a.matrix.cview(), a.gradients, edited{unknown_edit{}, a.values});
};
template <class M>
concept ShowsAttention = LanguageModel<M> && requires(calls_of<M> a, index_t layer) {
  a.model.mean_attention(a.cache, a.pass, layer, a.matrix);
};
template <class M>
concept Recordable = LanguageModel<M> && requires {
  requires M::is_recordable;
};
template <class M>
concept GivesInputGradients = LanguageModel<M> && requires {
  requires M::gives_input_gradients;
};

/// One sentence for what is wrong with a type that was meant to be a model.
template <class M>
consteval bool explain_language_model() {
  if constexpr (!LanguageModel<M>) {
    if constexpr (!NamesScalars<M>)
      static_assert(always_false<M>,
                    "atmanrl: not a LanguageModel: it needs `using backend_type` (a Backend) and `using scalar`, the "
                    "type that it computes in (see docs/extending.md#models)");
    else if constexpr (!DescribesItself<M>)
      static_assert(always_false<M>,
                    "atmanrl: a LanguageModel needs `backend_type& backend() const` and `atmanrl::model_config const& "
                    "config() const` (see docs/extending.md#models)");
    else if constexpr (!LendsPasses<M>)
      static_assert(always_false<M>,
                    "atmanrl: a LanguageModel needs `atmanrl::workspace& memory() const` and `auto "
                    "borrow_pass(atmanrl::index_t rows, bool recompute = false) const`, which returns what "
                    "atmanrl::borrow_pass<scalar> does (see docs/extending.md#models)");
    else if constexpr (!RunsForward<M>)
      static_assert(always_false<M>,
                    "atmanrl: a LanguageModel needs `template <class P = atmanrl::attention::none, class V = "
                    "atmanrl::no_values> void forward(cache, atmanrl::ragged_batch const&, pass, "
                    "atmanrl::forward_options = {}, atmanrl::edited<P, V> = {})` (see docs/extending.md#models)");
    else if constexpr (!RunsEdited<M>)
      static_assert(always_false<M>,
                    "atmanrl: a LanguageModel's forward must take any attention policy, and its values after it: "
                    "masks are such policies; write `template <class P = atmanrl::attention::none, class V "
                    "= atmanrl::no_values>` and take `atmanrl::edited<P, V>` (see docs/extending.md#models)");
    else if constexpr (!ScoresTokens<M>)
      static_assert(always_false<M>,
                    "atmanrl: a LanguageModel needs `void log_probs(pass, std::span<atmanrl::scored_token const>, "
                    "double temperature = 1, bool want_entropy = false)` and `void logits(pass, std::span<int const> "
                    "rows, tensor& out)` (see docs/extending.md#models)");
    else
      static_assert(always_false<M>,
                    "atmanrl: a LanguageModel needs `template <class P = atmanrl::attention::none, class V = "
                    "atmanrl::no_values> void backward(cache, pass, atmanrl::loss_gradients<scalar>, "
                    "atmanrl::pass_gradients<backend_type, scalar>, atmanrl::edited<P, V> = {})` (see "
                    "docs/extending.md#models)");
  }
  return true;
}

/// The same for one whose weights are to be trained.
template <class M>
consteval bool explain_trainable_model() {
  explain_language_model<M>();
  if constexpr (LanguageModel<M> && !ListsParameters<M>)
    static_assert(always_false<M>,
                  "atmanrl: a model that is trained needs `atmanrl::parameter_layout const& trainable_layout() const`: "
                  "where each parameter lies in flat arrays (see docs/extending.md#models)");
  else if constexpr (LanguageModel<M> && !CopiesParameters<M>)
    static_assert(always_false<M>,
                  "atmanrl: a model that is trained needs `void read_trainable(atmanrl::view_on<B, scalar, 1>) const` "
                  "and `void assign_trainable(atmanrl::view_on<B, scalar const, 1>)`, flat arrays in the order of its "
                  "trainable_layout() (see docs/extending.md#models)");
  return true;
}

}  // namespace detail
}  // namespace atmanrl::inline ATMANRL_ABI
