// expect: a LanguageModel's forward must take any attention policy, and its values after it
#include <atmanrl/nn/language_model.hpp>

namespace at = atmanrl;

struct mine {
  using backend_type = at::reference_backend;
  using scalar = float;
  using space = at::cache_and_pass<backend_type, float>;
  backend_type& backend() const;
  at::model_config const& config() const;
  at::workspace& memory() const;
  at::borrowed<space> borrow_pass(at::index_t rows, bool recompute = false) const;
  void forward(at::kv_cache<backend_type, float>&, at::ragged_batch const&, at::forward_pass<backend_type, float>&,
               at::forward_options = {}, at::edited<> = {});
};
static_assert(at::detail::explain_language_model<mine>());
