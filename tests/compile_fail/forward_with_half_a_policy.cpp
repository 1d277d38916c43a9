// expect: atmanrl: the attention policy's params have a parameter\(site\), so the policy needs `atmanrl::index_t parameter_count
#include <atmanrl/nn/decoder.hpp>

struct temperature_per_head {
  struct params_type {
    atmanrl::index_t parameter(atmanrl::score_site at) const { return at.head; }
    template <class T>
    T operator()(T score, T value, atmanrl::score_site) const {
      return score * value;
    }
  };
  params_type params() const { return {}; }
};

using model = atmanrl::llama<atmanrl::reference_backend, float>;

void run(model& m, atmanrl::kv_cache<atmanrl::reference_backend, float>& cache, atmanrl::ragged_batch const& batch,
         atmanrl::forward_pass<atmanrl::reference_backend, float>& pass) {
  m.forward(cache, batch, pass, {}, atmanrl::edited{temperature_per_head{}});
}
