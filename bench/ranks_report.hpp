#pragma once
// An estimate of a step that many GPUs share: the counted work of a rank's prompt groups, and what ranks send each
// other by the library's own division of a step (bench/ranks.hpp). The tables of docs/distributed.md.
#include "counted_memory.hpp"
#include "counted_step.hpp"
#include "ranks.hpp"

#include <atmanrl/optim/gradient_memory.hpp>
#include <atmanrl/optim/slice_gather.hpp>

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace atmanrl_bench {

struct ranks_options {
  int ranks = 1024;          ///< the largest number
  std::size_t queries = 48;  ///< prompt groups of a step, of 8 rollouts each
  std::size_t together = 8;  ///< prompt groups of a rank that are sampled, and masked, in one batch
  rank_links links{};
  double card = 0;  ///< 10^9 bytes of a GPU's memory: what of a gradient a rank may keep there; 0: no such table

  /// Of a command line; nothing where it makes no sense.
  static std::optional<ranks_options> from(std::span<std::string_view const> arguments) {
    ranks_options o;
    for (std::size_t i = 0; i < arguments.size(); i += 2) {
      if (i + 1 == arguments.size()) return std::nullopt;
      std::string const value(arguments[i + 1]);
      if (arguments[i] == "--link") {
        int end = 0;
        if (std::sscanf(value.c_str(), "%lf,%lf%n", &o.links.inside, &o.links.between, &end) != 2 ||
            end != int(value.size()) || !(o.links.inside > 0) || !(o.links.between > 0))
          return std::nullopt;
        o.links.inside *= 1e9;
        o.links.between *= 1e9;
        continue;
      }
      if (arguments[i] == "--card") {
        int end = 0;
        if (std::sscanf(value.c_str(), "%lf%n", &o.card, &end) != 1 || end != int(value.size()) || !(o.card > 0))
          return std::nullopt;
        continue;
      }
      int n = 0;
      auto const [rest, error] = std::from_chars(value.data(), value.data() + value.size(), n);
      if (error != std::errc{} || rest != value.data() + value.size() || n < 1 || n > 65536) return std::nullopt;
      if (arguments[i] == "--ranks")
        o.ranks = n;
      else if (arguments[i] == "--queries")
        o.queries = std::size_t(n);
      else if (arguments[i] == "--together")
        o.together = std::size_t(n);
      else if (arguments[i] == "--machine")
        o.links.machine = n;
      else
        return std::nullopt;
    }
    return o;
  }
};

/// Floors of a rank's phases for any number of prompt groups, each counted once.
class counted_phases {
 public:
  explicit counted_phases(ranks_options const& o) : together_(o.together) {
    one_mask_ = seconds({}, [](auto& x) { x.train_masks(step_shape{}.mask_steps); });
    gradient_ = seconds({}, [](auto& x) { x.gradient(); });
    new_weights_ = seconds({}, [](auto& x) { x.new_weights(); });
    double const update = seconds({}, [](auto& x) { x.update(1); });
    expects(std::abs(update - gradient_ - new_weights_) < 1e-6 * update, "an update of {} s has parts of {} and {} s",
            update, gradient_, new_weights_);
  }

  double sampling(std::size_t groups) {
    return batches(groups, samplings_, [](auto& x) { x.sample(step_shape{}.completion); });
  }
  /// With all rows after the prompt a group alone fills the device, so that batches save nothing that counts.
  double masks(std::size_t groups) const { return double(groups) * one_mask_; }
  double few_rows_masks(std::size_t groups) {
    return batches(
        groups, few_rows_, [](auto& x) { x.train_masks(step_shape{}.mask_steps); }, mask_rows::answer_rows);
  }
  double gradient() const { return gradient_; }        ///< of one group, once
  double new_weights() const { return new_weights_; }  ///< of all parameters, once
  machine_limits const& limits() const { return limits_; }

 private:
  template <class Walk>
  double seconds(step_shape const& shape, Walk&& walk) const {
    counted_step<bf16> step(llama_3_2_3b(), shape, limits_);
    walk(step);
    double all = 0;
    for (auto const& [name, k] : step.backend.kernels()) all += k.floor;
    return all;
  }
  template <class Walk>
  double batches(std::size_t groups, std::map<std::size_t, double>& known, Walk&& walk,
                 mask_rows rows = mask_rows::all_later) {
    double all = 0;
    for (std::size_t left = groups; left > 0;) {
      std::size_t const batch = std::min(left, together_);
      if (!known.contains(batch)) {
        step_shape shape;
        shape.prompts = index_t(batch);
        shape.rows = rows;
        known[batch] = seconds(shape, walk);
      }
      all += known[batch];
      left -= batch;
    }
    return all;
  }

  std::size_t together_;
  machine_limits limits_;
  double one_mask_ = 0, gradient_ = 0, new_weights_ = 0;
  std::map<std::size_t, double> samplings_, few_rows_;
};

/// A step on so many ranks. Every phase lasts as long as with the rank that has most to do.
struct rank_step {
  int ranks = 1;
  std::size_t most_groups = 0, idle = 0;                     ///< groups of a rank; ranks that have none
  std::size_t most_nodes = 0, nodes = 0;                     ///< of a rank and of all, in the exchange
  std::size_t waiting = 0;                                   ///< most sums that wait on a rank at once
  std::size_t slice = 0;                                     ///< elements, the largest
  double sent = 0, received = 0;                             ///< bytes of the exchange, the most
  double weights = 0, rollouts = 0;                          ///< bytes that a rank receives of others, the most
  double sampling = 0, masks = 0, few_rows = 0, update = 0;  ///< seconds of a step
  double exchange = 0, gather = 0;                           ///< seconds of a step's exchanges and all-gathers

  double step(bool answer_rows) const {
    return sampling + (answer_rows ? few_rows : masks) + update + exchange + gather;
  }
};

inline rank_step step_on(int ranks, ranks_options const& o, parameter_layout const& layout, counted_phases& phases) {
  step_shape const shape;
  auto const n = std::size_t(layout.size());
  double const passes = double(shape.passes), leaf = double(n * sizeof(float)), bandwidth = phases.limits().bandwidth;
  planned_sum const sum(o.queries, n, ranks);
  // Of a mask of pairs: a triangle over the completion, and a row for each token of delimiter and answer.
  auto const mask_values = std::size_t(shape.completion * (shape.completion + 1) / 2 + shape.completion * 8);
  rank_step s{.ranks = ranks};
  std::vector<comm::range> rounded;  // what the model stores, and ranks exchange, as bf16
  for (parameter_info const& p : layout.all())
    if (!p.is_vector()) rounded.push_back({std::size_t(p.offset), std::size_t(p.size())});
  double summing = 0;
  std::vector<std::size_t> weights, tokens;  // bytes that each rank has for all others
  for (int r = 0; r < ranks; ++r) {
    std::size_t const groups = sum.share(r).count;
    auto const adds = sum.adds(r);
    auto const volume = sum.volume(r);
    s.most_groups = std::max(s.most_groups, groups);
    s.idle += groups == 0;
    s.most_nodes = std::max(s.most_nodes, sum.nodes(r));
    s.waiting = std::max(s.waiting, adds.waiting);
    s.slice = std::max(s.slice, sum.slice(r).count);
    s.sent = std::max(s.sent, double(volume.exchange.sent));
    s.received = std::max(s.received, double(volume.exchange.received));
    // Two operands and a result, or one and a result; then the nodes of the rank's slice.
    double const slice = double(sum.slice(r).count * sizeof(float)), of_slice = double(sum.nodes() - 1) * 3 * slice;
    weights.push_back(gathered_bytes(sum.slice(r), rounded));
    // A rank rounds its new weights, 1.5 of their bytes as floats; others' are widened into the array that the model
    // takes, and rounded by it.
    double const converted = ranks == 1 ? 0 : 1.5 * slice + 3 * (leaf - slice);
    summing = std::max(summing, (3 * double(adds.added) + 2 * double(adds.copied)) * leaf + of_slice + converted);
    // A token's number, log-probability and entropy; a mask's values and saliencies, and its first gradient, of which
    // the metrics have quantiles.
    auto const rollouts = groups * std::size_t(shape.group), completion = std::size_t(shape.completion);
    tokens.push_back(rollouts * (completion * 12 + (2 * mask_values + completion) * sizeof(float)));
  }
  s.nodes = sum.nodes();
  for (int r = 0; r < ranks; ++r) {
    comm::traffic of_weights, of_rollouts;
    of_weights.count_all_gather(r, weights);
    of_rollouts.count_all_gather(r, tokens);
    s.weights = std::max(s.weights, double(of_weights.all_gather.received));
    s.rollouts = std::max(s.rollouts, double(of_rollouts.all_gather.received));
  }
  s.sampling = phases.sampling(s.most_groups);
  s.masks = phases.masks(s.most_groups);
  s.few_rows = phases.few_rows_masks(s.most_groups);
  // Of a slice clipping is a pass of its own, which reads and writes the gradient, and so is rounding: 4 bytes to read.
  double const unfused = ranks > 1 ? 12 * double(s.slice) / bandwidth : 0;
  s.update = passes * (double(s.most_groups) * phases.gradient() + summing / bandwidth +
                       double(s.slice) / double(n) * phases.new_weights() + unfused);
  s.exchange = passes * o.links.seconds(ranks, [&](int from, int to) { return sum.exchanged(from, to); });
  auto const part = [](std::vector<std::size_t> const& bytes) {
    return [&bytes](int from, int) { return double(bytes[std::size_t(from)]); };
  };
  s.gather = passes * o.links.seconds(ranks, part(weights)) + o.links.seconds(ranks, part(tokens));
  return s;
}

inline void print_volumes(std::vector<rank_step> const& steps) {
  fmt::print(
      "| ranks | groups of a rank | ranks without | sums left: of a rank, of all | gradient sent | received | weights "
      "received | rollouts received | exchange | gathers |\n|---|---|---|---|---|---|---|---|---|---|\n");
  for (rank_step const& s : steps)
    fmt::print("| {} | {} | {} | {}, {} | {:.2f} GB | {:.2f} GB | {:.2f} GB | {:.2f} MB | {:.3f} s | {:.3f} s |\n",
               s.ranks, s.most_groups, s.idle, s.most_nodes, s.nodes, 1e-9 * s.sent, 1e-9 * s.received,
               1e-9 * s.weights, 1e-6 * s.rollouts, s.exchange, s.gather);
}

inline void print_times(std::vector<rank_step> const& steps) {
  fmt::print(
      "| ranks | sampling | masks, all_later | masks, answer_rows | update | exchange and gathers | step, all_later | "
      "efficiency | step, answer_rows | efficiency |\n"
      "|---|---|---|---|---|---|---|---|---|---|\n");
  for (rank_step const& s : steps) {
    auto const efficiency = [&](bool answer_rows) {
      return 100 * steps.front().step(answer_rows) / (double(s.ranks) * s.step(answer_rows));
    };
    fmt::print(
        "| {} | {:.2f} s | {:.1f} s | {:.2f} s | {:.2f} s | {:.2f} s | {:.1f} s | {:.1f} % | {:.2f} s | {:.1f} "
        "% |\n",
        s.ranks, s.sampling, s.masks, s.few_rows, s.update, s.exchange + s.gather, s.step(false), efficiency(false),
        s.step(true), efficiency(true));
  }
}

inline void print_rank_memory(std::vector<rank_step> const& steps, ranks_options const& o,
                              parameter_layout const& layout) {
  auto const n = std::size_t(layout.size());
  fmt::print(
      "| ranks | weights | gradient | masters and moments of a slice | keys, values, activations, masks | sums that "
      "wait, pieces | all | 80 GB hold it |\n|---|---|---|---|---|---|---|---|\n");
  for (rank_step const& s : steps) {
    experiment_options e = experiment_options::of_preset(experiment_preset::paper);
    e.dtype = weight_dtype::bf16;
    e.prompts_per_step = int(std::min(o.together, s.most_groups));
    e.max_new_tokens = 400;
    auto const m = counted_memory(llama_3_2_3b(), e);
    std::size_t const weights = m[memory_use::weights], gradient = n * sizeof(float),
                      state = 3 * s.slice * sizeof(float),
                      work = m.all() - weights - m[memory_use::gradient] - m[memory_use::optimizer],
                      gpu = weights + gradient + state + work;
    // The sums, what one round of the exchange receives, and new weights on their way.
    std::size_t const pieces = s.ranks > 1
                                   ? s.nodes * std::min(gradient_sum<counting_backend, float>::default_piece, s.slice)
                                   : 0,
                      sums = sizeof(float) * (s.waiting * n + pieces) +
                             (s.ranks > 1 ? slice_gather<counting_backend, float>::packed_bytes(n, s.ranks) : 0);
    fmt::print("| {} | {} | {} | {} | {} | {} | {} | {} |\n", s.ranks, format_bytes(weights), format_bytes(gradient),
               format_bytes(state), format_bytes(work), format_bytes(sums), format_bytes(gpu + sums),
               double(gpu + sums) <= 80e9 ? "yes" : "no");
  }
}

/// A run that takes little beside its weights and gradients: bf16 keys and values, recomputed layers, masks on answer
/// rows, 512 MiB of activations in a pass, no evaluation.
inline experiment_options sparing_run(std::size_t queries) {
  experiment_options e = experiment_options::of_preset(experiment_preset::paper);
  e.dtype = weight_dtype::bf16;
  e.kv_cache = kv_storage::bf16;
  e.recompute = true;
  e.mask.rows = mask_rows::answer_rows;
  e.activation_mib = 512;
  e.eval_questions = e.validate_every = 0;
  e.prompts_per_step = int(queries);
  e.max_new_tokens = 400;
  return e;
}

/// What a rank of such a run holds on a card, by what it keeps of a gradient.
inline void print_kept(ranks_options const& o, parameter_layout const& layout) {
  auto const n = std::size_t(layout.size());
  int const ranks = o.ranks;
  fmt::print(
      "| kept | prompts of a step | gradient at hand | sums that wait, pieces | weights, masters, moments | keys, "
      "values, activations, masks | all | of {:.2f} GiB left | on the host | sent in a pass | exchange |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|\n",
      o.card * 1e9 / 0x1p30);
  for (std::size_t const queries : {std::size_t(ranks), 2 * std::size_t(ranks), o.queries}) {
    planned_sum const sum(queries, n, ranks);
    auto const m = counted_memory(llama_3_2_3b(), sparing_run((queries + std::size_t(ranks) - 1) / std::size_t(ranks)));
    std::size_t const slice = sum.slice(0).count, weights = m[memory_use::weights],
                      state = weights + 3 * slice * sizeof(float),
                      work = m.all() - weights - m[memory_use::gradient] - m[memory_use::optimizer],
                      gathers = slice_gather<counting_backend, float>::packed_bytes(n, ranks);
    struct kept {
      char const* name;
      gradient_elements held;
      comm::byte_count volume;
      double seconds;
    };
    auto const waiting = [&] {
      gradient_elements g{.leaf = n};
      std::size_t most = 0;
      for (int r = 0; r < ranks; ++r) most = std::max(most, sum.adds(r).waiting);
      g.sums = most * n;
      g.pieces = sum.nodes() * std::min(gradient_sum<counting_backend, float>::default_piece, slice);
      return g;
    }();
    planned_rounds const slices(queries, {{0, n}}, ranks), layers(queries, gradient_stretches_of(layout), ranks);
    std::size_t const open = most_open_elements(layout);
    for (kept const &k : std::initializer_list<kept>{
             {"whole", waiting, sum.volume(0).exchange,
              o.links.seconds(ranks, [&](int from, int to) { return sum.exchanged(from, to); })},
             {"slices", elements_of_dealt_sums(queries, n, ranks, n, false), slices.volume(0), slices.seconds(o.links)},
             {"layers", elements_of_dealt_sums(queries, n, ranks, open, false), layers.volume(0),
              layers.seconds(o.links)},
             {"layers, sums on the host", elements_of_dealt_sums(queries, n, ranks, open, true), layers.volume(0),
              layers.seconds(o.links)}}) {
      std::size_t const leaf = k.held.leaf * sizeof(float),
                        sums = (k.held.sums + k.held.pieces) * sizeof(float) + gathers,
                        all = leaf + sums + state + work;
      double const left = (o.card * 1e9 - double(all)) / 0x1p30;
      fmt::print("| {} | {} | {} | {} | {} | {} | {} | {:.2f} GiB | {} | {:.2f} GB | {:.2f} s |\n", k.name, queries,
                 format_bytes(leaf), format_bytes(sums), format_bytes(state), format_bytes(work), format_bytes(all),
                 left, format_bytes(k.held.on_host * sizeof(float)), 1e-9 * double(k.volume.sent), k.seconds);
    }
  }
}

inline int print_ranks(ranks_options const& o) {
  step_shape const shape;
  parameter_layout const layout(llama_3_2_3b(), llama<counting_backend, bf16>::kind_of(llama_3_2_3b()));
  if (o.card > 0) {
    auto const rows =
        budgets_of(llama_3_2_3b(), llama<counting_backend, bf16>::kept_numbers(llama_3_2_3b()), sparing_run(1)).update;
    fmt::print(
        "An estimate: Llama-3.2-3B on {} ranks with cards of {:.0f} GB, {} rollouts of a prompt, prompts of {} tokens, "
        "completions of 400;\n{:.0f} GB/s from rank to rank, each way; passes of {} rows. CUDA itself is not "
        "counted.\n\n",
        o.ranks, o.card, shape.group, shape.prompt, 1e-9 * o.links.inside, rows);
    print_kept(o, layout);
    return 0;
  }
  counted_phases phases(o);
  std::vector<rank_step> steps;
  for (int ranks = 1; ranks <= o.ranks; ranks *= 2) steps.push_back(step_on(ranks, o, layout, phases));
  fmt::print(
      "An estimate: Llama-3.2-3B, {} queries x {} rollouts a step, prompts of {} tokens, completions of {}, {} mask\n"
      "steps, {} passes of the update; H100 SXM, {} in a machine, {:.0f} GB/s to each other and {:.0f} GB/s to "
      "others,\n"
      "each way. Floors of kernels and of links, one after the other. Up to {} groups of a rank in one batch.\n\n",
      o.queries, shape.group, shape.prompt, shape.completion, shape.mask_steps, shape.passes, o.links.machine,
      1e-9 * o.links.inside, 1e-9 * o.links.between, o.together);
  fmt::print(
      "What the busiest rank sends and receives: of the gradient and of the weights in each pass, of the rollouts\n"
      "in a step; seconds of a step\n\n");
  print_volumes(steps);
  fmt::print("\nTime of a step, and parallel efficiency: time of one rank / (ranks x time)\n\n");
  print_times(steps);
  fmt::print("\nMemory of the rank that needs most\n\n");
  print_rank_memory(steps, o, layout);
  return 0;
}

}  // namespace atmanrl_bench
