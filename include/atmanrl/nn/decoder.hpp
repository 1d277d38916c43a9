#pragma once

/// \file
/// A decoder-only language model of any block: one forward pass for prefill, decoding, teacher forcing, mask training
/// and scoring.

#include <atmanrl/attention/compose.hpp>
#include <atmanrl/backend/uploaded.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/io/peft.hpp>
#include <atmanrl/nn/blocks.hpp>
#include <atmanrl/nn/cache_and_pass.hpp>
#include <atmanrl/nn/decoder_layer.hpp>
#include <atmanrl/nn/lora_adapters.hpp>
#include <atmanrl/nn/model_calls.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/ops/adamw.hpp>  // stored_range
#include <atmanrl/ops/embedding.hpp>
#include <atmanrl/ops/log_prob.hpp>
#include <atmanrl/ops/mean_attention.hpp>

#include <cmath>
#include <memory>
#include <optional>
#include <vector>

namespace atmanrl {

/// What a decoder keeps of a forward pass.
/// \tparam F  what products take
template <Backend B, class T, class F, class Block>
struct decoder_pass {
  bool inputs_only = false;  ///< what the latest forward pass kept
  bool adapted = false;      ///< whether it went through the model's adapters
  tensor<B, T, 2> x, dx;     ///< (rows, hidden) residual stream and, in the backward pass, its gradient
  std::vector<layer_activations<B, T, Block>> layers;  ///< one where no or only inputs are kept
  std::vector<tensor<B, T, 2>> inputs;                 ///< (rows, hidden) x_in of every layer, where only they are kept
  layer_workspace<B, T, F> workspace;

  // Head: rows gathered for the scored tokens.
  double temperature = 1;
  uploaded<B, int> scored_rows, targets;
  tensor<B, T, 2> gathered, dnormed, dgathered;  ///< (scored, hidden)
  tensor<B, F, 2> normed;                        ///< (scored, hidden)
  typename Block::norm::template saved<B, T> norm;
  tensor<B, T, 1> lse;              ///< (scored)
  uploaded<B, T> dlog_p, dentropy;  ///< (scored)
  log_prob_scratch<B, T, F> head_scratch;
  factor_copy<B, T, F> dlogits;  ///< (scored, vocabulary) a gradient of logits that a caller gave
  tensor<B, T, 2> dedit;         ///< (kv_heads, parameters) of an edit that the model trains
};

/// \tparam B      backend
/// \tparam W      type of the matrices: float (double and complex on reference_backend), or bf16 where products take
///                both factors as that (factor_t), as cuda_backend's do; the rest is compute_t<W>. What a float matrix
///                is stored as is said when the model is made (weight_storage)
/// \tparam Block  what a layer is made of (nn/block.hpp)
/// \tparam Edit   an attention edit that belongs to the model, after the block's own: sampling, masks, updates and
///                evaluation all see it; where it has parameters, they are trained with the others
template <Backend B, class W = float, class Block = standard_block, class Edit = attention::none>
class decoder {
  static_assert(
      !(std::same_as<W, bf16> && KeepsBf16<B, float>),
      "atmanrl: on this backend bfloat16 is what a float model's matrices are stored as: take decoder<B> with "
      "atmanrl::weight_storage::bf16");
  static_assert(detail::explain_block<Block>());
  static_assert(detail::explain_attention_policy<Edit>());

 public:
  using backend_type = B;
  using weight_type = W;
  using block_type = Block;
  using scalar = compute_t<W>;
  using T = scalar;

  /// What files call the models that this class can be.
  static architectures const& known_architectures() {
    static architectures const known = architectures_of<Block>();
    return known;
  }

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
    return load(backend, model_file::open(path, known_architectures()), std::move(edit), storage);
  }
  static decoder load(B& backend, model_file const& file, Edit edit = {},
                      weight_storage storage = weight_storage::full) {
    decoder model = zeros(backend, file, std::move(edit), storage);
    index_t const saved = index_t(file.attention_edit().size()), own = model.edit_values_.size();
    expects<file_error>(saved == 0 || saved == own, "{}: holds {} values of an attention edit, but {}",
                        (file.path() / attention_edit_file).string(), saved,
                        own == 0 ? "the model of this program has no edit with parameters"
                                 : fmt::format("that of this program's model has {} parameters", own));
    for (parameter_info const& p : model.layout_.all()) {
      if (p.role == parameter_role::edit && saved == 0) continue;  // a model that has not learned one: zeros
      if (!p.is_vector() && p.role != parameter_role::edit && storage == weight_storage::packed &&
          file.quantised_type(p.name))
        model.take_blocks(file, p);
      else
        model.take_floats(file, p);
    }
    return model;
  }

  /// A model as `load` makes it before it reads a number: all parameters are zero.
  static decoder zeros(B& backend, model_file const& file, Edit edit = {},
                       weight_storage storage = weight_storage::full) {
    decoder model(unread{}, backend, file.config(), std::move(edit), storage);
    if (storage == weight_storage::packed) model.make_weights(file);
    return model;
  }

  architecture const& kind() const { return kind_; }
  /// That of a model with these numbers.
  static architecture const& kind_of(model_config const& c) {
    auto const& known = known_architectures();
    return known.size() == 1 ? known.front() : find_architecture(known, c.architecture);
  }
  /// Numbers that one row leaves in one layer for a backward pass, beside the residual stream before its two halves.
  static index_t kept_numbers(model_config const& c) { return decoder_layer<B, W, Block>::kept_numbers(c); }
  Edit const& edit() const { return edit_; }
  model_config const& config() const { return config_; }
  parameter_layout const& layout() const { return layout_; }
  B& backend() const { return *backend_; }
  /// What the matrices are stored as; packed where some of them are blocks of a quantised file.
  weight_storage storage() const { return storage_; }
  /// Whether some are blocks: then adapters alone can be trained.
  bool is_packed() const { return storage_ == weight_storage::packed; }
  /// Counts changes of the weights and adapters; a kv_cache refuses rows of another version.
  std::uint64_t version() const { return version_; }

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

  /// Gives the model fresh adapters in place of older ones; from now on they alone are its trainable parameters.
  /// \throws usage_error for an impossible configuration
  void attach(lora_config const& l, std::uint64_t seed) {
    attach_empty(resolved(l, lora_matrices(config_, kind_), "the adapters"));
    adapters_->draw(layers_, seed);
    ++version_;
  }
  /// Reads a PEFT folder.
  /// \throws file_error when it belongs to another model, or asks for something that is not plain LoRA
  void load_adapters(std::filesystem::path const& folder) {
    peft_adapter const file(folder, config_, kind_);
    attach_empty(file.config());
    std::vector<float> values(std::size_t(adapters_->layout().size()));
    for (parameter_info const& p : adapters_->layout().all())
      file.read(p.name, std::span(values).subspan(std::size_t(p.offset), std::size_t(p.size())));
    tensor<B, T, 1> flat(*backend_, {adapters_->layout().size()});
    flat.assign(std::vector<T>(values.begin(), values.end()));
    assign_trainable(flat.cview());
  }
  void detach() {
    if (adapters_) adapters_->detach_from(layers_);
    adapters_.reset();
    ++version_;
  }
  bool has_adapters() const { return adapters_.has_value(); }
  /// nullptr where there are none.
  lora_config const* adapter_config() const { return adapters_ ? &adapters_->config() : nullptr; }

  /// What is trained: the adapters where there are any, else all parameters. Gradients are flat arrays of this layout.
  parameter_layout const& trainable_layout() const { return adapters_ ? adapters_->layout() : layout_; }
  /// Whether assign_trainable rounds this trainable parameter to bf16, so that ranks need not exchange more of it.
  bool stores_as_bf16(parameter_info const& p) const { return stores_bf16() && !adapters_ && !p.is_vector(); }
  /// The stretches of the trainable layout in the order in which a backward pass completes their gradients
  /// (gradient_stretches_of).
  std::vector<comm::range> gradient_stretches() const {
    return adapters_ ? gradient_stretches_of(adapters_->layout()) : stretches_;
  }
  /// \throws usage_error for a packed model without adapters, which has nothing to train; so has `read_trainable`
  void assign_trainable(view_on<B, T const, 1> flat) {
    expect_trainable();
    if (!adapters_) return assign(flat);
    adapters_->assign(layers_, flat);
    ++version_;
  }
  void read_trainable(view_on<B, T, 1> flat) const {
    expect_trainable();
    if (adapters_)
      adapters_->read(layers_, flat);
    else
      read(flat);
  }

  /// The same for one of gradient_stretches(), whose elements begin at `first`.
  void assign_trainable(index_t first, view_on<B, T const, 1> stretch) {
    if (adapters_) return assign_trainable(stretch);
    expect_trainable();
    each_in(first, stretch.size(), [&](parameter_info const& p) {
      assign_rows(p, 0, view_on<B, T const, 2>(stretch.data() + (p.offset - first), {p.rows, p.columns}));
    });
  }
  void read_trainable(index_t first, view_on<B, T, 1> stretch) const {
    if (adapters_) return read_trainable(stretch);
    expect_trainable();
    each_in(first, stretch.size(), [&](parameter_info const& p) {
      read_rows(p, 0, view_on<B, T, 2>(stretch.data() + (p.offset - first), {p.rows, p.columns}));
    });
  }
  /// Where the trainable parameters are stored, for an optimizer that writes them itself; none where the backend has
  /// weights in a layout of its own, and for adapters, whose matrices stand among others.
  /// Whoever has written there calls `stored`.
  std::vector<stored_range<T>> trainable_storage() requires std::same_as<T, float> {
    std::vector<stored_range<T>> all;
    if constexpr (requires { requires kernels::matmul<B>::is_row_major; }) {
      if (adapters_ || is_packed()) return all;
      for (parameter_info const& p : layout_.all()) {
        auto const [matrix, vector, offset] = storage_of(p);
        if (vector)
          all.push_back({p.offset, p.size(), nullptr, vector->data() + offset});
        else if constexpr (std::same_as<W, bf16>)
          all.push_back({p.offset, p.size(), matrix->view().data + offset * p.columns, nullptr});
        else
          all.push_back({p.offset, p.size(), nullptr, matrix->view().data + offset * p.columns});
      }
    }
    return all;
  }
  /// The weights were written from outside.
  void stored() { ++version_; }

  /// Sets all parameters from a flat array in the order of layout(), rounding matrices to what they are stored as.
  void assign(view_on<B, T const, 1> flat) {
    expects<shape_error>(flat.size() == layout_.size(), "{} values for a model of {} parameters", flat.size(),
                         layout_.size());
    for (parameter_info const& p : layout_.all())
      assign_rows(p, 0, view_on<B, T const, 2>(flat.data() + p.offset, {p.rows, p.columns}));
  }
  /// Sets rows [first, first + rows.extent(0)) of one parameter, for models that are larger than a flat array may be.
  void assign_rows(parameter_info const& p, index_t first, view_on<B, T const, 2> rows) {
    auto const [matrix, vector, offset] = storage_of(p);
    if (vector)
      backend_->copy(vector->data() + offset, rows.data(), std::size_t(rows.size()) * sizeof(T));
    else
      matrix->assign_rows(*backend_, offset + first, rows);
    ++version_;
  }
  /// Writes all parameters into a flat array.
  void read(view_on<B, T, 1> flat) const {
    expects<shape_error>(flat.size() == layout_.size(), "{} values for a model of {} parameters", flat.size(),
                         layout_.size());
    for (parameter_info const& p : layout_.all())
      read_rows(p, 0, view_on<B, T, 2>(flat.data() + p.offset, {p.rows, p.columns}));
  }
  /// Rows [first, first + rows.extent(0)) of one parameter; with adapters::on those of the merged matrix W + s B A.
  void read_rows(parameter_info const& p, index_t first, view_on<B, T, 2> rows, adapters which = adapters::off) const {
    auto const [matrix, vector, offset] = const_cast<decoder*>(this)->storage_of(p);
    if (vector) return backend_->copy(rows.data(), vector->data() + offset, std::size_t(rows.size()) * sizeof(T));
    matrix->read_rows(*backend_, offset + first, rows);
    if (which == adapters::on && p.layer >= 0) {
      auto const& layer = layers_[std::size_t(p.layer)];
      layer.at(layer.parameters()[std::size_t(p.number)].linear).adapter().add_product(*backend_, offset + first, rows);
    }
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
    if (mode == gradient_mode::parameters) expect_trainable();
    view_on<B, T const, 1> const values = values_of(edit);
    cache.bind(this, version_, adapted, kv_storage_);
    index_t longest = 0;
    for (auto const& e : batch.entries()) longest = std::max(longest, cache.length(e.sequence) + e.rows);
    prepare_rotation(longest - 1);
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
    prepare_rotation(longest - 1);
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
    own_gradient const own = begin_gradient(gradients);
    log_prob_backward(*backend_, state.normed.cview(), head_weight(), state.targets.cview(), state.temperature,
                      state.head_scratch, state.lse.cview(), state.dlog_p.cview(), pass.results().entropy.cview(),
                      state.dentropy.cview(), state.dnormed.view(), head_gradient(own), head_bias_.cview());
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
    own_gradient const own = begin_gradient(gradients);
    auto const factor = state.dlogits.rounded(*backend_, dlogits);
    matmul_backward_input(*backend_, factor, head_weight(), state.dnormed.view());
    if (auto const dhead = head_gradient(own); !dhead.empty())
      matmul_backward_weight<B, T>(*backend_, factor, state.normed.cview(), dhead);
    backward_rows(cache, pass, gradients, own, edit.policy, values);
  }

  /// Attention of one layer in a pass that kept its activations, averaged over heads.
  /// \param out   (rows, keys), resized: by absolute position of the key, up to the longest row's
  /// \param edit  that of the forward pass
  template <AttentionPolicy P = attention::none, EditValues<B, T> V = no_values>
  void mean_attention(kv_cache<B, T>& cache, forward_pass<B, T> const& pass, index_t layer, tensor<B, T, 2>& out,
                      edited<P, V> edit = {}) const {
    auto const& state = pass.template state<pass_state>();
    expects<shape_error>(pass.mode() != gradient_mode::none && !state.inputs_only,
                         "attention needs a forward pass that kept its activations");
    expects<shape_error>(layer >= 0 && layer < config_.layers, "layer {} of a model of {} layers", layer,
                         config_.layers);
    auto const all = edit_with(edit.policy, values_of(edit));
    cache.bind(this, version_, state.adapted, kv_storage_);
    auto const& kept = state.layers[std::size_t(layer)];
    out.resize(*backend_, {pass.rows(), pass.attention().longest});
    std::visit(
        [&](auto const& cached) {
          atmanrl::mean_attention(*backend_, extents(layer), kept.qkv.cview(), cached.keys, kept.lse.cview(),
                                  pass.attention(), all.policy.params(), all.values, out.view());
        },
        cache.rows_of(layer));
  }

 private:
  struct unread {};  // what a file is still to fill
  decoder(unread, B& backend, model_config config, Edit edit, weight_storage storage)
      : backend_(&backend),
        config_(std::move(config)),
        kind_(kind_of(config_)),
        layout_(config_, kind_),
        storage_(storage),
        edit_(std::move(edit)),
        block_edit_(Block::score_edit(config_)),
        embedding_(backend, config_.vocab, config_.hidden, storage) {
    if constexpr (trains_edit) {
      layout_.add(std::string(attention_edit_name), parameter_role::edit, -1, 0, 1, edit_.parameter_count());
      edit_values_ = tensor<B, T, 1>::zeros(backend, {edit_.parameter_count()});
    }
    parameter_list final_norm;
    Block::norm::parameters(final_norm, {"norm.weight"}, config_.hidden);
    expects<usage_error>(final_norm.all().size() == 1 && final_norm.all()[0].is_vector(),
                         "the norm of a block must have one gain");
    final_gain_ = tensor<B, T, 1>::zeros(backend, {config_.hidden});
    final_gain_offset_ = layout_.find(final_gain_name)->offset;
    stretches_ = gradient_stretches_of(layout_);
    for (index_t l = 0; l < config_.layers; ++l)
      layers_.emplace_back(backend, config_, l, layout_.offsets_of(l), storage);
    if (!config_.tied_head) head_ = atmanrl::weight<B, W>(backend, config_.vocab, config_.hidden, storage);
  }

  /// The weights of a model that is to hold a file's quantised matrices as they are.
  void make_weights(model_file const& file) {
    std::vector<std::pair<atmanrl::weight<B, W>*, std::vector<typed_rows>>> all;
    for (parameter_info const& p : layout_.all()) {
      auto* const matrix = storage_of(p).matrix;
      if (!matrix) continue;
      if (all.empty() || all.back().first != matrix) all.push_back({matrix, {}});
      all.back().second.push_back({p.rows, file.quantised_type(p.name).value_or(gguf_type::f32)});
    }
    bool any = false;
    for (auto const& [matrix, rows] : all) {
      any |= has_quantised(rows);
      *matrix = atmanrl::weight<B, W>(*backend_, matrix->inputs(), rows);
    }
    if (!any) storage_ = weight_storage::full;
  }

  /// Calls f(first, rows) for pieces of a parameter of a few MiB as floats: the whole embedding as float would double
  /// the memory of a large model. What the system holds of the file in between is given back.
  template <class F>
  static void in_pieces(model_file const& file, parameter_info const& p, F const& f) {
    index_t const piece = std::max<index_t>(1, (index_t{1} << 20) / p.columns);
    for (index_t first = 0; first < p.rows; first += piece) {
      f(first, std::min(piece, p.rows - first));
      if (p.role != parameter_role::edit) file.forget(p.name);
    }
  }
  void take_floats(model_file const& file, parameter_info const& p) {
    std::vector<float> chunk;
    in_pieces(file, p, [&](index_t first, index_t rows) {
      chunk.resize(std::size_t(rows * p.columns));
      if (p.role == parameter_role::edit)
        std::ranges::copy(file.attention_edit(), chunk.begin());
      else if (p.is_vector())
        file.read(p.name, chunk);
      else
        file.read_rows(p.name, first, rows, chunk);
      tensor<B, T, 2> on_backend(*backend_, {rows, p.columns});
      on_backend.assign(std::vector<T>(chunk.begin(), chunk.end()));
      assign_rows(p, first, on_backend.cview());
    });
  }
  void take_blocks(model_file const& file, parameter_info const& p) {
    gguf_type const type = *file.quantised_type(p.name);
    auto const [matrix, vector, offset] = storage_of(p);
    std::vector<std::byte> chunk;
    in_pieces(file, p, [&, matrix = matrix, offset = offset](index_t first, index_t rows) {
      chunk.resize(std::size_t(rows * bytes_of(type, p.columns)));
      file.read_blocks(p.name, first, rows, chunk);
      matrix->assign_blocks(*backend_, offset + first, type, chunk);
    });
    ++version_;
  }

  attention_extents extents(index_t layer) const {
    return {int(layer), config_.heads, config_.kv_heads, config_.head_dim, stores_bf16(), config_.score_scale};
  }
  bool stores_bf16() const { return std::is_same_v<W, bf16> || storage_ == weight_storage::bf16; }

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

  void expect_trainable() const {
    expects<usage_error>(!is_packed() || adapters_,
                         "the weights of a packed model are not trained: attach adapters, or load the model decoded");
  }

  void attach_empty(lora_config const& l) {
    adapters_.emplace(*backend_, config_, kind_, l);
    adapters_->attach_to(layers_, lora_matrices(config_, kind_));
  }

  static view_on<B, T, 1> flat(tensor<B, T, 2>& t) { return t.view().template reshaped<1>({t.size()}); }

  // As they stand in gradient_stretches_of.
  comm::range top_stretch() const { return stretches_.front(); }
  comm::range layer_stretch(std::size_t l) const { return stretches_[layers_.size() - l]; }
  comm::range edit_stretch() const { return stretches_[layers_.size() + 1]; }
  comm::range embedding_stretch() const { return stretches_.back(); }
  /// The parameters that lie in elements [first, first + count).
  template <class F>
  void each_in(index_t first, index_t count, F&& f) const {
    index_t found = 0;
    for (parameter_info const& p : layout_.all()) {
      if (p.offset < first || p.offset + p.size() > first + count) continue;
      f(p);
      found += p.size();
    }
    expects<shape_error>(found == count, "elements {} to {} are no whole parameters of the model", first,
                         first + count);
  }

  /// Where a pass adds gradients of the model's own parameters: in one flat array, or where their receiver says. Under
  /// adapters none are wanted.
  struct own_gradient {
    view_on<B, T, 1> flat{};
    gradient_receiver<B, T>* receiver = nullptr;
    gradient_window<B, T> top{}, embedding{};  // the latter where it is the output layer as well

    bool wanted() const { return receiver || !flat.empty(); }
    gradient_window<B, T> open(comm::range stretch) const {
      if (!receiver) return {flat};
      return {receiver->room(stretch), index_t(stretch.first)};
    }
    void complete(comm::range stretch) const {
      if (receiver) receiver->complete(stretch);
    }
  };
  own_gradient begin_gradient(pass_gradients<B, T> const& gradients) const {
    if (adapters_) return {};
    own_gradient own{gradients.parameters, gradients.stretches};
    if (config_.tied_head) own.embedding = own.open(embedding_stretch());
    own.top = own.open(top_stretch());
    return own;
  }
  /// (vocabulary, hidden) where the gradient of the output layer is added; empty where it is not wanted.
  view_on<B, T, 2> head_gradient(own_gradient const& own) const {
    if (!own.wanted()) return {};
    return config_.tied_head ? matrix_of(own.embedding, embedding_name) : matrix_of(own.top, head_name);
  }
  view_on<B, T, 2> matrix_of(gradient_window<B, T> gradient, std::string_view name) const {
    parameter_info const& p = *layout_.find(name);
    return {gradient.at(p.offset), {p.rows, p.columns}};
  }

  /// The norm before the output layer.
  nn::part_call<B, T> final_norm(pass_context<B, T> const& call, pass_state& state) const {
    return {call,
            config_,
            config_.layers,
            {},
            cosine_.cview(),
            sine_.cview(),
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
    expects<shape_error>(parameters.empty() || parameters.size() == trainable_layout().size(),
                         "a gradient of {} for {} parameters", parameters.size(), trainable_layout().size());
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

  // From the planned rows' tokens up to the residual stream behind the last layer.
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
                     own_gradient const& own, P const& policy, view_on<B, T const, 1> values) {
    memory_use_scope const named(*backend_, memory_use::activations);
    auto& state = pass.template state<pass_state>();
    pass_context<B, T> call{*backend_, state.workspace.lora, state.adapted, own.top};
    if (adapters_)
      call.lora_gradient =
          gradients.stretches ? gradients.stretches->room(gradient_stretches().front()) : gradients.parameters;
    state.dgathered.resize(*backend_, state.gathered.shape());
    state.dgathered.fill_zero();
    Block::norm::template backward<B, T>(final_norm(call, state), state.gathered.cview(), state.dnormed.cview(),
                                         state.dgathered.view(), state.norm);
    own.complete(top_stretch());
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
                  if (own.receiver) call.gradient = own.open(layer_stretch(at));
                  layer.backward(config_, layer_call, edit.policy.params(), a, state.dx.view(), dedit, state.workspace,
                                 at > 0 || gradients.wants_parameters() || !gradients.input.empty());
                  if (own.receiver) own.complete(layer_stretch(at));
                  if (state.inputs_only) std::swap(a.x_in, state.inputs[at]);
                });
    if (!gradients.input.empty())
      backend_->copy(gradients.input.data(), state.dx.data(), std::size_t(state.dx.size()) * sizeof(T));
    if (edit_values_.size() > 0 && own.wanted()) {
      auto const gradient = own.open(edit_stretch());
      // One key-value head after the other: a fixed order.
      parameter_info const& p = *layout_.find(attention_edit_name);
      for (index_t h = 0; h < config_.kv_heads && wants_edit_gradient<P>(true); ++h)
        nn::add_to<B, T>(*backend_, {dedit.row(h), {1, p.size()}}, {gradient.at(p.offset), {1, p.size()}});
      own.complete(edit_stretch());
    }
    if (adapters_ && gradients.stretches) gradients.stretches->complete(gradient_stretches().front());
    if (!own.wanted()) return;
    if (config_.embedding_scale != 1) scale<B, T>(*backend_, flat(state.dx), real_t<T>(config_.embedding_scale));
    auto const embedding = config_.tied_head ? own.embedding : own.open(embedding_stretch());
    add_rows(*backend_, state.dx.cview(), pass.ids(), matrix_of(embedding, embedding_name));
    own.complete(embedding_stretch());
  }

  struct parameter_storage {
    atmanrl::weight<B, W>* matrix;
    tensor<B, T, 1>* vector;
    index_t offset;  // first row of a matrix, first element of a vector
  };

  parameter_storage storage_of(parameter_info const& p) {
    if (p.layer < 0) {
      if (p.role == parameter_role::embedding) return {&embedding_, nullptr, 0};
      if (p.role == parameter_role::head) return {&head_, nullptr, 0};
      if (p.role == parameter_role::edit) return {nullptr, &edit_values_, 0};
      return {nullptr, &final_gain_, 0};
    }
    auto& layer = layers_[std::size_t(p.layer)];
    auto const& specs = layer.parameters();
    parameter_spec const& spec = specs[std::size_t(p.number)];
    if (spec.role == parameter_role::matrix) return {&layer.at(spec.linear).weight(), nullptr, spec.first};
    if (spec.role == parameter_role::bias) return {nullptr, &layer.at(spec.linear).bias(), spec.first};
    auto const gains_before = std::count_if(specs.begin(), specs.begin() + p.number,
                                            [](parameter_spec const& s) { return s.role == parameter_role::gain; });
    return {nullptr, &layer.gain(std::size_t(gains_before)), 0};
  }

  weight_view<B, W> head_weight() const { return config_.tied_head ? embedding_.view() : head_.view(); }

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
      layer_call<B, T> const call{
          .pass = context,
          .extents = extents(index_t(l)),
          .cached = cache.rows_of(index_t(l)),
          .plan = &pass.attention(),
          .positions = pass.positions(),
          .cache_rows = pass.cache_rows(),
          .cosine = cosine_.cview(),
          .sine = sine_.cview(),
          .edit_values = edit_values,
      };
      visit(layers_[l], l, call);
    }
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

  // Tables grow by doubling, up to the model's limit. Angles are products in the model's own precision, as
  // transformers computes them, so that logits agree at long positions too.
  void prepare_rotation(index_t last_position) {
    using Real = real_t<T>;
    expects<usage_error>(last_position < config_.max_positions,
                         "a sequence of {} tokens is too long: the model's limit is {}", last_position + 1,
                         config_.max_positions);
    if (last_position < cosine_.extent(0)) return;
    index_t size = std::max<index_t>(256, cosine_.extent(0));
    while (size <= last_position) size *= 2;
    size = std::min(size, config_.max_positions);
    index_t const half = config_.head_dim / 2;
    std::vector<double> const divisors = rope_divisors(config_);
    std::vector<Real> c(std::size_t(size * half)), s(std::size_t(size * half));
    for (index_t i = 0; i < half; ++i) {
      Real const inv_freq =
          Real(std::pow(config_.rope_theta, -2.0 * double(i) / double(config_.head_dim)) / divisors[std::size_t(i)]);
      for (index_t p = 0; p < size; ++p) {
        Real const angle = Real(p) * inv_freq;
        c[std::size_t(p * half + i)] = std::cos(angle);
        s[std::size_t(p * half + i)] = std::sin(angle);
      }
    }
    cosine_.resize(*backend_, {size, half});
    sine_.resize(*backend_, {size, half});
    cosine_.assign(c);
    sine_.assign(s);
  }

  B* backend_;
  model_config config_;
  architecture kind_;
  parameter_layout layout_;
  std::uint64_t version_ = 0;
  weight_storage storage_;
  atmanrl::kv_storage kv_storage_ = atmanrl::kv_storage::full;
  Edit edit_;
  decltype(Block::score_edit(std::declval<model_config const&>())) block_edit_;
  tensor<B, T, 1> edit_values_;  // of an edit with parameters
  atmanrl::weight<B, W> embedding_, head_;
  tensor<B, T, 1> final_gain_;
  tensor<B, T, 1> head_bias_;  // (vocabulary) where ids are forbidden, else empty
  index_t final_gain_offset_ = 0;
  std::vector<comm::range> stretches_;  // of gradients
  std::vector<decoder_layer<B, W, Block>> layers_;
  std::unique_ptr<workspace> memory_ = std::make_unique<workspace>();
  std::optional<lora_adapters<B, W, Block>> adapters_;
  tensor<B, real_t<T>, 2> cosine_, sine_;
};

/// A model of one of the standard blocks (nn/blocks.hpp).
template <Backend B, class W = float>
using llama = decoder<B, W>;

}  // namespace atmanrl
