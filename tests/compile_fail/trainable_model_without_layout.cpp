// expect: a model that is trained needs `atmanrl::parameter_layout const& trainable_layout\(\) const`
#include <atmanrl/nn/language_model.hpp>

namespace at = atmanrl;

struct frozen {
  using backend_type = at::reference_backend;
  using scalar = float;
  using cache = at::kv_cache<backend_type, float>;
  using pass = at::forward_pass<backend_type, float>;
  backend_type& backend() const;
  at::model_config const& config() const;
  at::workspace& memory() const;
  at::borrowed<at::cache_and_pass<backend_type, float>> borrow_pass(at::index_t rows, bool recompute = false) const;
  template <class P = at::attention::none, class V = at::no_values>
  void forward(cache&, at::ragged_batch const&, pass&, at::forward_options = {}, at::edited<P, V> = {});
  void log_probs(pass&, std::span<at::scored_token const>, double temperature = 1, bool want_entropy = false);
  void logits(pass&, std::span<int const> rows, at::tensor<backend_type, float, 2>& out);
  template <class P = at::attention::none, class V = at::no_values>
  void backward(cache&, pass&, at::loss_gradients<float>, at::pass_gradients<backend_type, float>,
                at::edited<P, V> = {});
};
static_assert(at::LanguageModel<frozen>);
static_assert(at::detail::explain_trainable_model<frozen>());
