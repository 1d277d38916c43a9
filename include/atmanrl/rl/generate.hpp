#pragma once

/// \file
/// Batched sampling: prompts are prefilled once, their rollouts share them, finished rollouts leave the batch. A token
/// depends on (seed, step, prompt, rollout, position) and on what came before it, never on what it is batched with.

#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/nn/prefix_tree_batch.hpp>
#include <atmanrl/ops/sample.hpp>
#include <atmanrl/rl/completion.hpp>
#include <atmanrl/rl/drawn_tokens.hpp>
#include <atmanrl/rl/recorded_decoding.hpp>
#include <atmanrl/rl/samplers/form.hpp>
#include <atmanrl/rl/samplers/sampler.hpp>

#include <algorithm>
#include <concepts>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
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

/// Whether a prompt is one, and leaves room for a token after it.
inline bool has_room(std::span<int const> prompt, model_config const& c) {
  return !prompt.empty() && index_t(prompt.size()) < c.max_positions;
}

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
  index_t const positions = model.config().max_positions;
  auto const room = [&](std::vector<int> const& prompt) {
    return std::min<index_t>(options.max_new_tokens, positions - index_t(prompt.size()));
  };
  for (auto const& p : prompts) {
    expects<usage_error>(!p.empty(), "a prompt is empty");
    expects<usage_error>(room(p) > 0, "a prompt of {} tokens leaves no room: the model's limit is {}", p.size(),
                         positions);
  }
  detail::growing_completions out(options, prompts.size());
  if (prompts.empty()) return out.take();

  prefix_tree_batch tree;
  std::vector<int> last_rows, row_of;
  std::vector<detail::open_rollout> open;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    int const root = tree.add(-1, prompts[p]);
    last_rows.push_back(tree.last_row(root));
    for (int g = 0; g < options.group_size; ++g) {
      open.push_back({p, g, tree.reserve(root, room(prompts[p])), index_t(prompts[p].size()), room(prompts[p])});
      row_of.push_back(int(p));
    }
  }

  B& backend = model.backend();
  memory_use_scope const named(backend, memory_use::head);
  auto const space = model.borrow_pass(tree.cache_rows());
  auto& cache = space->cache;
  auto& pass = space->pass;
  auto const drawing = model.memory().template borrow<detail::drawing_space<B, T>>();
  auto const form = samplers::form_of(sampler);

  // Draws one token for each rollout from the row of logits that belongs to it; removes the finished ones.
  auto const draw = [&] {
    auto& [logits, rows, shares, drawn] = *drawing;
    index_t const n = index_t(open.size());
    drawn.resize(backend, 1, n);
    rows.assign(backend, row_of);
    if (form) {
      std::vector<std::uint64_t> of_2_64;
      for (auto const& r : open) of_2_64.push_back(share_of_2_64(out.next_key(r)));
      shares.resize(backend, {n});
      shares.assign(of_2_64);
      sample_tokens(backend, logits.cview(), rows.cview(), shares.cview(), options.temperature, *form,
                    drawn.ids_of_rows());
    } else {
      std::vector<double> u;
      for (auto const& r : open) u.push_back(uniform(out.next_key(r)));
      auto const ids = detail::drawn_on_host(logits, row_of, sampler, options.temperature, u);
      backend.copy_from_host(drawn.ids().data(), ids.data(), ids.size() * sizeof(int));
    }
    score_tokens(backend, logits.cview(), rows.cview(), drawn.ids_of_rows(), options.scored_temperature(),
                 drawn.log_p_of_rows(), drawn.entropy_of_rows());
    auto const got = drawn.to_host();  // of the logits, only these three leave a device
    std::vector<detail::open_rollout> left;
    for (std::size_t i = 0; i < open.size(); ++i) {
      if (out.add(open[i], got.ids[i], double(got.log_p[i]), double(got.entropy[i])))
        cache.release(open[i].sequence);
      else
        left.push_back(open[i]);
    }
    open = std::move(left);
    out.report_progress();
  };

  // Prefill: one row of logits per prompt serves all its rollouts.
  tree.open(model, cache, pass);
  model.forward(cache, tree.batch(), pass);
  model.logits(pass, last_rows, drawing->logits);
  draw();
  if constexpr (detail::DecodesRecorded<Model>) {
    if (form) {
      detail::recorded_decoding(model, cache, pass, *drawing, options, *form).run(std::move(open), out);
      return out.take();
    }
  }
  ragged_batch batch;
  while (!open.empty()) {
    batch.clear();
    row_of.clear();
    for (auto const& r : open) row_of.push_back(batch.add(r.sequence, {&out.of(r).ids.back(), 1}));
    model.forward(cache, batch, pass);
    model.logits(pass, row_of, drawing->logits);
    draw();
  }
  return out.take();
}

}  // namespace atmanrl::inline ATMANRL_ABI
