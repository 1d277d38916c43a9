#pragma once
// Random Llamas that are small enough for exact derivatives, and the names of what the tests run through them.
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/testing/small_model.hpp>

#include "gradient_check.hpp"

#include <string>
#include <vector>

namespace atmanrl_test {

using namespace atmanrl;

using testing::branch;
using testing::laid_out;
using testing::ragged_tree;
using testing::random_tokens;
using testing::rich_config;
using testing::score_all;
using testing::small_config;
using testing::whole_sequence;

inline std::vector<double> random_parameters(model_config const& config, unsigned seed = 1, double size = 1) {
  return testing::random_parameters(parameter_layout(config, standard_kind(config)), seed, size);
}

template <class B, class W>
void set_parameters(llama<B, W>& model, std::vector<double> const& flat) {
  using T = typename llama<B, W>::scalar;
  tensor<B, T, 1> on_backend(model.backend(), {index_t(flat.size())});
  on_backend.assign(converted<T>(flat));
  model.assign(on_backend.cview());
}

/// A model with matrices in `W`: as their type, or as what float matrices are stored as on backends that have it so.
template <class B, class W>
constexpr bool stores_floats_as = std::same_as<W, bf16>&& KeepsBf16<B, float>;
template <class B, class W>
using model_in = llama<B, std::conditional_t<stores_floats_as<B, W>, float, W>>;
template <class B, class W>
constexpr weight_storage storage_in = stores_floats_as<B, W> ? weight_storage::bf16 : weight_storage::full;

template <class B, class W>
model_in<B, W> random_model(B& backend, model_config const& config, unsigned seed = 1, double size = 1) {
  model_in<B, W> model(backend, config, {}, storage_in<B, W>);
  set_parameters(model, random_parameters(config, seed, size));
  return model;
}

/// Values of a tensor on any backend as a vector.
template <class B, class W>
std::vector<typename llama<B, W>::scalar> read_parameters(llama<B, W> const& model) {
  tensor<B, typename llama<B, W>::scalar, 1> flat(model.backend(), {model.layout().size()});
  model.read(flat.view());
  return flat.to_host();
}

/// Log-probabilities of tokens[1..] given what stands before them, by one forward pass.
template <class B, class W>
std::vector<typename llama<B, W>::scalar> teacher_forced(llama<B, W>& model, std::vector<int> const& tokens,
                                                         double temperature = 1,
                                                         gradient_mode mode = gradient_mode::none) {
  using T = typename llama<B, W>::scalar;
  kv_cache<B, T> cache(model.backend(), model.config(), index_t(tokens.size()));
  forward_pass<B, T> pass(model.backend());
  ragged_batch batch;
  batch.add(cache.add_sequence(index_t(tokens.size())), tokens);
  model.forward(cache, batch, pass, {.mode = mode});
  std::vector<scored_token> scored;
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) scored.push_back({int(i), tokens[i + 1]});
  model.log_probs(pass, scored, temperature);
  return pass.log_p();
}

}  // namespace atmanrl_test
