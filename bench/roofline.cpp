// What a GRPO step with mask training asks of a GPU, counted call by call while the library walks a model of
// Llama-3.2-3B's shape over a backend that computes nothing: operations, bytes, and the seconds below which an H100
// cannot do it; what caching, packing and answer_rows save; and what it may have cost the paper. The tables of
// docs/cuda.md. Usage: roofline             the tables of work
//        roofline --memory    how much memory the 1B and 3B models take
//        roofline --traffic   what goes over arrays once, in one position of decoding, one mask step and one update of
//                             the 1B model: kernel calls and bytes of all that is neither a product nor attention
//        roofline --ranks 1024 [--queries 48] [--together 8] [--machine 8] [--link 450,50]
//                             the step on 1, 2, 4, ... ranks, the tables of docs/distributed.md: prompt groups of a
//                             step, of those a rank's that share a batch, ranks of a machine, and GB/s of a rank in
//                             each direction inside and between machines
//        roofline --ranks 4 --card 24 [--queries 48] [--link 25,25]
//                             what of a gradient ranks may keep on cards of so many GB
#include "ranks_report.hpp"

#include <functional>
#include <string_view>

namespace {

using namespace atmanrl;
using namespace atmanrl_bench;

using step_type = counted_step<bf16>;

struct phase {
  std::string name;
  phase_work done;
  double floor = 0, calls = 0, host_bytes = 0, waits = 0;
  std::map<std::string, kernel_count> kernels;
};

/// What `walk` counts on a fresh model.
phase counted(std::string name, step_shape const& shape, machine_limits const& limits,
              std::function<void(step_type&)> const& walk, model_config const& config = llama_3_2_3b(),
              bool skinny_products = false) {
  step_type step(config, shape, limits, skinny_products);
  walk(step);
  phase p{.name = std::move(name),
          .done = step.backend.total(),
          .floor = 0,
          .calls = 0,
          .host_bytes = step.backend.host_bytes(),
          .waits = step.backend.waits(),
          .kernels = step.backend.kernels()};
  for (auto const& [kernel, k] : p.kernels) {
    p.floor += k.floor;
    p.calls += k.calls;
  }
  return p;
}

phase operator+(phase a, phase const& b) {
  a.done = a.done + b.done;
  a.floor += b.floor;
  a.calls += b.calls;
  a.host_bytes += b.host_bytes;
  a.waits += b.waits;
  for (auto const& [name, k] : b.kernels) {
    kernel_count& mine = a.kernels[name];
    mine.kind = k.kind;
    mine.calls += k.calls;
    mine.done += k.done;
    mine.floor += k.floor;
    mine.memory_bound += k.memory_bound;
  }
  return a;
}

phase operator-(phase a, phase const& b) {
  auto const minus = [](work x, work const& y) { return x + -1.0 * y; };
  a.done = a.done + -1.0 * b.done;
  a.floor -= b.floor;
  a.calls -= b.calls;
  a.host_bytes -= b.host_bytes;
  a.waits -= b.waits;
  for (auto const& [name, k] : b.kernels) {
    kernel_count& mine = a.kernels[name];
    mine.calls -= k.calls;
    mine.done = minus(mine.done, k.done);
    mine.floor -= k.floor;
    mine.memory_bound -= k.memory_bound;
  }
  return a;
}

phase repeated(double n, phase p) {
  p.done = n * p.done;
  p.floor *= n;
  p.calls *= n;
  p.host_bytes *= n;
  p.waits *= n;
  for (auto& [name, k] : p.kernels) k = {k.kind, n * k.calls, n * k.done, n * k.floor, n * k.memory_bound};
  return p;
}

phase sampling_of(step_shape const& s, machine_limits const& limits) {
  return counted("sampling", s, limits, [&](step_type& x) { x.sample(s.completion); });
}
phase masks_of(step_shape const& s, machine_limits const& limits) {
  return counted("mask training", s, limits, [&](step_type& x) { x.train_masks(s.mask_steps); });
}
phase update_of(step_shape const& s, machine_limits const& limits) {
  return counted("policy update", s, limits, [&](step_type& x) { x.update(s.passes); });
}

void print_phases(std::vector<phase> const& phases) {
  fmt::print(
      "| phase | operations | of them attention | bytes | operations per byte | floor | kernel calls | to and from the "
      "host | copies to the host |\n"
      "|---|---|---|---|---|---|---|---|---|\n");
  for (phase const& p : phases) {
    work const all = p.done.all();
    fmt::print("| {} | {:.3g} | {:.1f} % | {:.3g} | {:.0f} | {:.3f} s | {:.0f} | {} | {:.0f} |\n", p.name,
               all.operations, 100 * p.done.attention.operations / all.operations, all.bytes,
               all.operations / all.bytes, p.floor, p.calls, format_bytes(std::size_t(p.host_bytes)), p.waits);
  }
}

void print_kernels(std::vector<phase> const& phases) {
  fmt::print(
      "| phase | kernel | calls | operations per byte | floor | share of the phase | bound by "
      "|\n|---|---|---|---|---|---|---|\n");
  for (phase const& p : phases) {
    std::vector<std::pair<std::string, kernel_count>> ranked(p.kernels.begin(), p.kernels.end());
    std::sort(ranked.begin(), ranked.end(),
              [](auto const& a, auto const& b) { return a.second.floor > b.second.floor; });
    for (auto const& [name, k] : ranked) {
      double const share = k.floor / p.floor, memory = k.memory_bound / k.floor;
      if (k.calls < 0.5 || share < 0.005) continue;
      fmt::print("| {} | `{}` | {:.0f} | {:.2g} | {:.4f} s | {:.1f} % | {} |\n", p.name, name, k.calls,
                 k.done.operations / k.done.bytes, k.floor, 100 * share,
                 memory > 0.99 ? "memory"
                 : memory < 0.01
                     ? "arithmetic"
                     : fmt::format("memory {:.0f} %, arithmetic {:.0f} %", 100 * memory, 100 - 100 * memory));
    }
  }
}

void print_savings(std::vector<std::pair<std::string, phase>> const& rows) {
  fmt::print("| | operations | bytes | floor | against the first line |\n|---|---|---|---|---|\n");
  for (auto const& [name, p] : rows) {
    work const all = p.done.all();
    fmt::print("| {} | {:.3g} | {:.3g} | {:.3f} s | {:.3g} |\n", name, all.operations, all.bytes, p.floor,
               p.floor / rows.front().second.floor);
  }
}

int print_work() {
  machine_limits const h100;
  step_shape const shape;
  step_shape answer_rows = shape;
  answer_rows.rows = mask_rows::answer_rows;
  phase const prefill = counted("prefill", shape, h100, [](step_type& x) { x.sample(1); });
  phase decoding = sampling_of(shape, h100) - prefill;
  decoding.name = "decoding";
  phase const masks = masks_of(shape, h100), update = update_of(shape, h100);
  phase few = masks_of(answer_rows, h100);
  few.name = "mask training, answer_rows";
  machine_limits tf32 = h100, bf16_gradients = h100;
  tf32.weight_gradients = 495e12;
  bf16_gradients.weight_gradients = h100.products;
  phase fast_update = update_of(shape, tf32), faster_update = update_of(shape, bf16_gradients);
  fast_update.name = "policy update, weight gradients in TF32";
  faster_update.name = "policy update, weight gradients in bf16";
  std::vector<phase> phases{prefill, decoding, masks, update};
  phase step = prefill + decoding + masks + update, short_step = prefill + decoding + few + update;
  step.name = "step";
  short_step.name = "step, answer_rows";

  fmt::print(
      "Llama-3.2-3B, bf16 weights, float activations, keys and values; {} prompt of {} tokens, {} rollouts of {};\n"
      "masks: pair, {} steps, {} + {} + {} tokens; {} passes of the update. Limits: {:.0f} Tops/s in products with\n"
      "weights, {:.0f} in float, {:.2f} TB/s.\n\n",
      shape.prompts, shape.prompt, shape.group, shape.completion, shape.mask_steps, shape.cot, shape.delimiter,
      shape.answer, shape.passes, h100.products * 1e-12, h100.arithmetic * 1e-12, h100.bandwidth * 1e-12);
  print_phases({prefill, decoding, masks, few, update, fast_update, faster_update, step, short_step});

  fmt::print("\nWhat the kernels are bound by\n\n");
  phases.insert(phases.begin() + 3, few);
  print_kernels(phases);

  // Every rollout with a prompt of its own, and every rollout alone.
  step_shape apart = shape, alone = shape;
  apart.prompts = shape.group, apart.group = 1;
  alone.group = 1;
  auto const eight = [&](phase const& p) { return repeated(double(shape.group), p); };
  step_shape many = shape, many_answer_rows = answer_rows;
  many.prompts = many_answer_rows.prompts = 8;
  auto const eighth = [&](phase const& p) { return repeated(1.0 / 8, p); };
  fmt::print("\nSampling\n\n");
  print_savings({{"prompt shared, rollouts in one batch", prefill + decoding},
                 {"a prompt for each rollout", sampling_of(apart, h100)},
                 {"one rollout after the other", eight(sampling_of(alone, h100))},
                 {"eight prompts with their rollouts in one batch, per prompt", eighth(sampling_of(many, h100))}});

  auto const from_the_start = [&](step_shape const& s) {
    return counted("", s, h100, [&](step_type& x) { x.train_masks_from_the_start(s.mask_steps); });
  };
  step_shape answer_alone = alone;
  answer_alone.rows = mask_rows::answer_rows;
  fmt::print("\nMask training, all_later\n\n");
  print_savings({{"prompt cached, masks packed", masks},
                 {"prompt computed anew in every step", from_the_start(shape)},
                 {"prompt cached, one mask after the other", eight(masks_of(alone, h100))},
                 {"neither", eight(from_the_start(alone))}});
  fmt::print("\nMask training, answer_rows\n\n");
  print_savings({{"prompt and chain of thought cached, masks packed", few},
                 {"one mask after the other", eight(masks_of(answer_alone, h100))},
                 {"all computed anew in every step", from_the_start(answer_rows)},
                 {"neither", eight(from_the_start(answer_alone))},
                 {"masks of eight prompts in one batch, per prompt", eighth(masks_of(many_answer_rows, h100))},
                 {"all_later instead, cached and packed", masks}});

  step_shape apart_at_once = apart, two = shape;
  apart_at_once.row_budget = index_t{1} << 20;
  two.row_budget = shape.prompt + 2 * shape.completion;
  fmt::print("\nPolicy update\n\n");
  print_savings({{"prompt shared, one pass over all rollouts", update},
                 {"a prompt for each rollout", update_of(apart_at_once, h100)},
                 {"micro-batches of two rollouts", update_of(two, h100)}});

  // The paper's step: 384 queries of 8 rollouts on 48 A100.
  // PyTorch computes its gradients in the weights' type.
  machine_limits const a100{
      .products = 312e12, .weight_gradients = 312e12, .arithmetic = 19.5e12, .bandwidth = 2.039e12};
  double const queries = 384, gpus = 48, steps = 160;
  auto const on_a100 = [&](std::string name, step_shape const& s, std::function<void(step_type&)> const& walk) {
    return std::pair(std::move(name), counted("", s, a100, walk));
  };
  std::vector<std::pair<std::string, phase>> plain{
      on_a100("sampling, a prompt for each rollout", apart, [&](step_type& x) { x.sample(shape.completion); }),
      on_a100("mask training from the first token on", shape,
              [&](step_type& x) { x.train_masks_from_the_start(shape.mask_steps); }),
      on_a100("policy update, a prompt for each rollout", apart_at_once,
              [&](step_type& x) { x.update(shape.passes); })};
  std::vector<std::pair<std::string, phase>> ours{
      on_a100("sampling", shape, [&](step_type& x) { x.sample(shape.completion); }),
      on_a100("mask training, all_later", shape, [&](step_type& x) { x.train_masks(shape.mask_steps); }),
      on_a100("policy update", shape, [&](step_type& x) { x.update(shape.passes); })};
  std::vector<std::pair<std::string, phase>> few_rows = ours;
  few_rows[1] =
      on_a100("mask training, answer_rows", answer_rows, [&](step_type& x) { x.train_masks(shape.mask_steps); });
  fmt::print(
      "\nEstimate for the paper: {:.0f} queries x {} rollouts a step, {:.0f} A100 ({:.0f} Tops/s, {:.2f} TB/s), {:.0f} "
      "steps; floors, not times\n\n"
      "| | operations a step | share | floor a step | floor of {:.0f} steps, GPU hours |\n|---|---|---|---|---|\n",
      queries, shape.group, gpus, a100.products * 1e-12, a100.bandwidth * 1e-12, steps, steps);
  for (auto const& way : {plain, ours, few_rows}) {
    double all = 0, seconds = 0;
    for (auto const& [name, p] : way) {
      all += p.done.all().operations;
      seconds += p.floor;
    }
    for (auto const& [name, p] : way)
      fmt::print("| {} | {:.3g} | {:.1f} % | {:.1f} s | {:.1f} |\n", name, queries * p.done.all().operations,
                 100 * p.done.all().operations / all, queries / gpus * p.floor, queries * steps * p.floor / 3600);
    fmt::print("| **together** | {:.3g} | | {:.1f} s | {:.1f} |\n", queries * all, queries / gpus * seconds,
               queries * steps * seconds / 3600);
  }
  return 0;
}

int print_memory() {
  fmt::print(
      "| model | trained | preset | weights | masters, gradient, moments | keys and values | activations | head | "
      "masks | peak | fits |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (auto const& [name, config] :
       {std::pair{"Llama-3.2-1B", llama_3_2_1b()}, std::pair{"Llama-3.2-3B", llama_3_2_3b()}}) {
    for (int const rank : {0, 16}) {
      for (auto const preset : {experiment_preset::demo, experiment_preset::paper}) {
        experiment_options o = experiment_options::of_preset(preset);
        o.dtype = weight_dtype::bf16;
        o.lora_rank = rank;
        o.prompts_per_step = 1;
        o.max_new_tokens = 400;
        o.eval_questions = 0;
        auto const m = counted_memory(config, o);
        std::string fits;
        for (int const gb : {24, 40, 80})
          if (double(m.all()) <= 1e9 * gb && fits.empty()) fits = fmt::format("{} GB", gb);
        fmt::print("| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", name,
                   rank ? fmt::format("LoRA, rank {}", rank) : "all parameters",
                   preset == experiment_preset::demo ? "demo" : "paper", format_bytes(m[memory_use::weights]),
                   format_bytes(m[memory_use::gradient] + m[memory_use::optimizer]), format_bytes(m[memory_use::cache]),
                   format_bytes(m[memory_use::activations]), format_bytes(m[memory_use::head]),
                   format_bytes(m[memory_use::masks]), format_bytes(m.all()), fits.empty() ? "none" : fits);
      }
    }
  }
  return 0;
}

}  // namespace

namespace {

/// Kernel calls of a phase of the 1B model, and the bytes of those that are neither products nor attention.
int print_traffic() {
  machine_limits const limits;
  step_shape later, rows;
  rows.rows = mask_rows::answer_rows;
  auto const walked = [&](std::string name, step_shape const& s, std::function<void(step_type&)> const& walk,
                          bool skinny_products = false) {
    return counted(std::move(name), s, limits, walk, llama_3_2_1b(), skinny_products);
  };
  auto const masks = [&](step_shape const& s, char const* name) {
    return walked(name, s, [](step_type& x) { x.train_masks(2); }) -
           walked(name, s, [](step_type& x) { x.train_masks(1); });
  };
  auto const decoding = [&](char const* name, bool skinny_products) {
    auto const sampled = [&](index_t tokens) {
      return walked(
          name, later, [=](step_type& x) { x.sample(tokens); }, skinny_products);
    };
    phase p = repeated(1 / 399.0, sampled(400) - sampled(1));
    p.name = name;
    return p;
  };
  std::vector<phase> const phases{
      decoding("a position of decoding", false),
      decoding("the same, --skinny-products", true),
      masks(later, "a mask step, all_later"),
      masks(rows, "a mask step, answer_rows"),
      walked("forward and backward of an update", later, [](step_type& x) { x.gradient(); }),
      walked("new weights", later, [](step_type& x) { x.new_weights(); })};
  fmt::print("| phase | kernel | calls | GB |\n|---|---|---|---|\n");
  for (phase const& p : phases) {
    double rest_calls = 0, rest_bytes = 0;
    for (auto const& [name, k] : p.kernels) {
      if (k.kind != work_kind::rest || k.calls == 0) continue;
      rest_calls += k.calls;
      rest_bytes += k.done.bytes;
      fmt::print("| {} | `{}` | {:.0f} | {:.3f} |\n", p.name, name, k.calls, k.done.bytes / 1e9);
    }
    fmt::print("| **{}** | **all of them, of {:.0f} kernel calls** | **{:.0f}** | **{:.2f}** |\n", p.name, p.calls,
               rest_calls, rest_bytes / 1e9);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string_view> const arguments(argv + 1, argv + argc);
  if (arguments.empty()) return print_work();
  if (arguments.size() == 1 && arguments[0] == "--memory") return print_memory();
  if (arguments.size() == 1 && arguments[0] == "--traffic") return print_traffic();
  if (arguments[0] == "--ranks")
    if (auto const o = ranks_options::from(arguments)) return print_ranks(*o);
  fmt::print(stderr,
             "roofline: cannot make sense of its arguments\nusage: roofline\n       roofline --memory\n       roofline "
             "--traffic\n"
             "       roofline --ranks MOST [--queries N] [--together N] [--machine RANKS] [--link GB/s,GB/s] "
             "[--card GB]\n");
  return 2;
}
