#pragma once
// A language model that is no decoder, as somebody outside would write one on the operations: embedding, one attention
// layer without position code, norm or feed-forward layer, and the embedding again as output layer,
//     x = E[id],  y = x + attention(x Wqkvᵀ) Woᵀ,  logits = y Eᵀ.
#include <atmanrl/core/random.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/ops/attention.hpp>
#include <atmanrl/ops/embedding.hpp>
#include <atmanrl/ops/log_prob.hpp>

#include <algorithm>
#include <memory>
#include <vector>

namespace atmanrl_test {

using namespace atmanrl;

inline model_config tiny_config(index_t vocab) {
  model_config c;
  c.architecture = "tiny";
  c.layers = c.ffn = 1;
  c.hidden = 12;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 6;
  c.vocab = vocab;
  c.max_positions = 64;
  c.stop_ids = {0};
  return c;
}

template <Backend B, class T>
class tiny_model {
  using cache_type = kv_cache<B, T>;
  using pass_type = forward_pass<B, T>;

 public:
  using backend_type = B;
  using scalar = T;

  tiny_model(B& backend, model_config const& c)
      : backend_(&backend),
        config_(c),
        embedding_(backend, c.vocab, c.hidden),
        qkv_(backend, (c.heads + 2 * c.kv_heads) * c.head_dim, c.hidden),
        out_(backend, c.hidden, c.heads * c.head_dim) {
    layout_.add("embedding", parameter_role::embedding, -1, 0, c.vocab, c.hidden);
    layout_.add("qkv", parameter_role::matrix, 0, 0, qkv_.outputs(), qkv_.inputs());
    layout_.add("out", parameter_role::matrix, 0, 1, out_.outputs(), out_.inputs());
  }

  B& backend() const { return *backend_; }
  model_config const& config() const { return config_; }
  workspace& memory() const { return *memory_; }
  auto borrow_pass(index_t rows, bool recompute = false) const {
    return atmanrl::borrow_pass<T>(*memory_, *backend_, rows, recompute,
                                   [&](index_t n) { return cache_type(*backend_, config_, n); });
  }

  parameter_layout const& trainable_layout() const { return layout_; }
  void assign_trainable(view_on<B, T const, 1> flat) {
    for (std::size_t i = 0; i < 3; ++i) weights()[i]->assign_rows(*backend_, 0, matrix(flat, i));
    ++version_;
  }
  void read_trainable(view_on<B, T, 1> flat) const {
    for (std::size_t i = 0; i < 3; ++i) weights()[i]->read_rows(*backend_, 0, matrix(flat, i));
  }

  template <class P = attention::none, EditValues<B, T> V = no_values>
  void forward(cache_type& cache, ragged_batch const& batch, pass_type& pass, forward_options options = {},
               edited<P, V> edit = {}) {
    view_on<B, T const, 1> const edit_values = edit.values;
    for (int const id : batch.tokens())
      expects<usage_error>(id >= 0 && id < config_.vocab, "token id {} of {}", id, config_.vocab);
    cache.bind(this, version_);
    pass.plan(cache, batch, options.mode);
    kept& k = pass.template state<kept>();
    index_t const rows = pass.rows();
    k.targets.resize(*backend_, {0});
    k.x.resize(*backend_, {rows, config_.hidden});
    k.y.resize(*backend_, {rows, config_.hidden});
    k.qkv.resize(*backend_, {rows, config_.heads + 2 * config_.kv_heads, config_.head_dim});
    k.out.resize(*backend_, {rows, config_.heads, config_.head_dim});
    k.lse.resize(*backend_, {rows, config_.heads});
    embed(*backend_, pass.ids(), embedding_.view(), k.x.view());
    embed(*backend_, pass.ids(), embedding_.view(), k.y.view());
    matmul(*backend_, k.x.cview(), qkv_.view(), flat(k.qkv));
    std::visit(
        [&](auto const& cached) {
          append_keys_and_values(*backend_, extents(), k.qkv.cview(), pass.cache_rows(), cached.keys, cached.values);
          attention_forward(*backend_, extents(), k.qkv.cview(), cached.keys, cached.values, pass.attention(),
                            edit.policy.params(), edit_values.data(), k.out.view(), k.lse.view());
        },
        cache.rows_of(0));
    matmul(*backend_, flat(k.out), out_.view(), k.y.view(), store::add);
    for (auto const& e : batch.entries()) cache.extend(e.sequence, e.rows);
  }

  void log_probs(pass_type& pass, std::span<scored_token const> tokens, double temperature = 1,
                 bool want_entropy = false) const {
    kept& k = pass.template state<kept>();
    std::vector<int> rows, targets;
    for (scored_token const& s : tokens) {
      rows.push_back(s.row);
      targets.push_back(s.target);
    }
    gather(k, rows);
    index_t const n = index_t(rows.size());
    k.temperature = temperature;
    k.targets.resize(*backend_, {n});
    k.targets.assign(targets);
    k.head_lse.resize(*backend_, {n});
    pass.results().log_p.resize(*backend_, {n});
    pass.results().entropy.resize(*backend_, {want_entropy ? n : 0});
    log_prob(*backend_, k.gathered.cview(), embedding_.view(), k.targets.cview(), temperature, k.scratch,
             pass.results().log_p.view(), k.head_lse.view(), pass.results().entropy.view());
  }
  void logits(pass_type& pass, std::span<int const> rows, tensor<B, T, 2>& out) const {
    kept& k = pass.template state<kept>();
    gather(k, {rows.begin(), rows.end()});
    out.resize(*backend_, {index_t(rows.size()), config_.vocab});
    matmul(*backend_, k.gathered.cview(), embedding_.view(), out.view());
  }

  template <class P = attention::none, EditValues<B, T> V = no_values>
  void backward(cache_type& cache, pass_type& pass, loss_gradients<T> loss, pass_gradients<B, T> gradients,
                edited<P, V> edit = {}) {
    kept& k = pass.template state<kept>();
    view_on<B, T const, 1> const edit_values = edit.values;
    view_on<B, T, 1> const gradient = gradients.parameters;
    expects<shape_error>(index_t(loss.log_p.size()) == k.targets.size(), "{} gradients for {} scored tokens",
                         loss.log_p.size(), k.targets.size());
    expects<usage_error>(gradients.input.empty(), "this model has no gradient of its input");
    cache.bind(this, version_);
    tensor<B, T, 1> dp(*backend_, {index_t(loss.log_p.size())}), de(*backend_, {index_t(loss.entropy.size())});
    dp.assign(loss.log_p);
    de.assign(loss.entropy);
    tensor<B, T, 2> dgathered(*backend_, k.gathered.shape()), dy(*backend_, k.y.shape());
    log_prob_backward(*backend_, k.gathered.cview(), embedding_.view(), k.targets.cview(), k.temperature, k.scratch,
                      k.head_lse.cview(), dp.cview(), pass.results().entropy.cview(), de.cview(), dgathered.view(),
                      part(gradient, 0));
    dy.fill_zero();
    add_rows(*backend_, dgathered.cview(), k.scored_rows.cview(), dy.view());
    tensor<B, T, 3> dout(*backend_, k.out.shape()), dqkv(*backend_, k.qkv.shape());
    matmul_backward_input(*backend_, dy.cview(), out_.view(), flat(dout));
    std::visit(
        [&](auto const& cached) {
          attention_backward(*backend_, extents(), k.qkv.cview(), cached.keys, cached.values, pass.attention(),
                             edit.policy.params(), edit_values.data(), k.out.cview(), k.lse.cview(), dout.cview(),
                             dqkv.view(), gradients.edit);
        },
        cache.rows_of(0));
    if (gradient.empty()) return;
    matmul_backward_weight(*backend_, dy.cview(), flat(k.out), part(gradient, 2));
    matmul_backward_weight(*backend_, flat(dqkv), k.x.cview(), part(gradient, 1));
    matmul_backward_input(*backend_, flat(dqkv), qkv_.view(), dy.view(), store::add);
    add_rows(*backend_, dy.cview(), pass.ids(), part(gradient, 0));
  }

 private:
  /// What a forward pass leaves for the calls after it.
  struct kept {
    tensor<B, T, 2> x, y, lse, gathered;  // (rows, hidden); lse (rows, heads); (scored, hidden)
    tensor<B, T, 3> qkv, out;             // (rows, heads + 2 kv_heads, head_dim), (rows, heads, head_dim)
    tensor<B, int, 1> scored_rows, targets;
    tensor<B, T, 1> head_lse;
    log_prob_scratch<B, T> scratch;
    double temperature = 1;
  };

  attention_extents extents() const { return {0, config_.heads, config_.kv_heads, config_.head_dim}; }
  void gather(kept& k, std::vector<int> const& rows) const {
    k.scored_rows.resize(*backend_, {index_t(rows.size())});
    k.scored_rows.assign(rows);
    k.gathered.resize(*backend_, {index_t(rows.size()), config_.hidden});
    gather_rows(*backend_, k.y.cview(), k.scored_rows.cview(), k.gathered.view());
  }
  static view_on<B, T, 2> flat(tensor<B, T, 3>& t) {
    return t.view().template reshaped<2>({t.extent(0), t.extent(1) * t.extent(2)});
  }
  std::array<weight<B, T>*, 3> weights() const {
    auto& self = const_cast<tiny_model&>(*this);
    return {&self.embedding_, &self.qkv_, &self.out_};
  }
  template <class U>
  view_on<B, U, 2> matrix(view_on<B, U, 1> flat, std::size_t i) const {
    parameter_info const& p = layout_.all()[i];
    return {flat.data() + p.offset, {p.rows, p.columns}};
  }
  view_on<B, T, 2> part(view_on<B, T, 1> gradient, std::size_t i) const {
    return gradient.empty() ? view_on<B, T, 2>{} : matrix(gradient, i);
  }

  B* backend_;
  model_config config_;
  parameter_layout layout_;
  weight<B, T> embedding_, qkv_, out_;
  std::uint64_t version_ = 0;
  std::unique_ptr<workspace> memory_ = std::make_unique<workspace>();
};

/// Sets all parameters from a flat array of any scalar.
template <class B, class T, class U>
void set_trainable(tiny_model<B, T>& model, std::vector<U> const& flat) {
  tensor<B, T, 1> on_backend(model.backend(), {index_t(flat.size())});
  on_backend.assign(std::vector<T>(flat.begin(), flat.end()));
  model.assign_trainable(on_backend.cview());
}

/// Normal parameters of a size that gives logits worth a softmax.
template <class B, class T>
tiny_model<B, T> random_tiny_model(B& backend, index_t vocab, unsigned seed) {
  tiny_model<B, T> model(backend, tiny_config(vocab));
  std::vector<double> flat(std::size_t(model.trainable_layout().size()));
  random_stream draw(seed, 31);
  for (double& x : flat) x = 0.5 * draw.normal();
  set_trainable(model, flat);
  return model;
}

template <class B, class T>
std::vector<T> read_trainable(tiny_model<B, T> const& model) {
  tensor<B, T, 1> flat(model.backend(), {model.trainable_layout().size()});
  model.read_trainable(flat.view());
  return flat.to_host();
}

}  // namespace atmanrl_test
