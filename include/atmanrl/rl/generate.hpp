#pragma once

/// \file
/// Batched sampling: prompts are prefilled once, their rollouts share them, finished rollouts leave the batch. A token
/// depends on (seed, step, prompt, rollout, position) and on what came before it, never on what it is batched with.

#include <atmanrl/core/random.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/samplers/form.hpp>
#include <atmanrl/rl/samplers/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
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
};

namespace detail {
/// What drawing tokens takes; the vectors have one element per sequence.
template <Backend B, class T>
struct drawing_space {
  tensor<B, T, 2> logits;
  log_prob_scratch<B, T> scratch;
  tensor<B, int, 1> targets;
  tensor<B, T, 1> log_p, lse, entropy;
  tensor<B, int, 1> drawn_rows;  // these two only where the backend draws
  tensor<B, std::uint64_t, 1> shares;
};

/// Samplers see floats; the usual logits are floats already and are not copied again.
inline std::vector<float> to_floats(std::vector<float> x) { return x; }
template <class T>
std::vector<float> to_floats(std::vector<T> const& x) {
  return {x.begin(), x.end()};
}

/// One token from the row of logits that belongs to each draw.
template <Backend B, class T, Sampler S>
std::vector<int> drawn_on_host(tensor<B, T, 2> const& logits, std::span<int const> row_of, S const& sampler,
                               double temperature, std::span<double const> u) {
  auto const host = to_floats(logits.to_host());
  std::size_t const vocab = std::size_t(logits.extent(1));
  std::vector<int> chosen;
  for (std::size_t i = 0; i < row_of.size(); ++i)
    chosen.push_back(
        sampler(std::span<float const>(host).subspan(std::size_t(row_of[i]) * vocab, vocab), temperature, u[i]));
  return chosen;
}
}  // namespace detail

/// Completions of each prompt: result[prompt][member].
/// \throws usage_error when a prompt is empty or leaves no room in the model's positions, numeric_error naming the
///         rollout when a log-probability is not finite
template <class Model, Sampler S>
std::vector<std::vector<completion>> generate(Model& model, std::span<std::vector<int> const> prompts,
                                              generate_options const& options, S const& sampler) {
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  expects<usage_error>(options.group_size > 0 && options.max_new_tokens > 0,
                       "group size {} and max new tokens {} must be above 0", options.group_size,
                       options.max_new_tokens);
  expects<usage_error>(options.temperature >= 0, "temperature is {}", options.temperature);
  double const temperature = options.temperature == 0 ? 1 : options.temperature;
  index_t const positions = model.config().max_positions;
  index_t rows = 0;
  auto const room = [&](std::vector<int> const& prompt) {
    return std::min<index_t>(options.max_new_tokens, positions - index_t(prompt.size()));
  };
  for (auto const& p : prompts) {
    expects<usage_error>(!p.empty(), "a prompt is empty");
    expects<usage_error>(room(p) > 0, "a prompt of {} tokens leaves no room: the model's limit is {}", p.size(),
                         positions);
    rows += index_t(p.size()) + options.group_size * room(p);
  }
  std::vector<std::vector<completion>> out(prompts.size(), std::vector<completion>(std::size_t(options.group_size)));
  if (prompts.empty()) return out;

  B& backend = model.backend();
  auto const space = model.borrow_pass(rows);
  auto& cache = space->cache;
  auto& pass = space->pass;
  auto const drawing = model.memory().template borrow<detail::drawing_space<B, T>>();

  struct active {
    std::size_t prompt;
    int member, sequence;
    index_t limit;
  };
  // Draws one token for each entry from the row of logits that belongs to it; removes the finished ones.
  int finished = 0;
  index_t tokens = 0;
  auto const draw = [&](std::vector<active>& entries, std::vector<int> const& row_of) {
    auto& [logits, scratch, targets, log_p, lse, entropy, drawn_rows, shares] = *drawing;
    std::vector<double> u;
    for (active const& a : entries)
      u.push_back(
          uniform(random_key{options.seed, options.step, options.first_prompt + std::uint32_t(a.prompt),
                             std::uint32_t(a.member), std::uint32_t(out[a.prompt][std::size_t(a.member)].ids.size())}));
    log_p.resize(backend, {index_t(entries.size())});
    entropy.resize(backend, {index_t(entries.size())});
    std::vector<int> chosen;
    if constexpr (DrawsTokens<B>) {
      // Only ids, log-probabilities and entropies leave the device; a sampler of the user's own draws on the host.
      drawn_rows.resize(backend, {index_t(row_of.size())});
      drawn_rows.assign(row_of);
      targets.resize(backend, {index_t(entries.size())});
      if (auto const form = samplers::form_of(sampler)) {
        std::vector<std::uint64_t> of_2_64;
        for (double const x : u) of_2_64.push_back(share_of_2_64(x));
        shares.resize(backend, {index_t(of_2_64.size())});
        shares.assign(of_2_64);
        sample_tokens(backend, logits.cview(), drawn_rows.cview(), shares.cview(), options.temperature, *form,
                      targets.view());
        chosen = targets.to_host();
      } else {
        chosen = detail::drawn_on_host(logits, row_of, sampler, options.temperature, u);
        targets.assign(chosen);
      }
      score_tokens(backend, logits.cview(), drawn_rows.cview(), targets.cview(), temperature, log_p.view(),
                   entropy.view());
    } else {
      chosen = detail::drawn_on_host(logits, row_of, sampler, options.temperature, u);
      targets.resize(backend, {index_t(chosen.size())});
      targets.assign(chosen);
      lse.resize(backend, {index_t(chosen.size())});
      log_prob_of_logits(backend, logits.cview(), std::span<int const>(row_of), targets.cview(), temperature, scratch,
                         log_p.view(), lse.view(), entropy.view());
    }
    auto const lp = log_p.to_host(), en = entropy.to_host();
    std::vector<active> left;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      completion& c = out[entries[i].prompt][std::size_t(entries[i].member)];
      expects<numeric_error>(std::isfinite(double(lp[i])),
                             "prompt {}, rollout {}: the log-probability of token {} is {}", entries[i].prompt,
                             entries[i].member, c.ids.size(), double(lp[i]));
      c.ids.push_back(chosen[i]);
      c.log_probs.push_back(float(lp[i]));
      c.entropies.push_back(float(en[i]));
      ++tokens;
      bool const stopped =
          std::find(options.stop_ids.begin(), options.stop_ids.end(), chosen[i]) != options.stop_ids.end();
      c.truncated = !stopped && index_t(c.ids.size()) >= entries[i].limit;
      if (stopped || c.truncated) {
        ++finished;
        if (entries[i].sequence >= 0) cache.release(entries[i].sequence);
      } else {
        left.push_back(entries[i]);
      }
    }
    entries = std::move(left);
    if (options.on_progress) options.on_progress(finished, int(prompts.size()) * options.group_size, tokens);
  };

  // Prefill: one row of logits per prompt serves all its rollouts.
  ragged_batch batch;
  std::vector<int> last_rows, roots, row_of;
  std::vector<active> entries;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    roots.push_back(cache.add_sequence(index_t(prompts[p].size())));
    last_rows.push_back(batch.add(roots.back(), prompts[p]) + int(prompts[p].size()) - 1);
    for (int g = 0; g < options.group_size; ++g) {
      entries.push_back({p, g, -1, room(prompts[p])});
      row_of.push_back(int(p));
    }
  }
  model.forward(cache, batch, pass);
  model.logits(pass, last_rows, drawing->logits);
  draw(entries, row_of);
  for (active& a : entries) a.sequence = cache.add_child(roots[a.prompt], index_t(prompts[a.prompt].size()), a.limit);

  while (!entries.empty()) {
    batch.clear();
    row_of.clear();
    for (active const& a : entries) {
      int const token = out[a.prompt][std::size_t(a.member)].ids.back();
      row_of.push_back(batch.add(a.sequence, {&token, 1}));
    }
    model.forward(cache, batch, pass);
    model.logits(pass, row_of, drawing->logits);
    draw(entries, row_of);
  }
  return out;
}

}  // namespace atmanrl
