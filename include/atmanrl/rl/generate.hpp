#pragma once

/// \file
/// Batched sampling: prompts are prefilled once, their rollouts share them, finished rollouts leave the batch. A token
/// depends on (seed, step, prompt, rollout, position) and on what came before it, never on what it is batched with.

#include <atmanrl/core/random.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/nn/prefix_tree_batch.hpp>
#include <atmanrl/ops/sample.hpp>
#include <atmanrl/rl/samplers/form.hpp>
#include <atmanrl/rl/samplers/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <functional>
#include <span>
#include <tuple>
#include <vector>

namespace atmanrl {

struct generate_options {
  int group_size = 1;  ///< completions per prompt
  int max_new_tokens = 256;
  double temperature = 1;  ///< 0: log-probabilities are those of temperature 1
  std::vector<int> stop_ids;
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t first_prompt =
      0;  ///< number of the first prompt within the step, for prompts that are split into calls
  std::function<void(int finished, int all, index_t tokens)> on_progress;  ///< after every decoding step; may be empty
};

struct completion {
  std::vector<int> ids;          ///< the stop token included when there is one
  std::vector<float> log_probs;  ///< of logits / temperature
  std::vector<float> entropies;  ///< nats
  bool truncated = false;

  static constexpr auto fields() {
    return std::tuple(&completion::ids, &completion::log_probs, &completion::entropies, &completion::truncated);
  }
};

namespace detail {
/// What drawing tokens takes; the vectors have one element per sequence.
template <Backend B, class T>
struct drawing_space {
  tensor<B, T, 2> logits;
  tensor<B, int, 1> rows, ids;
  tensor<B, std::uint64_t, 1> shares;
  tensor<B, T, 1> log_p, entropy;
};

/// One token for each draw by a sampler that only its own code describes. It sees floats on the host; rows that are
/// there are not copied.
template <Backend B, class T, Sampler S>
std::vector<int> drawn_on_host(tensor<B, T, 2> const& logits, std::span<int const> row_of, S const& sampler,
                               double temperature, std::span<double const> u) {
  std::vector<T> copied;
  T const* host = logits.data();
  if constexpr (!HostBackend<B>) host = (copied = logits.to_host()).data();
  std::size_t const vocab = std::size_t(logits.extent(1));
  std::vector<float> floats;
  std::vector<int> chosen;
  for (std::size_t i = 0; i < row_of.size(); ++i) {
    std::span<T const> const row(host + std::size_t(row_of[i]) * vocab, vocab);
    if constexpr (std::same_as<T, float>) {
      chosen.push_back(sampler(row, temperature, u[i]));
    } else {
      floats.assign(row.begin(), row.end());
      chosen.push_back(sampler(std::span<float const>(floats), temperature, u[i]));
    }
  }
  return chosen;
}
}  // namespace detail

/// Completions of each prompt: result[prompt][member].
/// \throws usage_error when a prompt is empty or leaves no room in the model's positions, numeric_error naming the
///         rollout when a log-probability is not finite
template <class Model, Sampler S>
std::vector<std::vector<completion>> generate(Model& model, std::span<std::vector<int> const> prompts,
                                              generate_options const& options, S const& sampler) {
  static_assert(detail::explain_language_model<Model>());
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  expects<usage_error>(options.group_size > 0 && options.max_new_tokens > 0,
                       "group size {} and max new tokens {} must be above 0", options.group_size,
                       options.max_new_tokens);
  expects<usage_error>(options.temperature >= 0, "temperature is {}", options.temperature);
  double const temperature = options.temperature == 0 ? 1 : options.temperature;
  index_t const positions = model.config().max_positions;
  auto const room = [&](std::vector<int> const& prompt) {
    return std::min<index_t>(options.max_new_tokens, positions - index_t(prompt.size()));
  };
  for (auto const& p : prompts) {
    expects<usage_error>(!p.empty(), "a prompt is empty");
    expects<usage_error>(room(p) > 0, "a prompt of {} tokens leaves no room: the model's limit is {}", p.size(),
                         positions);
  }
  std::vector<std::vector<completion>> out(prompts.size(), std::vector<completion>(std::size_t(options.group_size)));
  if (prompts.empty()) return out;

  struct active {
    std::size_t prompt;
    int member, sequence;
    index_t limit;
  };
  prefix_tree_batch tree;
  std::vector<int> last_rows, row_of;
  std::vector<active> entries;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    int const root = tree.add(-1, prompts[p]);
    last_rows.push_back(tree.last_row(root));
    for (int g = 0; g < options.group_size; ++g) {
      entries.push_back({p, g, tree.reserve(root, room(prompts[p])), room(prompts[p])});
      row_of.push_back(int(p));
    }
  }

  B& backend = model.backend();
  memory_use_scope const named(backend, memory_use::head);
  auto const space = model.borrow_pass(tree.cache_rows());
  auto& cache = space->cache;
  auto& pass = space->pass;
  auto const drawing = model.memory().template borrow<detail::drawing_space<B, T>>();

  // Draws one token for each entry from the row of logits that belongs to it; removes the finished ones.
  int finished = 0;
  index_t tokens = 0;
  auto const draw = [&] {
    auto& [logits, rows, ids, shares, log_p, entropy] = *drawing;
    index_t const n = index_t(entries.size());
    std::vector<double> u;
    for (active const& a : entries)
      u.push_back(
          uniform(random_key{options.seed, options.step, options.first_prompt + std::uint32_t(a.prompt),
                             std::uint32_t(a.member), std::uint32_t(out[a.prompt][std::size_t(a.member)].ids.size())}));
    rows.resize(backend, {n});
    rows.assign(row_of);
    ids.resize(backend, {n});
    log_p.resize(backend, {n});
    entropy.resize(backend, {n});
    if (auto const form = samplers::form_of(sampler)) {
      std::vector<std::uint64_t> of_2_64;
      for (double const x : u) of_2_64.push_back(share_of_2_64(x));
      shares.resize(backend, {n});
      shares.assign(of_2_64);
      sample_tokens(backend, logits.cview(), rows.cview(), shares.cview(), options.temperature, *form, ids.view());
    } else {
      ids.assign(detail::drawn_on_host(logits, row_of, sampler, options.temperature, u));
    }
    score_tokens(backend, logits.cview(), rows.cview(), ids.cview(), temperature, log_p.view(), entropy.view());
    auto const chosen = ids.to_host();  // of the logits, only these three leave a device
    auto const lp = log_p.to_host(), en = entropy.to_host();
    std::vector<active> left;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      completion& c = out[entries[i].prompt][std::size_t(entries[i].member)];
      expects<numeric_error>(std::isfinite(double(lp[i])),
                             "prompt {}, rollout {}: the log-probability of token {} is {}",
                             options.first_prompt + entries[i].prompt, entries[i].member, c.ids.size(), double(lp[i]));
      c.ids.push_back(chosen[i]);
      c.log_probs.push_back(float(lp[i]));
      c.entropies.push_back(float(en[i]));
      ++tokens;
      bool const stopped =
          std::find(options.stop_ids.begin(), options.stop_ids.end(), chosen[i]) != options.stop_ids.end();
      c.truncated = !stopped && index_t(c.ids.size()) >= entries[i].limit;
      if (stopped || c.truncated) {
        ++finished;
        cache.release(entries[i].sequence);
      } else {
        left.push_back(entries[i]);
      }
    }
    entries = std::move(left);
    if (options.on_progress) options.on_progress(finished, int(prompts.size()) * options.group_size, tokens);
  };

  // Prefill: one row of logits per prompt serves all its rollouts.
  tree.open(model, cache, pass);
  model.forward(cache, tree.batch(), pass);
  model.logits(pass, last_rows, drawing->logits);
  draw();
  ragged_batch batch;
  while (!entries.empty()) {
    batch.clear();
    row_of.clear();
    for (active const& a : entries) {
      int const token = out[a.prompt][std::size_t(a.member)].ids.back();
      row_of.push_back(batch.add(a.sequence, {&token, 1}));
    }
    model.forward(cache, batch, pass);
    model.logits(pass, row_of, drawing->logits);
    draw();
  }
  return out;
}

}  // namespace atmanrl
