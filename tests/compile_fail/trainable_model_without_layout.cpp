// expect: a model that is trained needs `atmanrl::parameter_layout const& trainable_layout\(\) const`
#include <atmanrl/nn/language_model.hpp>

namespace at = atmanrl;

struct frozen {
  using backend_type = at::reference_backend;
  using scalar = float;
  using cache = at::kv_cache<backend_type, float>;
  using pass = at::forward_pass<backend_type, float>;
  using floats = at::view_on<backend_type, float const, 1>;
  backend_type& backend() const;
  at::model_config const& config() const;
  at::workspace& memory() const;
  at::borrowed<at::cache_and_pass<backend_type, float>> borrow_pass(at::index_t rows, bool recompute = false) const;
  template <class P = at::attention::none>
  void forward(cache&, at::ragged_batch const&, pass&, at::gradient_mode = {}, P const& = {}, floats = {});
  void log_probs(pass&, std::span<at::scored_token const>, double temperature = 1, bool want_entropy = false);
  void logits(pass&, std::span<int const> rows, at::tensor<backend_type, float, 2>& out);
  template <class P = at::attention::none>
  void backward(cache&, pass&, std::span<float const>, std::span<float const>, at::view<float, 1>, P const& = {},
                floats = {}, at::view<float, 2> = {});
};
static_assert(at::LanguageModel<frozen>);
static_assert(at::detail::explain_trainable_model<frozen>());
