#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/experiment/reward_parts.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/tasks/arithmetic.hpp>

#include "catch.hpp"
#include "run_setting.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

/// A model without stop tokens, so that every completion is as long as allowed and the estimate is no mere bound.
model_config endless_config() {
  model_config c = random_config();
  c.hidden = 64;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.ffn = 160;
  c.stop_ids.clear();
  return c;
}

struct measured {
  std::size_t peak, estimate;
};

measured one_step(experiment_options const& o) {
  scratch_folder const folder;
  write_random_model(folder / "model", endless_config(), 0.1);
  cpu_backend backend({.threads = 1});
  auto model = llama<cpu_backend>::load(backend, folder / "model");
  tokenizer const words = tokenizer::load(folder / "model");
  arithmetic const task;
  auto const budgets = budgets_of(model.config(), o);
  experiment_options adjusted = o;
  adjusted.mask.row_budget = budgets.masks;
  grpo trainer(model, words, task, make_reward<rewards::saliency<>>(adjusted),
               {.prompts_per_step = o.prompts_per_step, .group_size = o.group_size, .max_new_tokens = o.max_new_tokens, .row_budget = budgets.update,
                .no_delimiter = o.no_delimiter});
  run_shape shape{.longest_prompt = 0, .label_tokens = 0};
  for (int i = 0; i < o.prompts_per_step; ++i) {
    task_item const item = task.training_item(0, std::uint64_t(i));
    shape.longest_prompt = std::max(shape.longest_prompt, index_t(task.prompt(item, words).size()));
    shape.label_tokens = std::max(shape.label_tokens, index_t(words.encode(delimiter_text(task) + item.answer).size()));
  }
  trainer.step();
  return {backend.peak_bytes(), estimate_memory<cpu_backend, float>(model.config(), o, shape).peak()};
}

experiment_options long_step() {
  experiment_options o;
  o.prompts_per_step = 2;
  o.group_size = 4;
  o.max_new_tokens = 120;
  o.mask.steps = 2;
  o.mask.scale = 10;
  o.no_delimiter = no_delimiter_policy::force;
  return o;
}

void check_close(measured const& m) {
  INFO("measured " << m.peak << ", estimated " << m.estimate);
  CHECK(double(m.estimate) > 0.9 * double(m.peak));
  CHECK(double(m.estimate) < 1.25 * double(m.peak));
}

}  // namespace

TEST_CASE("memory: the estimate is near what a step takes when the update is the largest part") { check_close(one_step(long_step())); }

TEST_CASE("memory: the estimate is near what a step takes when the masks are the largest part") {
  experiment_options o = long_step();
  o.mask.shape = mask_shape::pair;
  o.mask.rows = mask_rows::all_later;
  check_close(one_step(o));
}

TEST_CASE("memory: masks of their own for layers and heads are counted, and so are the logits of a divergence") {
  experiment_options o = long_step();
  o.mask.shape = mask_shape::pair;
  o.mask.rows = mask_rows::all_later;
  o.mask.sharing = mask_sharing::per_head;
  o.mask.objective = mask_objective::kl_to_unmasked;
  // Most of it are parameters here, and their copies on the host are no tensors.
  measured const m = one_step(o);
  CHECK(m.estimate > m.peak);
  CHECK(double(m.estimate) < 1.5 * double(m.peak));
  run_shape const shape{.longest_prompt = 40, .label_tokens = 4};
  model_config const c = endless_config();
  auto const saliency = [&] { return estimate_memory<cpu_backend, float>(c, o, shape).saliency; };
  std::size_t const per_head = saliency();
  index_t const rows = budgets_of(c, o).masks;
  o.mask.layers = {1};
  CHECK(saliency() < per_head);
  o.mask.sharing = mask_sharing::all;
  CHECK(saliency() < per_head);
  o.activation_mib = 1;
  o.mask.layers = {};
  index_t const narrow = budgets_of(c, o).masks;
  o.mask.sharing = mask_sharing::per_head;
  CHECK(budgets_of(c, o).masks < narrow);
  CHECK(rows > narrow);
}

TEST_CASE("memory: a smaller limit for activations makes passes shorter, not fewer than 64 rows") {
  model_config const c = endless_config();
  experiment_options o = long_step();
  auto const wide = budgets_of(c, o);
  o.activation_mib = 1;
  auto const narrow = budgets_of(c, o);
  CHECK(wide.update == 4096);
  CHECK(narrow.update < wide.update);
  CHECK(narrow.update >= 64);
  CHECK(narrow.masks < wide.masks);
  run_shape const shape{.longest_prompt = 40, .label_tokens = 4};
  experiment_options big = long_step();
  CHECK(estimate_memory<cpu_backend, float>(c, o, shape).update < estimate_memory<cpu_backend, float>(c, big, shape).update);
  CHECK(estimate_memory<cpu_backend, bf16>(c, o, shape).weights < estimate_memory<cpu_backend, float>(c, o, shape).weights);
  CHECK(estimate_memory<cpu_backend, float>(c, o, shape).optimizer == 16 * std::size_t(parameter_layout(c).size()));
}

TEST_CASE("memory: the process's peak is known and sizes are readable") {
  CHECK(peak_process_bytes() > (std::size_t{1} << 20));
  CHECK(format_bytes(std::size_t(1.5 * (1 << 30))) == "1.50 GiB");
  CHECK(format_bytes(std::size_t(12.25 * (1 << 20))) == "12.2 MiB");
}
