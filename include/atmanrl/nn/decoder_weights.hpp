#pragma once

/// \file
/// The numbers of a decoder: where each parameter is stored, how a file fills it, and which ones are trained.

#include <atmanrl/io/model_config.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/io/peft.hpp>
#include <atmanrl/nn/block.hpp>
#include <atmanrl/nn/decoder_layer.hpp>
#include <atmanrl/nn/gradient_stretches.hpp>
#include <atmanrl/nn/lora_adapters.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/ops/adamw.hpp>  // stored_range

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// What every `decoder` is beside its passes; template parameters are the decoder's.
template <Backend B, class W, class Block>
class decoder_weights {
  static_assert(
      !(std::same_as<W, bf16> && KeepsBf16<B, float>),
      "atmanrl: on this backend bfloat16 is what a float model's matrices are stored as: take decoder<B> with "
      "atmanrl::weight_storage::bf16");
  static_assert(detail::explain_block<Block>());

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

  architecture const& kind() const { return kind_; }
  /// That of a model with these numbers.
  static architecture const& kind_of(model_config const& c) {
    auto const& known = known_architectures();
    return known.size() == 1 ? known.front() : find_architecture(known, c.architecture);
  }
  /// Numbers that one row leaves in one layer for a backward pass, beside the residual stream before its two halves.
  static index_t kept_numbers(model_config const& c) { return decoder_layer<B, W, Block>::kept_numbers(c); }
  model_config const& config() const { return config_; }
  parameter_layout const& layout() const { return layout_; }
  B& backend() const { return *backend_; }
  /// What the matrices are stored as; packed where some of them are blocks of a quantised file.
  weight_storage storage() const { return storage_; }
  /// Whether some are blocks: then adapters alone can be trained.
  bool is_packed() const { return storage_ == weight_storage::packed; }
  /// Counts changes of the weights and adapters; a kv_cache refuses rows of another version.
  std::uint64_t version() const { return version_; }

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
    auto const [matrix, vector, offset] = const_cast<decoder_weights*>(this)->storage_of(p);
    if (vector) return backend_->copy(rows.data(), vector->data() + offset, std::size_t(rows.size()) * sizeof(T));
    matrix->read_rows(*backend_, offset + first, rows);
    if (which == adapters::on && p.layer >= 0) {
      auto const& layer = layers_[std::size_t(p.layer)];
      layer.at(layer.parameters()[std::size_t(p.number)].linear).adapter().add_product(*backend_, offset + first, rows);
    }
  }

 protected:
  /// All parameters are zero.
  /// \param edit_parameters  of the model's attention edit
  decoder_weights(B& backend, model_config config, index_t edit_parameters, weight_storage storage)
      : backend_(&backend),
        config_(std::move(config)),
        kind_(kind_of(config_)),
        layout_(config_, kind_),
        storage_(storage),
        embedding_(backend, config_.vocab, config_.hidden, storage) {
    if (edit_parameters > 0) {
      layout_.add(std::string(attention_edit_name), parameter_role::edit, -1, 0, 1, edit_parameters);
      edit_values_ = tensor<B, T, 1>::zeros(backend, {edit_parameters});
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

  /// Every parameter from its file; that of the model's edit is zero where the model was saved without one.
  /// \throws file_error when the edit that was saved with the model has another number of parameters
  void read_file(model_file const& file) {
    index_t const saved = index_t(file.attention_edit().size()), own = edit_values_.size();
    expects<file_error>(saved == 0 || saved == own, "{}: holds {} values of an attention edit, but {}",
                        (file.path() / attention_edit_file).string(), saved,
                        own == 0 ? "the model of this program has no edit with parameters"
                                 : fmt::format("that of this program's model has {} parameters", own));
    for (parameter_info const& p : layout_.all()) {
      if (p.role == parameter_role::edit && saved == 0) continue;  // a model that has not learned one: zeros
      if (is_packed() && !p.is_vector() && p.role != parameter_role::edit && file.quantised_type(p.name))
        take_blocks(file, p);
      else
        take_floats(file, p);
    }
  }

  bool stores_bf16() const { return std::is_same_v<W, bf16> || storage_ == weight_storage::bf16; }
  void expect_trainable() const {
    expects<usage_error>(!is_packed() || adapters_,
                         "the weights of a packed model are not trained: attach adapters, or load the model decoded");
  }
  weight_view<B, W> head_weight() const { return config_.tied_head ? embedding_.view() : head_.view(); }

  B* backend_;
  model_config config_;
  architecture kind_;
  parameter_layout layout_;
  std::uint64_t version_ = 0;
  weight_storage storage_;
  tensor<B, T, 1> edit_values_;  ///< of an edit with parameters
  atmanrl::weight<B, W> embedding_, head_;
  tensor<B, T, 1> final_gain_;
  index_t final_gain_offset_ = 0;
  std::vector<comm::range> stretches_;  ///< of gradients
  std::vector<decoder_layer<B, W, Block>> layers_;
  std::optional<lora_adapters<B, W, Block>> adapters_;

 private:
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

  void attach_empty(lora_config const& l) {
    adapters_.emplace(*backend_, config_, kind_, l);
    adapters_->attach_to(layers_, lora_matrices(config_, kind_));
  }

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
};

}  // namespace atmanrl::inline ATMANRL_ABI
