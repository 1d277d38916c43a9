#pragma once
// Updates whose gradients are kept in each of the ways that there are, on any backend and with any communicator.
#include <atmanrl/nn/blocks.hpp>
#include <atmanrl/optim/any.hpp>
#include <atmanrl/rl/policy.hpp>

#include "nn/small_model.hpp"

#include <string>
#include <vector>

namespace gradient_memory_checks {

using namespace atmanrl_test;

/// Large enough for slices of four ranks; a slice ends within a layer and within the embedding.
inline model_config wide_config(bool tied = true) {
  model_config c = rich_config();
  c.vocab = 600;
  c.hidden = 256;
  c.head_dim = 8;  // which CUDA kernels are there for
  c.ffn = 160;
  c.layers = 3;
  c.tied_head = tied;
  return c;
}

struct setting {
  gradient_memory_options memory;
  std::size_t leaves = 5;
  bool tied = true, adapters = false;
  optim::any optimizer = optim::adamw{};
};

struct outcome {
  std::vector<float> weights;
  std::vector<double> norms;
  std::vector<int> gathered;
  comm::traffic of_sum, of_update;
  comm::range slice;
  std::size_t peak = 0;  // elements that the backend held beside what it held before the first step
  bool operator==(outcome const& o) const { return weights == o.weights && norms == o.norms && gathered == o.gathered; }
};

inline std::size_t passes_of(std::size_t leaf) { return leaf == 2 ? 0 : 1 + leaf % 3; }

/// Adds a leaf's gradient: passes over texts of its own.
template <class Model>
void add_leaf(trainable_weights<Model>& policy, std::size_t leaf) {
  Model& model = policy.model();
  for (std::size_t pass_number = 0; pass_number < passes_of(leaf); ++pass_number) {
    auto const tokens =
        random_tokens(4 + (leaf + pass_number) % 3, model.config().vocab, unsigned(7 * leaf + pass_number));
    auto const space = model.borrow_pass(index_t(tokens.size()));
    auto& [cache, pass] = *space;
    ragged_batch batch;
    batch.add(cache.add_sequence(index_t(tokens.size())), tokens);
    model.forward(cache, batch, pass, {.mode = gradient_mode::parameters});
    auto const scored = score_all(batch.rows(), model.config().vocab);
    model.log_probs(pass, scored);
    std::vector<float> const weights(scored.size(), -0.1f * float(1 + leaf));
    model.backward(cache, pass, {.log_p = weights}, policy.pass_gradients(pass_number + 1 == passes_of(leaf)));
  }
}

/// Two updates by the ranks, on one backend for each.
template <class W, class B>
outcome updated(B& backend, setting const& s, comm::any_on<B> ranks) {
  auto model = random_model<B, W>(backend, wide_config(s.tied), 3, 0.1);
  if (s.adapters) model.attach({.rank = 40, .alpha = 4}, 5);
  trainable_policy<model_in<B, W>, optim::any> policy(model, s.optimizer, ranks, s.memory);
  outcome out;
  out.slice = policy.slice();
  for (int step = 0; step < 2; ++step) {
    auto const before = ranks.volume();
    std::vector<int> mine;
    policy.sum_gradient(s.leaves, [&](std::size_t leaf) {
      add_leaf(policy, leaf);
      for (int i = 0; i < 2; ++i) mine.push_back(int(2 * leaf) + i);
    });
    auto const summed = ranks.volume();
    out.norms.push_back(policy.update(3e-3, 1));
    out.of_sum = summed - before;
    out.of_update = ranks.volume() - summed;
    out.gathered = policy.gather_of_leaves(s.leaves, mine);
  }
  tensor<B, float, 1> weights(backend, {model.trainable_layout().size()});
  model.read_trainable(weights.view());
  out.weights = weights.to_host();
  return out;
}

inline std::vector<gradient_memory_options> const ways{{},
                                                       {gradient_memory::slices},
                                                       {gradient_memory::slices, true},
                                                       {gradient_memory::layers},
                                                       {gradient_memory::layers, true}};

}  // namespace gradient_memory_checks
