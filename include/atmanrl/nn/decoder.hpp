#pragma once

/// \file
/// A decoder-only language model of any block: one forward pass for prefill, decoding, teacher forcing, mask training
/// and scoring.

#include <atmanrl/attention/compose.hpp>
#include <atmanrl/nn/blocks.hpp>
#include <atmanrl/nn/cache_and_pass.hpp>
#include <atmanrl/nn/decoder_gradient.hpp>
#include <atmanrl/nn/decoder_pass.hpp>
#include <atmanrl/nn/decoder_weights.hpp>
#include <atmanrl/nn/model_calls.hpp>
#include <atmanrl/nn/rotation_tables.hpp>
#include <atmanrl/ops/embedding.hpp>
#include <atmanrl/ops/log_prob.hpp>
#include <atmanrl/ops/mean_attention.hpp>

#include <memory>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// \tparam B      backend
/// \tparam W      type of the matrices: float (double and complex on reference_backend), or bf16 where products take
///                both factors as that (factor_t), as cuda_backend's do; the rest is compute_t<W>. What a float matrix
///                is stored as is said when the model is made (weight_storage)
/// \tparam Block  what a layer is made of (nn/block.hpp)
/// \tparam Edit   an attention edit that belongs to the model, after the block's own: sampling, masks, updates and
///                evaluation all see it; where it has parameters, they are trained with the others
template <Backend B, class W = float, class Block = standard_block, class Edit = attention::none>
class decoder : public decoder_weights<B, W, Block> {
  using weights = decoder_weights<B, W, Block>;
  static_assert(detail::explain_attention_policy<Edit>());

 public:
  using T = typename weights::scalar;

  /// A model with all parameters zero; fill it with `assign` or `load`.
  /// \throws usage_error for packed, which takes a file, and for a storage that the backend does not have
  decoder(B& backend, model_config config, Edit edit = {}, weight_storage storage = weight_storage::full)
      : decoder(unread{}, backend, std::move(config), std::move(edit), storage) {
    expects<usage_error>(storage != weight_storage::packed, "a packed model is loaded from a quantised file");
  }

  /// Reads a Hugging Face folder, a .gguf or a llama2.c .bin. Parameters of the model's edit are those that were saved
  /// with it, or zero where it was saved without any.
  /// \param storage  packed: what the file holds quantised stays so, and computes what it would compute decoded, to
  ///                 the bit. Such matrices are not trained: adapters are
  /// \throws file_error when the edit that was saved with the model is not this one, usage_error when matrices of `W`
  ///         are not stored so on this backend
  static decoder load(B& backend, std::filesystem::path const& path, Edit edit = {},
                      weight_storage storage = weight_storage::full) {
    return load(backend, model_file::open(path, weights::known_architectures()), std::move(edit), storage);
  }
  static decoder load(B& backend, model_file const& file, Edit edit = {},
                      weight_storage storage = weight_storage::full) {
    decoder model = zeros(backend, file, std::move(edit), storage);
    model.read_file(file);
    return model;
  }

  /// A model as `load` makes it before it reads a number: all parameters are zero.
  static decoder zeros(B& backend, model_file const& file, Edit edit = {},
                       weight_storage storage = weight_storage::full) {
    decoder model(unread{}, backend, file.config(), std::move(edit), storage);
    if (storage == weight_storage::packed) model.make_weights(file);
    return model;
  }

  Edit const& edit() const { return edit_; }

  /// What the model's keys and values are rounded to, in sampling and training alike: a part of the function that it
  /// computes.
  atmanrl::kv_storage kv_storage() const { return kv_storage_; }
  /// \throws usage_error for 16 bits under a model that does not compute in float
  void set_kv_storage(atmanrl::kv_storage storage) {
    expects<usage_error>(storage == atmanrl::kv_storage::full || std::same_as<T, float>,
                         "16-bit keys and values are for models that compute in float");
    if (storage != kv_storage_) memory_->clear();
    kv_storage_ = storage;
  }
  /// A cache for this model's keys and values.
  kv_cache<B, T> new_cache(index_t capacity) const { return {*backend_, config_, capacity, kv_storage_}; }

  /// Ids that no token stands for: they are never drawn and have no probability, in sampling and training alike. Many
  /// models have more rows in their embedding than their tokenizer has tokens.
  void forbid(std::span<int const> ids) {
    head_bias_.resize(*backend_, {ids.empty() ? 0 : config_.vocab});
    if (ids.empty()) return;
    // So low that its exponential is exactly zero beside any other logit, and finite: zero times it is zero.
    std::vector<T> bias(std::size_t(config_.vocab), T(0));
    for (int const id : ids) bias[std::size_t(id)] = T(real_t<T>(-1e30));
    head_bias_.assign(bias);
  }

  /// Memory for those who call the model again and again.
  workspace& memory() const { return *memory_; }
  /// An empty cache of `rows` rows and a forward pass, in memory that earlier borrowers have left.
  /// \param recompute  see forward_pass::set_recompute
  borrowed<cache_and_pass<B, T>> borrow_pass(index_t rows, bool recompute = false) const {
    return atmanrl::borrow_pass<T>(*memory_, *backend_, rows, recompute,
                                   [&](index_t capacity) { return new_cache(capacity); });
  }

  /// Appends the batch to its sequences and runs it through the layers.
  /// \param edit  of the scores, after the block's and the model's own
  /// \throws usage_error when a token id or a position is outside the model, or when parameter gradients are wanted
  ///         with the adapters off; shape_error when batch and cache, or the edit and its values, do not fit
  template <class P = attention::none, EditValues<B, T> V = no_values>
  void forward(kv_cache<B, T>& cache, ragged_batch const& batch, forward_pass<B, T>& pass, forward_options options = {},
               edited<P, V> edit = {}) {
    static_assert(detail::explain_attention_policy<P>());
    check(batch);
    memory_use_scope const named(*backend_, memory_use::activations);
    gradient_mode const mode = options.mode;
    bool const adapted = adapters_ && options.adapters == adapters::on;
    expects<usage_error>(
        !adapters_ || adapted || mode != gradient_mode::parameters,
        "parameter gradients with the adapters off: the model's own weights are not trained beside adapters");
    if (mode == gradient_mode::parameters) this->expect_trainable();
    view_on<B, T const, 1> const values = values_of(edit);
    cache.bind(this, version_, adapted, kv_storage_);
    index_t longest = 0;
    for (auto const& e : batch.entries()) longest = std::max(longest, cache.length(e.sequence) + e.rows);
    rotation_.cover(*backend_, config_, longest - 1);
    pass.plan(cache, batch, mode);
    pass.template state<pass_state>().adapted = adapted;
    forward_rows(cache, pass, edit.policy, values);
    for (auto const& e : batch.entries()) cache.extend(e.sequence, e.rows);
  }

  /// The rows of the latest forward pass again, with its adapters and without an edit of the caller's, after the
  /// backend has given them other tokens and moved them on (ops/advance.hpp). It kept nothing. The cache does not learn
  /// of it: whoever moves rows sees to it that they stay in their sequences, and extends these. \param longest  most
  /// keys that a row may see now; where it is larger, results are the same
  void forward_again(kv_cache<B, T>& cache, forward_pass<B, T>& pass, index_t longest) {
    expects<shape_error>(pass.mode() == gradient_mode::none, "rows are moved on in passes that keep nothing alone");
    memory_use_scope const named(*backend_, memory_use::activations);
    cache.bind(this, version_, pass.template state<pass_state>().adapted, kv_storage_);
    longest = std::min(longest, config_.max_positions);
    rotation_.cover(*backend_, config_, longest - 1);
    pass.set_longest(longest);
    forward_rows(cache, pass, attention::none{}, {});
  }

  /// log p(target) after the given batch rows of `pass`, of logits / temperature; results in pass.log_p() and
  /// entropy().
  void log_probs(forward_pass<B, T>& pass, std::span<scored_token const> tokens, double temperature = 1,
                 bool want_entropy = false) const {
    memory_use_scope const named(*backend_, memory_use::head);
    auto& state = pass.template state<pass_state>();
    std::vector<int> rows, targets;
    for (scored_token const& s : tokens) {
      expects<shape_error>(s.row >= 0 && s.row < pass.rows(), "row {} of a batch of {} rows", s.row, pass.rows());
      expects<usage_error>(s.target >= 0 && s.target < config_.vocab, "token id {} is outside the vocabulary of {}",
                           s.target, config_.vocab);
      rows.push_back(s.row);
      targets.push_back(s.target);
    }
    index_t const n = index_t(tokens.size());
    auto& [log_p, entropy, input] = pass.results();
    state.temperature = temperature;
    state.targets.assign(*backend_, targets);
    gather_and_norm(state, rows);
    log_p.resize(*backend_, {n});
    state.lse.resize(*backend_, {n});
    entropy.resize(*backend_, {want_entropy ? n : 0});
    log_prob(*backend_, state.normed.cview(), head_weight(), state.targets.cview(), temperature, state.head_scratch,
             log_p.view(), state.lse.view(), entropy.view(), head_bias_.cview());
  }

  /// Logits of a few rows, for samplers and option scores.
  /// \param out (rows.size(), vocabulary), resized
  void logits(forward_pass<B, T>& pass, std::span<int const> rows, tensor<B, T, 2>& out) const {
    memory_use_scope const named(*backend_, memory_use::head);
    auto& state = pass.template state<pass_state>();
    state.targets.clear();  // the gathered rows are no longer those of log_probs
    gather_and_norm(state, std::vector<int>(rows.begin(), rows.end()));
    out.resize(*backend_, {index_t(rows.size()), config_.vocab});
    matmul(*backend_, state.normed.cview(), head_weight(), out.view());
    if (head_bias_.size() > 0) add_bias(*backend_, head_bias_.cview(), out.view());
  }

  /// Whether `backward` fills pass_gradients::input.
  static constexpr bool gives_input_gradients = true;
  /// Whether what was called once, called again with the same batch, tokens and loss, takes no new memory, moves no
  /// bytes between host and backend and waits for nothing, so that a backend may record it.
  static constexpr bool is_recordable = true;

  /// Backward of forward and log_probs.
  /// \param gradients  `parameters` is empty in gradient_mode::activations and is not in gradient_mode::parameters
  /// \param edit       that of the forward pass
  /// \throws shape_error when the pass kept too little or nothing was scored, and when a size does not fit the pass
  template <AttentionPolicy P = attention::none, EditValues<B, T> V = no_values>
  void backward(kv_cache<B, T>& cache, forward_pass<B, T>& pass, loss_gradients<T> loss, pass_gradients<B, T> gradients,
                edited<P, V> edit = {}) {
    check_backward(pass, gradients, edit.policy);
    memory_use_scope const named(*backend_, memory_use::head);
    view_on<B, T const, 1> const values = values_of(edit);
    auto& state = pass.template state<pass_state>();
    cache.bind(this, version_, state.adapted, kv_storage_);
    index_t const n = state.targets.size();
    expects<shape_error>(n > 0, "backward needs log_probs of the forward pass");
    expects<shape_error>(index_t(loss.log_p.size()) == n && (loss.entropy.empty() || index_t(loss.entropy.size()) == n),
                         "{} and {} gradients for {} scored tokens", loss.log_p.size(), loss.entropy.size(), n);
    state.dlog_p.assign(*backend_, loss.log_p);
    state.dentropy.assign(*backend_, loss.entropy);
    state.dnormed.resize(*backend_, state.normed.shape());
    decoder_gradient<B, T> const own = begin_gradient(gradients);
    log_prob_backward(*backend_, state.normed.cview(), head_weight(), state.targets.cview(), state.temperature,
                      state.head_scratch, state.lse.cview(), state.dlog_p.cview(), pass.results().entropy.cview(),
                      state.dentropy.cview(), state.dnormed.view(), own.head(), head_bias_.cview());
    backward_rows(cache, pass, gradients, own, edit.policy, values);
  }

  /// Backward of forward and `logits` for a loss of the logits themselves, whose gradient the caller has.
  /// \param dlogits  (rows of the call of logits, vocabulary); the other arguments as in `backward`
  template <AttentionPolicy P = attention::none, EditValues<B, T> V = no_values>
  void backward_from_logits(kv_cache<B, T>& cache, forward_pass<B, T>& pass, view_on<B, T const, 2> dlogits,
                            pass_gradients<B, T> gradients, edited<P, V> edit = {}) {
    check_backward(pass, gradients, edit.policy);
    memory_use_scope const named(*backend_, memory_use::head);
    view_on<B, T const, 1> const values = values_of(edit);
    auto& state = pass.template state<pass_state>();
    cache.bind(this, version_, state.adapted, kv_storage_);
    expects<shape_error>(dlogits.extent(0) == state.normed.extent(0) && dlogits.extent(1) == config_.vocab,
                         "a gradient {} for the logits of {} rows over {} tokens", dlogits.shape(),
                         state.normed.extent(0), config_.vocab);
    state.dnormed.resize(*backend_, state.normed.shape());
    decoder_gradient<B, T> const own = begin_gradient(gradients);
    auto const factor = state.dlogits.rounded(*backend_, dlogits);
    matmul_backward_input(*backend_, factor, head_weight(), state.dnormed.view());
    if (auto const dhead = own.head(); !dhead.empty())
      matmul_backward_weight<B, T>(*backend_, factor, state.normed.cview(), dhead);
    backward_rows(cache, pass, gradients, own, edit.policy, values);
  }

  /// Attention of one layer in a pass that kept its activations, averaged over heads. A pass that kept the layers'
  /// inputs alone computes the layer again.
  /// \param out   (rows, keys), resized: by absolute position of the key, up to the longest row's
  /// \param edit  that of the forward pass
  template <AttentionPolicy P = attention::none, EditValues<B, T> V = no_values>
  void mean_attention(kv_cache<B, T>& cache, forward_pass<B, T>& pass, index_t layer, tensor<B, T, 2>& out,
                      edited<P, V> edit = {}) const {
    auto& state = pass.template state<pass_state>();
    expects<shape_error>(pass.mode() != gradient_mode::none,
                         "attention needs a forward pass that kept its activations");
    expects<shape_error>(layer >= 0 && layer < config_.layers, "layer {} of a model of {} layers", layer,
                         config_.layers);
    auto const all = edit_with(edit.policy, values_of(edit));
    cache.bind(this, version_, state.adapted, kv_storage_);
    std::size_t const l = std::size_t(layer);
    auto& kept = state.layers[state.inputs_only ? 0 : l];
    if (state.inputs_only) {
      pass_context<B, T> const context{*backend_, state.workspace.lora, state.adapted};
      std::swap(kept.x_in, state.inputs[l]);
      layers_[l].recompute(config_, call_of(l, cache, pass, context, all.values), all.policy.params(), kept,
                           state.workspace);
      std::swap(kept.x_in, state.inputs[l]);
    }
    out.resize(*backend_, {pass.rows(), pass.attention().longest});
    std::visit(
        [&](auto const& cached) {
          atmanrl::mean_attention(*backend_, extents(layer), kept.qkv.cview(), cached.keys, kept.lse.cview(),
                                  pass.attention(), all.policy.params(), all.values, out.view());
        },
        cache.rows_of(layer));
  }

 private:
  using weights::adapters_, weights::backend_, weights::config_, weights::edit_values_, weights::embedding_,
      weights::final_gain_, weights::final_gain_offset_, weights::head_weight, weights::layers_, weights::layout_,
      weights::stretches_, weights::version_;

  struct unread {};  // what a file is still to fill
  decoder(unread, B& backend, model_config config, Edit edit, weight_storage storage)
      : weights(backend, std::move(config), edit_parameters(edit), storage),
        edit_(std::move(edit)),
        block_edit_(Block::score_edit(config_)) {}
  static index_t edit_parameters(Edit const& edit) {
    if constexpr (trains_edit)
      return edit.parameter_count();
    else
      return 0;
  }

  attention_extents extents(index_t layer) const {
    return {int(layer), config_.heads, config_.kv_heads, config_.head_dim, this->stores_bf16(), config_.score_scale};
  }

  enum class direction { up, down };
  using pass_state = decoder_pass<B, T, factor_t<B, W>, Block>;
  static constexpr bool trains_edit = TrainableAttentionPolicy<Edit>;

  /// \throws shape_error when they are not the values of the policy's parameters
  template <class P, class V>
  static view_on<B, T const, 1> values_of(edited<P, V> const& edit) {
    view_on<B, T const, 1> const values = edit.values;
    if constexpr (TrainableAttentionPolicy<P>)
      expects<shape_error>(values.size() == edit.policy.parameter_count(),
                           "{} values for an attention policy with {} parameters", values.size(),
                           edit.policy.parameter_count());
    return values;
  }

  /// The block's edit, the model's, the caller's, one after the other, and the values that the one with parameters
  /// reads. The model's own are fixed while a caller trains others.
  template <class P>
  auto edit_with(P const& policy, view_on<B, T const, 1> values) const {
    if constexpr (trains_edit && freezes_edit<P>) {
      auto all =
          attention::composed(attention::composed(block_edit_, attention::frozen<Edit, T>{edit_, edit_values_.data()}),
                              attention::by_reference<P>{policy});
      return composed_edit<decltype(all)>{std::move(all), values.data()};
    } else {
      auto all = attention::composed(attention::composed(block_edit_, edit_), attention::by_reference<P>{policy});
      return composed_edit<decltype(all)>{std::move(all), trains_edit ? edit_values_.data() : values.data()};
    }
  }
  template <class P>
  struct composed_edit {
    P policy;
    T const* values;
  };

  /// Beside a caller's edit that has parameters itself, or looks at the row's smallest score and so has no derivative,
  /// the model's own parameters are constants.
  template <class P>
  static constexpr bool freezes_edit =
      TrainableAttentionPolicy<P> || detail::edits_scores_with_row_min<detail::params_of<P>>;

  /// Whether a backward pass also finds the gradient of the model's own edit.
  template <class P>
  static bool wants_edit_gradient(bool parameters) {
    return trains_edit && !freezes_edit<P> && parameters;
  }

  static view_on<B, T, 1> flat(tensor<B, T, 2>& t) { return t.view().template reshaped<1>({t.size()}); }

  /// Where a pass adds gradients of the model's own parameters. Under adapters none are wanted.
  decoder_gradient<B, T> begin_gradient(pass_gradients<B, T> const& gradients) const {
    if (adapters_) return {};
    return {config_, layout_, stretches_, gradients};
  }

  /// The norm before the output layer.
  nn::part_call<B, T> final_norm(pass_context<B, T> const& call, pass_state& state) const {
    return {call,
            config_,
            config_.layers,
            {},
            rotation_.cosine(),
            rotation_.sine(),
            std::span(&final_gain_, 1),
            std::span(&final_gain_offset_, 1),
            state.workspace.scratch};
  }

  template <AttentionPolicy P>
  void check_backward(forward_pass<B, T> const& pass, pass_gradients<B, T> const& gradients, P const& policy) const {
    auto const& [parameters, edit, input, stretches] = gradients;
    expects<shape_error>(pass.mode() != gradient_mode::none, "backward needs a forward pass that kept its activations");
    expects<shape_error>(
        (pass.mode() == gradient_mode::parameters) == gradients.wants_parameters(),
        "a gradient of {} parameters for a forward pass that kept {}", parameters.size(),
        pass.mode() == gradient_mode::parameters ? "what parameter gradients need" : "activations only");
    expects<shape_error>(parameters.empty() || parameters.size() == this->trainable_layout().size(),
                         "a gradient of {} for {} parameters", parameters.size(), this->trainable_layout().size());
    expects<shape_error>(parameters.empty() || !stretches, "gradients of parameters are wanted flat and in stretches");
    auto const& x = pass.template state<pass_state>().x;
    expects<shape_error>(input.empty() || input.shape() == x.shape(), "a gradient {} for an input {}", input.shape(),
                         x.shape());
    if constexpr (TrainableAttentionPolicy<P>)
      expects<shape_error>(edit.empty() || edit.extent(1) == policy.parameter_count(),
                           "a gradient {} for an attention policy with {} parameters", edit.shape(),
                           policy.parameter_count());
    else
      expects<shape_error>(edit.empty(), "a gradient {} for an attention policy without parameters", edit.shape());
  }

  // From the planned rows' tokens up to the residual stream after the last layer.
  template <class P>
  void forward_rows(kv_cache<B, T>& cache, forward_pass<B, T>& pass, P const& policy,
                    view_on<B, T const, 1> values) const {
    gradient_mode const mode = pass.mode();
    auto& state = pass.template state<pass_state>();
    state.targets.clear();  // those of an earlier call mean nothing any more
    state.x.resize(*backend_, {pass.rows(), config_.hidden});
    embed(*backend_, pass.ids(), embedding_.view(), state.x.view());
    if (config_.embedding_scale != 1) scale<B, T>(*backend_, flat(state.x), real_t<T>(config_.embedding_scale));
    state.inputs_only = mode != gradient_mode::none && pass.recompute();
    bool const keep = mode != gradient_mode::none && !pass.recompute();
    state.layers.resize(std::max(state.layers.size(), keep ? layers_.size() : std::size_t{1}));
    if (state.inputs_only) state.inputs.resize(layers_.size());
    auto const all = edit_with(policy, values);
    pass_context<B, T> const call{*backend_, state.workspace.lora, state.adapted};
    // Layers that keep nothing and are alike ask for the same memory, one after the other.
    bool const one_is_enough =
        counts_memory_alone(*backend_) && mode == gradient_mode::none && config_.per_layer.empty();
    walk_layers(cache, pass, call, all.values, direction::up,
                [&](decoder_layer<B, W, Block> const& layer, std::size_t l, layer_call<B, T> const& layer_call) {
                  if (one_is_enough && l > 0) return;
                  if (state.inputs_only) copy_of(state.x, state.inputs[l]);
                  layer.forward(config_, layer_call, all.policy.params(), state.x.view(), state.layers[keep ? l : 0],
                                state.workspace, keep);
                });
    if (mode != gradient_mode::none)
      pass.results().input = keep ? state.layers.front().x_in.cview() : state.inputs.front().cview();
  }

  // From the gradient of the gathered, normed rows down to the embedding.
  template <AttentionPolicy P>
  void backward_rows(kv_cache<B, T>& cache, forward_pass<B, T>& pass, pass_gradients<B, T> const& gradients,
                     decoder_gradient<B, T> const& own, P const& policy, view_on<B, T const, 1> values) {
    memory_use_scope const named(*backend_, memory_use::activations);
    auto& state = pass.template state<pass_state>();
    pass_context<B, T> call{*backend_, state.workspace.lora, state.adapted, own.top()};
    if (adapters_)
      call.lora_gradient =
          gradients.stretches ? gradients.stretches->room(this->gradient_stretches().front()) : gradients.parameters;
    state.dgathered.resize(*backend_, state.gathered.shape());
    state.dgathered.fill_zero();
    Block::norm::template backward<B, T>(final_norm(call, state), state.gathered.cview(), state.dnormed.cview(),
                                         state.dgathered.view(), state.norm);
    own.complete_top();
    state.dx.resize(*backend_, state.x.shape());
    state.dx.fill_zero();
    add_rows(*backend_, state.dgathered.cview(), state.scored_rows.cview(), state.dx.view());
    decoder_layer<B, W, Block>::begin_backward(*backend_, state.dx.cview(), state.workspace);

    auto const edit = edit_with(policy, values);
    view_on<B, T, 2> dedit = gradients.edit;
    if (wants_edit_gradient<P>(own.wanted())) {
      state.dedit.resize(*backend_, {config_.kv_heads, edit_values_.size()});
      state.dedit.fill_zero();
      dedit = state.dedit.view();
    }
    walk_layers(cache, pass, call, edit.values, direction::down,
                [&](decoder_layer<B, W, Block> const& layer, std::size_t at, layer_call<B, T> const& layer_call) {
                  auto& a = state.layers[state.inputs_only ? 0 : at];
                  if (state.inputs_only) {
                    std::swap(a.x_in, state.inputs[at]);
                    layer.recompute(config_, layer_call, edit.policy.params(), a, state.workspace);
                  }
                  if (own.wanted()) call.gradient = own.layer(at);
                  layer.backward(config_, layer_call, edit.policy.params(), a, state.dx.view(), dedit, state.workspace,
                                 at > 0 || gradients.wants_parameters() || !gradients.input.empty());
                  if (own.wanted()) own.complete_layer(at);
                  if (state.inputs_only) std::swap(a.x_in, state.inputs[at]);
                });
    if (!gradients.input.empty())
      backend_->copy(gradients.input.data(), state.dx.data(), std::size_t(state.dx.size()) * sizeof(T));
    if (edit_values_.size() > 0 && own.wanted()) {
      auto const sum = own.edit();
      // One key-value head after the other: a fixed order.
      for (index_t h = 0; h < config_.kv_heads && wants_edit_gradient<P>(true); ++h)
        nn::add_to<B, T>(*backend_, {dedit.row(h), sum.shape()}, sum);
      own.complete_edit();
    }
    if (adapters_ && gradients.stretches) gradients.stretches->complete(this->gradient_stretches().front());
    if (!own.wanted()) return;
    if (config_.embedding_scale != 1) scale<B, T>(*backend_, flat(state.dx), real_t<T>(config_.embedding_scale));
    add_rows(*backend_, state.dx.cview(), pass.ids(), own.embedding());
    own.complete_embedding();
  }

  void check(ragged_batch const& batch) const {
    expects<shape_error>(batch.rows() > 0, "a batch without rows");
    for (int const id : batch.tokens())
      expects<usage_error>(id >= 0 && id < config_.vocab, "token id {} is outside the vocabulary of {}", id,
                           config_.vocab);
  }

  /// The one place where the layers are walked; prefill, decoding, training and scoring all come through here.
  template <class F>
  void walk_layers(kv_cache<B, T>& cache, forward_pass<B, T> const& pass, pass_context<B, T> const& context,
                   T const* edit_values, direction d, F&& visit) const {
    for (std::size_t step = 0; step < layers_.size(); ++step) {
      std::size_t const l = d == direction::up ? step : layers_.size() - 1 - step;
      visit(layers_[l], l, call_of(l, cache, pass, context, edit_values));
    }
  }
  layer_call<B, T> call_of(std::size_t l, kv_cache<B, T>& cache, forward_pass<B, T> const& pass,
                           pass_context<B, T> const& context, T const* edit_values) const {
    return {
        .pass = context,
        .extents = extents(index_t(l)),
        .cached = cache.rows_of(index_t(l)),
        .plan = &pass.attention(),
        .positions = pass.positions(),
        .cache_rows = pass.cache_rows(),
        .cosine = rotation_.cosine(),
        .sine = rotation_.sine(),
        .edit_values = edit_values,
    };
  }

  void copy_of(tensor<B, T, 2> const& from, tensor<B, T, 2>& to) const {
    to.resize(*backend_, from.shape());
    backend_->copy(to.data(), from.data(), std::size_t(from.size()) * sizeof(T));
  }

  void gather_and_norm(pass_state& state, std::vector<int> const& rows) const {
    index_t const n = index_t(rows.size());
    state.scored_rows.assign(*backend_, rows);
    state.gathered.resize(*backend_, {n, config_.hidden});
    state.normed.resize(*backend_, {n, config_.hidden});
    gather_rows(*backend_, state.x.cview(), state.scored_rows.cview(), state.gathered.view());
    pass_context<B, T> const call{*backend_, state.workspace.lora};
    Block::norm::template forward<B, T>(final_norm(call, state), state.gathered.cview(), state.normed.view(),
                                        state.norm);
  }

  Edit edit_;
  decltype(Block::score_edit(std::declval<model_config const&>())) block_edit_;
  atmanrl::kv_storage kv_storage_ = atmanrl::kv_storage::full;
  tensor<B, T, 1> head_bias_;  // (vocabulary) where ids are forbidden, else empty
  std::unique_ptr<workspace> memory_ = std::make_unique<workspace>();
  rotation_tables<B, real_t<T>> rotation_;
};

/// A model of one of the standard blocks (nn/blocks.hpp).
template <Backend B, class W = float>
using llama = decoder<B, W>;

}  // namespace atmanrl::inline ATMANRL_ABI
