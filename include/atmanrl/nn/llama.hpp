#pragma once

/// \file
/// Llama-architecture language model: one forward pass for prefill, decoding, teacher forcing, mask training and
/// scoring.

#include <atmanrl/io/model_config.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/io/peft.hpp>
#include <atmanrl/nn/forward_pass.hpp>
#include <atmanrl/nn/lora.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/nn/workspace.hpp>
#include <atmanrl/ops/embedding.hpp>
#include <atmanrl/ops/mean_attention.hpp>

#include <cmath>
#include <memory>
#include <optional>
#include <vector>

namespace atmanrl {

/// What one use of a model needs beside its weights.
template <Backend B, class T>
struct cache_and_pass {
  kv_cache<B, T> cache;
  forward_pass<B, T> pass;
};

/// \tparam B  backend
/// \tparam W  storage of the matrices: float or bf16 (double and complex on reference_backend); the rest is
///         compute_t<W>
template <Backend B, class W = float>
class llama {
 public:
  using backend_type = B;
  using weight_type = W;
  using scalar = compute_t<W>;
  using T = scalar;

  /// A model with all parameters zero; fill it with `assign` or `load`.
  llama(B& backend, model_config config)
      : backend_(&backend),
        config_(std::move(config)),
        layout_(config_),
        embedding_(backend, config_.vocab, config_.hidden),
        final_gain_(tensor<B, T, 1>::zeros(backend, {config_.hidden})) {
    for (index_t l = 0; l < config_.layers; ++l) layers_.emplace_back(backend, config_);
    if (!config_.tied_head) head_ = atmanrl::weight<B, W>(backend, config_.vocab, config_.hidden);
  }

  /// Reads a Hugging Face folder, a .gguf or a llama2.c .bin.
  static llama load(B& backend, std::filesystem::path const& path) { return load(backend, model_file::open(path)); }
  static llama load(B& backend, model_file const& file) {
    llama model(backend, file.config());
    std::vector<float> chunk;
    std::vector<T> converted;
    for (parameter_info const& p : model.layout_.all()) {
      // Rows in pieces of a few MiB: the whole embedding as float would double the memory of a large bf16 model.
      index_t const piece = std::max<index_t>(1, (index_t{1} << 20) / p.columns);
      for (index_t first = 0; first < p.rows; first += piece) {
        index_t const rows = std::min(piece, p.rows - first);
        chunk.resize(std::size_t(rows * p.columns));
        if (p.is_vector())
          file.read(p.name, chunk);
        else
          file.read_rows(p.name, first, rows, chunk);
        converted.assign(chunk.begin(), chunk.end());
        tensor<B, T, 2> on_backend(backend, {rows, p.columns});
        on_backend.assign(converted);
        model.assign_rows(p, first, on_backend.cview());
      }
    }
    return model;
  }

  model_config const& config() const { return config_; }
  parameter_layout const& layout() const { return layout_; }
  B& backend() const { return *backend_; }
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

  /// Memory for those who call the model again and again.
  workspace& memory() const { return *memory_; }
  /// An empty cache of `rows` rows and a forward pass, in memory that earlier borrowers have left.
  /// \param recompute  see forward_pass::set_recompute
  borrowed<cache_and_pass<B, T>> borrow_pass(index_t rows, bool recompute = false) const {
    auto space = memory_->borrow<cache_and_pass<B, T>>([&] {
      return cache_and_pass<B, T>{new_cache(rows), forward_pass<B, T>(*backend_)};
    });
    space->cache.reset(rows);
    space->pass.set_recompute(recompute);
    return space;
  }

  /// Gives the model fresh adapters in place of older ones; from now on they alone are its trainable parameters.
  /// \throws usage_error for an impossible configuration
  void attach(lora_config const& l, std::uint64_t seed) {
    validate(l, "the adapters");
    adapters_.emplace(*backend_, config_, l);
    adapters_->draw(seed);
    ++version_;
  }
  /// Reads a PEFT folder.
  /// \throws file_error when it belongs to another model, or asks for something that is not plain LoRA
  void load_adapters(std::filesystem::path const& folder) {
    peft_adapter const file(folder, config_);
    adapters_.emplace(*backend_, config_, file.config());
    std::vector<float> values(std::size_t(adapters_->layout().size()));
    for (parameter_info const& p : adapters_->layout().all())
      file.read(p.name, std::span(values).subspan(std::size_t(p.offset), std::size_t(p.size())));
    tensor<B, T, 1> flat(*backend_, {adapters_->layout().size()});
    flat.assign(std::vector<T>(values.begin(), values.end()));
    assign_trainable(flat.cview());
  }
  void detach() {
    adapters_.reset();
    ++version_;
  }
  bool has_adapters() const { return adapters_.has_value(); }
  /// nullptr where there are none.
  lora_config const* adapter_config() const { return adapters_ ? &adapters_->config() : nullptr; }

  /// What is trained: the adapters where there are any, else all parameters. Gradients are flat arrays of this layout.
  parameter_layout const& trainable_layout() const { return adapters_ ? adapters_->layout() : layout_; }
  void assign_trainable(view_on<B, T const, 1> flat) {
    if (!adapters_) return assign(flat);
    adapters_->assign(flat);
    ++version_;
  }
  void read_trainable(view_on<B, T, 1> flat) const {
    if (adapters_)
      adapters_->read(flat);
    else
      read(flat);
  }

  /// Sets all parameters from a flat array in the order of layout(), rounding matrices to `W`.
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
    auto const [matrix, vector, offset] = const_cast<llama*>(this)->storage_of(p);
    if (vector) return backend_->copy(rows.data(), vector->data() + offset, std::size_t(rows.size()) * sizeof(T));
    matrix->read_rows(*backend_, offset + first, rows);
    if (adapters_ && which == adapters::on && p.layer >= 0)
      adapters_->of(p).add_product(*backend_, offset + first, rows);
  }

  /// Appends the batch to its sequences and runs it through the layers.
  /// \param policy       edits the scores; see attention/policy.hpp
  /// \param edit_values  (policy.parameter_count()) values of a trainable policy's parameters
  /// \param which        adapters::off runs the model as it is without its adapters: the reference of a LoRA run
  /// \throws usage_error when a token id or a position is outside the model, shape_error when batch and cache do not
  ///         fit
  template <class P = attention::none>
  void forward(kv_cache<B, T>& cache, ragged_batch const& batch, forward_pass<B, T>& pass,
               gradient_mode mode = gradient_mode::none, P const& policy = {},
               std::type_identity_t<view_on<B, T const, 1>> edit_values = {}, adapters which = adapters::on) {
    static_assert(detail::explain_attention_policy<P>());
    check(batch);
    bool const adapted = adapters_ && which == adapters::on;
    expects<usage_error>(
        !adapters_ || adapted || mode != gradient_mode::parameters,
        "parameter gradients with the adapters off: the model's own weights are not trained beside adapters");
    if constexpr (TrainableAttentionPolicy<P>)
      expects<shape_error>(edit_values.size() == policy.parameter_count(),
                           "{} values for an attention policy with {} parameters", edit_values.size(),
                           policy.parameter_count());
    cache.bind(this, version_, adapted, kv_storage_);
    index_t longest = 0;
    for (auto const& e : batch.entries()) longest = std::max(longest, cache.length(e.sequence) + e.rows);
    prepare_rotation(longest - 1);
    pass.plan(cache, batch, mode);
    pass.adapted_ = adapted;
    pass.x_.resize(*backend_, {pass.rows_, config_.hidden});
    embed(*backend_, pass.ids_.cview(), embedding_.view(), pass.x_.view());
    pass.inputs_only_ = mode != gradient_mode::none && pass.recompute_;
    bool const keep = mode != gradient_mode::none && !pass.recompute_;
    pass.layers_.resize(std::max(pass.layers_.size(), keep ? layers_.size() : std::size_t{1}));
    if (pass.inputs_only_) pass.inputs_.resize(layers_.size());
    walk_layers(cache, pass, edit_values.data(), direction::up,
                [&](decoder_layer<B, W> const& layer, std::size_t l, layer_call<B, T> const& call) {
                  if (pass.inputs_only_) copy_of(pass.x_, pass.inputs_[l]);
                  layer.forward(*backend_, call, policy.params(), pass.x_.view(), pass.layers_[keep ? l : 0],
                                pass.workspace_, keep);
                });
    for (auto const& e : batch.entries()) cache.extend(e.sequence, e.rows);
  }

  /// log p(target) after the given batch rows of `pass`, of logits / temperature; results in pass.log_p() and
  /// entropy().
  void log_probs(forward_pass<B, T>& pass, std::span<scored_token const> tokens, double temperature = 1,
                 bool want_entropy = false) const {
    std::vector<int> rows, targets;
    for (scored_token const& s : tokens) {
      expects<shape_error>(s.row >= 0 && s.row < pass.rows_, "row {} of a batch of {} rows", s.row, pass.rows_);
      expects<usage_error>(s.target >= 0 && s.target < config_.vocab, "token id {} is outside the vocabulary of {}",
                           s.target, config_.vocab);
      rows.push_back(s.row);
      targets.push_back(s.target);
    }
    index_t const n = index_t(tokens.size());
    pass.temperature_ = temperature;
    pass.upload(pass.targets_, targets);
    gather_and_norm(pass, rows);
    pass.log_p_.resize(*backend_, {n});
    pass.lse_.resize(*backend_, {n});
    pass.entropy_.resize(*backend_, {want_entropy ? n : 0});
    log_prob(*backend_, pass.normed_.cview(), head_weight(), pass.targets_.cview(), temperature, pass.head_scratch_,
             pass.log_p_.view(), pass.lse_.view(), pass.entropy_.view());
  }

  /// Logits of a few rows, for samplers and option scores.
  /// \param out (rows.size(), vocabulary), resized
  void logits(forward_pass<B, T>& pass, std::span<int const> rows, tensor<B, T, 2>& out) const {
    pass.upload(pass.targets_, std::vector<int>{});  // the gathered rows are no longer those of log_probs
    gather_and_norm(pass, std::vector<int>(rows.begin(), rows.end()));
    out.resize(*backend_, {index_t(rows.size()), config_.vocab});
    matmul(*backend_, pass.normed_.cview(), head_weight(), out.view());
  }

  /// Backward of forward and log_probs for the loss  sum dlog_p log_p + dentropy entropy.
  /// \param dlog_p, dentropy  one per scored token; dentropy empty when the entropy is not in the loss
  /// \param gradient          flat, in the order of trainable_layout(), added to; empty in gradient_mode::activations
  /// \param edit_gradient     (kv_heads, policy parameters), added to; empty when not wanted
  /// \param input_gradient    (rows, hidden), overwritten with that of pass.input(); empty when not wanted
  template <AttentionPolicy P = attention::none>
  void backward(kv_cache<B, T>& cache, forward_pass<B, T>& pass, std::span<T const> dlog_p, std::span<T const> dentropy,
                view_on<B, T, 1> gradient, P const& policy = {},
                std::type_identity_t<view_on<B, T const, 1>> edit_values = {}, view_on<B, T, 2> edit_gradient = {},
                view_on<B, T, 2> input_gradient = {}) {
    check_backward(pass, gradient, policy, edit_values, edit_gradient);
    cache.bind(this, version_, pass.adapted_, kv_storage_);
    index_t const n = pass.targets_.extent(0);
    expects<shape_error>(n > 0, "backward needs log_probs of the forward pass");
    expects<shape_error>(index_t(dlog_p.size()) == n && (dentropy.empty() || index_t(dentropy.size()) == n),
                         "{} and {} gradients for {} scored tokens", dlog_p.size(), dentropy.size(), n);
    expects<shape_error>(input_gradient.empty() || input_gradient.shape() == pass.x_.shape(),
                         "a gradient {} for an input {}", input_gradient.shape(), pass.x_.shape());
    pass.dlog_p_.resize(*backend_, {n});
    pass.dlog_p_.assign(dlog_p);
    pass.dentropy_.resize(*backend_, {index_t(dentropy.size())});
    pass.dentropy_.assign(dentropy);
    pass.dnormed_.resize(*backend_, pass.normed_.shape());
    using enum parameter_kind;
    auto const head_kind = config_.tied_head ? embedding : parameter_kind::head;
    log_prob_backward(*backend_, pass.normed_.cview(), head_weight(), pass.targets_.cview(), pass.temperature_,
                      pass.head_scratch_, pass.lse_.cview(), pass.dlog_p_.cview(), pass.entropy_.cview(),
                      pass.dentropy_.cview(), pass.dnormed_.view(),
                      layout_.matrix(own(gradient), head_kind, -1, config_.vocab));
    backward_rows(cache, pass, gradient, policy, edit_values, edit_gradient, input_gradient);
  }

  /// Backward of forward and `logits` for a loss of the logits themselves, whose gradient the caller has.
  /// \param dlogits  (rows of the call of logits, vocabulary); the other arguments as in `backward`
  template <AttentionPolicy P = attention::none>
  void backward_from_logits(kv_cache<B, T>& cache, forward_pass<B, T>& pass, view_on<B, T const, 2> dlogits,
                            view_on<B, T, 1> gradient, P const& policy = {},
                            std::type_identity_t<view_on<B, T const, 1>> edit_values = {},
                            view_on<B, T, 2> edit_gradient = {}) {
    check_backward(pass, gradient, policy, edit_values, edit_gradient);
    cache.bind(this, version_, pass.adapted_, kv_storage_);
    expects<shape_error>(dlogits.extent(0) == pass.normed_.extent(0) && dlogits.extent(1) == config_.vocab,
                         "a gradient {} for the logits of {} rows over {} tokens", dlogits.shape(),
                         pass.normed_.extent(0), config_.vocab);
    pass.dnormed_.resize(*backend_, pass.normed_.shape());
    matmul_backward_input(*backend_, dlogits, head_weight(), pass.dnormed_.view());
    auto const head_kind = config_.tied_head ? parameter_kind::embedding : parameter_kind::head;
    if (auto const dhead = layout_.matrix(own(gradient), head_kind, -1, config_.vocab); !dhead.empty())
      matmul_backward_weight(*backend_, dlogits, pass.normed_.cview(), dhead);
    backward_rows(cache, pass, gradient, policy, edit_values, edit_gradient);
  }

  /// Attention of one layer in a pass that kept its activations, averaged over heads; policy and values are those of
  /// the pass.
  /// \param out  (rows, keys), resized: by absolute position of the key, up to the longest row's
  template <AttentionPolicy P = attention::none>
  void mean_attention(kv_cache<B, T>& cache, forward_pass<B, T> const& pass, index_t layer, tensor<B, T, 2>& out,
                      P const& policy = {}, std::type_identity_t<view_on<B, T const, 1>> edit_values = {}) const {
    expects<shape_error>(pass.mode_ != gradient_mode::none && !pass.inputs_only_,
                         "attention needs a forward pass that kept its activations");
    expects<shape_error>(layer >= 0 && layer < config_.layers, "layer {} of a model of {} layers", layer,
                         config_.layers);
    if constexpr (TrainableAttentionPolicy<P>)
      expects<shape_error>(edit_values.size() == policy.parameter_count(),
                           "{} values for an attention policy with {} parameters", edit_values.size(),
                           policy.parameter_count());
    cache.bind(this, version_, pass.adapted_, kv_storage_);
    auto const& kept = pass.layers_[std::size_t(layer)];
    out.resize(*backend_, {pass.rows_, pass.plan_.longest});
    std::visit(
        [&](auto const& cached) {
          atmanrl::mean_attention(*backend_, extents(layer), kept.qkv.cview(), cached.keys, kept.lse.cview(),
                                  pass.plan_, policy.params(), edit_values.data(), out.view());
        },
        cache.rows_of(layer));
  }

 private:
  attention_extents extents(index_t layer) const {
    return {int(layer), config_.heads, config_.kv_heads, config_.head_dim, std::is_same_v<W, bf16>};
  }

  enum class direction { up, down };

  template <AttentionPolicy P>
  void check_backward(forward_pass<B, T> const& pass, view_on<B, T, 1> gradient, P const& policy,
                      view_on<B, T const, 1> edit_values, view_on<B, T, 2> edit_gradient) const {
    expects<shape_error>(pass.mode_ != gradient_mode::none, "backward needs a forward pass that kept its activations");
    expects<shape_error>(
        (pass.mode_ == gradient_mode::parameters) == !gradient.empty(),
        "a gradient of {} parameters for a forward pass that kept {}", gradient.size(),
        pass.mode_ == gradient_mode::parameters ? "what parameter gradients need" : "activations only");
    expects<shape_error>(gradient.empty() || gradient.size() == trainable_layout().size(),
                         "a gradient of {} for {} parameters", gradient.size(), trainable_layout().size());
    if constexpr (TrainableAttentionPolicy<P>)
      expects<shape_error>(edit_values.size() == policy.parameter_count() &&
                               (edit_gradient.empty() || edit_gradient.extent(1) == policy.parameter_count()),
                           "{} values and a gradient {} for an attention policy with {} parameters", edit_values.size(),
                           edit_gradient.shape(), policy.parameter_count());
  }

  // From the gradient of the gathered, normed rows down to the embedding.
  template <AttentionPolicy P>
  void backward_rows(kv_cache<B, T>& cache, forward_pass<B, T>& pass, view_on<B, T, 1> gradient, P const& policy,
                     view_on<B, T const, 1> edit_values, view_on<B, T, 2> edit_gradient,
                     view_on<B, T, 2> input_gradient = {}) {
    using enum parameter_kind;
    view_on<B, T, 1> const base = own(gradient);
    pass.dgathered_.resize(*backend_, pass.gathered_.shape());
    pass.dgathered_.fill_zero();
    rms_norm_backward(*backend_, pass.gathered_.cview(), final_gain_.cview(), pass.inv_rms_.cview(),
                      pass.dnormed_.cview(), pass.dgathered_.view(),
                      layout_.vector(base, final_gain, -1, config_.hidden));
    pass.dx_.resize(*backend_, pass.x_.shape());
    pass.dx_.fill_zero();
    add_rows(*backend_, pass.dgathered_.cview(), pass.scored_rows_.cview(), pass.dx_.view());

    index_t const qkv_rows = (config_.heads + 2 * config_.kv_heads) * config_.head_dim;
    walk_layers(cache, pass, edit_values.data(), direction::down,
                [&](decoder_layer<B, W> const& layer, std::size_t at, layer_call<B, T> const& call) {
                  index_t const l = index_t(at);
                  layer_gradients<B, T> const g{
                      .attention_gain = layout_.vector(base, attention_gain, l, config_.hidden),
                      .qkv_bias = config_.qkv_bias ? layout_.vector(base, q_bias, l, qkv_rows) : view_on<B, T, 1>{},
                      .ffn_gain = layout_.vector(base, ffn_gain, l, config_.hidden),
                      .qkv = layout_.matrix(base, q, l, qkv_rows),
                      .o = layout_.matrix(base, o, l, config_.hidden),
                      .gate_up = layout_.matrix(base, gate, l, 2 * config_.ffn),
                      .down = layout_.matrix(base, down, l, config_.hidden),
                      .lora = adapters_ ? gradient : view_on<B, T, 1>{},
                      .edit = edit_gradient,
                  };
                  layer_activations<B, T>& a = pass.layers_[pass.inputs_only_ ? 0 : at];
                  if (pass.inputs_only_) {
                    std::swap(a.x_in, pass.inputs_[at]);
                    layer.recompute(*backend_, call, policy.params(), a, pass.workspace_);
                  }
                  layer.backward(*backend_, call, policy.params(), a, pass.dx_.view(), g, pass.workspace_,
                                 l > 0 || !gradient.empty() || !input_gradient.empty());
                  if (pass.inputs_only_) std::swap(a.x_in, pass.inputs_[at]);
                });
    if (!input_gradient.empty())
      backend_->copy(input_gradient.data(), pass.dx_.data(), std::size_t(pass.dx_.size()) * sizeof(T));
    if (!base.empty())
      add_rows(*backend_, pass.dx_.cview(), pass.ids_.cview(), layout_.matrix(base, embedding, -1, config_.vocab));
  }

  struct parameter_storage {
    atmanrl::weight<B, W>* matrix;
    tensor<B, T, 1>* vector;
    index_t offset;  // first row of a matrix, first element of a vector
  };

  parameter_storage storage_of(parameter_info const& p) {
    index_t const q_rows = config_.heads * config_.head_dim, kv_rows = config_.kv_heads * config_.head_dim;
    using enum parameter_kind;
    auto const layer = [&]() -> decoder_layer<B, W>& { return layers_[std::size_t(p.layer)]; };
    switch (p.kind) {
      case embedding:
        return {&embedding_, nullptr, 0};
      case attention_gain:
        return {nullptr, &layer().attention_gain, 0};
      case q:
        return {&layer().qkv.weight(), nullptr, 0};
      case k:
        return {&layer().qkv.weight(), nullptr, q_rows};
      case v:
        return {&layer().qkv.weight(), nullptr, q_rows + kv_rows};
      case q_bias:
        return {nullptr, &layer().qkv.bias(), 0};
      case k_bias:
        return {nullptr, &layer().qkv.bias(), q_rows};
      case v_bias:
        return {nullptr, &layer().qkv.bias(), q_rows + kv_rows};
      case o:
        return {&layer().o.weight(), nullptr, 0};
      case ffn_gain:
        return {nullptr, &layer().ffn_gain, 0};
      case gate:
        return {&layer().gate_up.weight(), nullptr, 0};
      case up:
        return {&layer().gate_up.weight(), nullptr, config_.ffn};
      case down:
        return {&layer().down.weight(), nullptr, 0};
      case final_gain:
        return {nullptr, &final_gain_, 0};
      case parameter_kind::head:
        return {&head_, nullptr, 0};
      case lora_a:
      case lora_b:
        break;
    }
    fail("parameter {} has no storage", p.name);
  }

  /// The part of a gradient that belongs to the model's own weights: all or nothing.
  view_on<B, T, 1> own(view_on<B, T, 1> gradient) const { return adapters_ ? view_on<B, T, 1>{} : gradient; }

  weight_view<B, W> head_weight() const { return config_.tied_head ? embedding_.view() : head_.view(); }

  void check(ragged_batch const& batch) const {
    expects<shape_error>(batch.rows() > 0, "a batch without rows");
    for (int const id : batch.tokens())
      expects<usage_error>(id >= 0 && id < config_.vocab, "token id {} is outside the vocabulary of {}", id,
                           config_.vocab);
  }

  /// The one place where the layers are walked; prefill, decoding, training and scoring all come through here.
  template <class F>
  void walk_layers(kv_cache<B, T>& cache, forward_pass<B, T> const& pass, T const* edit_values, direction d,
                   F&& visit) const {
    for (std::size_t step = 0; step < layers_.size(); ++step) {
      std::size_t const l = d == direction::up ? step : layers_.size() - 1 - step;
      layer_call<B, T> const call{
          .extents = extents(l),
          .lora = pass.adapted_ ? adapters_->layer(l) : no_adapters_,
          .cached = cache.rows_of(index_t(l)),
          .plan = &pass.plan_,
          .positions = pass.positions_.cview(),
          .cache_rows = pass.cache_rows_.cview(),
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

  void gather_and_norm(forward_pass<B, T>& pass, std::vector<int> const& rows) const {
    index_t const n = index_t(rows.size());
    pass.upload(pass.scored_rows_, rows);
    pass.gathered_.resize(*backend_, {n, config_.hidden});
    pass.normed_.resize(*backend_, {n, config_.hidden});
    pass.inv_rms_.resize(*backend_, {n});
    gather_rows(*backend_, pass.x_.cview(), pass.scored_rows_.cview(), pass.gathered_.view());
    rms_norm(*backend_, pass.gathered_.cview(), final_gain_.cview(), real_t<T>(config_.rms_eps), pass.normed_.view(),
             pass.inv_rms_.view());
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
  parameter_layout layout_;
  std::uint64_t version_ = 0;
  atmanrl::kv_storage kv_storage_ = atmanrl::kv_storage::full;
  atmanrl::weight<B, W> embedding_, head_;
  tensor<B, T, 1> final_gain_;
  std::vector<decoder_layer<B, W>> layers_;
  std::unique_ptr<workspace> memory_ = std::make_unique<workspace>();
  std::optional<lora_adapters<B, T>> adapters_;
  lora_layer<B, T> no_adapters_;
  tensor<B, real_t<T>, 2> cosine_, sine_;
};

}  // namespace atmanrl
