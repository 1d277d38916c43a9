#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/experiment/reward_parts.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/tasks/arithmetic.hpp>

#include "catch.hpp"
#include "run_setting.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace memory_test {
namespace {

/// A model without stop tokens, so that every completion is as long as allowed.
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

/// SmolLM2-135M's extents with fewer layers, so that a step takes seconds.
model_config smollm2_config() {
  model_config c;
  c.layers = 4;
  c.hidden = 576;
  c.heads = 9;
  c.kv_heads = 3;
  c.head_dim = 64;
  c.ffn = 1536;
  c.vocab = 49152;
  c.max_positions = 2048;
  c.tied_head = true;
  return c;
}

/// Samples tokens that the small tokenizer knows, whatever the model has, and never a delimiter: with one, chains would
/// be shorter than an estimate can know.
struct any_plain_token {
  int count;
  explicit any_plain_token(tokenizer const& words) : count(words.encode("####").front()) {}
  int operator()(std::span<float const>, double, double u) const { return int(u * count); }
};

struct measured {
  std::size_t peak;
  memory_estimate estimate;
};

template <class Model, class SamplerT>
measured steps(Model& model, tokenizer const& words, experiment_options o, int count, SamplerT const& sampler) {
  arithmetic const task;
  model_config const& c = model.config();
  model.set_kv_storage(o.kv_cache);
  if (o.lora_rank > 0) model.attach(o.lora(), 1);
  auto const budgets = budgets_of(c, llama<cpu_backend, float>::kept_numbers(c), o);
  o.threads = model.backend().threads();
  experiment_options adjusted = o;
  adjusted.mask.row_budget = budgets.masks;
  adjusted.mask.recompute = o.recompute;
  grpo trainer(model, words, task, make_reward<rewards::saliency<>>(adjusted),
               {.prompts_per_step = o.prompts_per_step,
                .group_size = o.group_size,
                .max_new_tokens = o.max_new_tokens,
                .row_budget = budgets.update,
                .recompute = o.recompute,
                .learning_rate = 1e-6,
                .no_delimiter = o.no_delimiter},
               advantages::mean_centered{}, losses::grpo{}, sampler);
  o.steps = count;
  run_shape const shape = shape_of(task, words, c, o);
  using W = typename Model::weight_type;
  for (int i = 0; i < count; ++i) trainer.step();
  return {model.backend().peak_bytes(), estimate_memory<llama<cpu_backend, W>>(c, o, shape)};
}

measured small_step(experiment_options const& o) {
  scratch_folder const folder;
  write_random_model(folder / "model", endless_config(), 0.1);
  cpu_backend backend({.threads = 1});
  auto model = llama<cpu_backend>::load(backend, folder / "model");
  tokenizer const words = tokenizer::load(folder / "model");
  return steps(model, words, o, 2, any_plain_token(words));
}

template <class W>
measured smollm2_step(experiment_options const& o) {
  cpu_backend backend({.threads = 2});
  llama<cpu_backend, W> model(backend, smollm2_config());
  std::vector<float> row;
  for (parameter_info const& p : model.layout().all()) {
    row.resize(std::size_t(p.columns));
    random_stream draw(std::uint64_t(p.offset), 3);
    for (index_t r = 0; r < p.rows; ++r) {
      for (float& x : row) x = p.is_vector() ? 1.0f : float(0.05 * (2 * draw.uniform() - 1));
      model.assign_rows(p, r, view<float const, 2>(row.data(), {1, p.columns}));
    }
  }
  tokenizer const words{byte_bpe(arithmetic_text::vocabulary())};
  return steps(model, words, o, 1, any_plain_token(words));
}

experiment_options long_step() {
  experiment_options o;
  o.prompts_per_step = 2;
  o.group_size = 4;
  o.max_new_tokens = 120;
  o.mask.steps = 2;
  o.mask.scale = 10;
  o.no_delimiter = no_delimiter_policy::force;
  o.eval_questions = 0;
  o.validate_every = 0;
  return o;
}

void check_close(measured const& m) {
  memory_estimate const& e = m.estimate;
  INFO("measured " << m.peak << ", estimated " << e.peak() << " = weights " << e.weights << " + optimizer "
                   << e.optimizer << " + cache " << e.cache << " + activations " << e.activations << " + head "
                   << e.head << " + masks " << e.masks << " + scratch " << e.scratch);
  CHECK(double(e.peak()) > 0.9 * double(m.peak));
  CHECK(double(e.peak()) < 1.1 * double(m.peak));
}

}  // namespace

TEST_CASE("memory: the estimate is within 10 % of what a step takes when the update is the largest part") {
  check_close(small_step(long_step()));
}

TEST_CASE("memory: the estimate is within 10 % with 16-bit keys and values, with recomputation and with both") {
  for (bool const recompute : {false, true}) {
    for (kv_storage const storage : {kv_storage::full, kv_storage::bf16}) {
      CAPTURE(recompute, int(storage));
      experiment_options o = long_step();
      o.recompute = recompute;
      o.kv_cache = storage;
      check_close(small_step(o));
    }
  }
}

TEST_CASE("memory: the estimate is within 10 % when the masks are the largest part") {
  experiment_options o = long_step();
  o.mask.shape = mask_shape::pair;
  o.mask.rows = mask_rows::all_later;
  check_close(small_step(o));
  o.recompute = true;
  check_close(small_step(o));
}

TEST_CASE(
    "memory: the estimate is within 10 % with masks of their own for layers and heads and the logits of a divergence") {
  experiment_options o = long_step();
  o.mask.shape = mask_shape::pair;
  o.mask.rows = mask_rows::all_later;
  o.mask.sharing = mask_sharing::per_head;
  o.mask.objective = objectives::kl_to_unmasked{};
  check_close(small_step(o));
  run_shape const shape{.longest_prompt = 40, .label_tokens = 4};
  model_config const c = endless_config();
  auto const masks = [&] { return estimate_memory<llama<cpu_backend, float>>(c, o, shape).masks; };
  std::size_t const per_head = masks();
  index_t const rows = budgets_of(c, llama<cpu_backend, float>::kept_numbers(c), o).masks;
  o.mask.layers = {1};
  CHECK(masks() < per_head);
  o.mask.sharing = mask_sharing::all;
  CHECK(masks() < per_head);
  o.activation_mib = 1;
  o.mask.layers = {};
  index_t const narrow = budgets_of(c, llama<cpu_backend, float>::kept_numbers(c), o).masks;
  o.mask.sharing = mask_sharing::per_head;
  CHECK(budgets_of(c, llama<cpu_backend, float>::kept_numbers(c), o).masks < narrow);
  CHECK(rows > narrow);
}

TEST_CASE(
    "memory: the estimate is within 10 % for the shape of SmolLM2, all parameters and adapters alone, in all "
    "storages") {
  experiment_options o = long_step();
  o.max_new_tokens = 60;
  check_close(smollm2_step<float>(o));
  o.lora_rank = 8;
  check_close(smollm2_step<float>(o));
  o.kv_cache = kv_storage::bf16;
  o.recompute = true;
  check_close(smollm2_step<bf16>(o));
}

TEST_CASE("memory: the estimate is within 10 % of the demo's, whose model ends its completions itself") {
  std::filesystem::path const folder =
      std::filesystem::path(ATMANRL_FIXTURES) / ".." / ".." / "examples" / "models" / "tiny";
  experiment_options o;
  o.eval_questions = 0;  // what they take is less than the rollouts', and minutes
  o.validate_every = 0;
  o.mask.scale = 25;
  o.mask.steps = 2;
  o.inner_passes = 1;
  cpu_backend backend({.threads = 2});
  auto model = llama<cpu_backend>::load(backend, folder);
  check_close(steps(model, tokenizer::load(folder), o, 2, samplers::multinomial{}));
}

TEST_CASE("memory: a smaller limit for activations makes passes shorter, not fewer than 64 rows") {
  model_config const c = endless_config();
  experiment_options o = long_step();
  auto const wide = budgets_of(c, llama<cpu_backend, float>::kept_numbers(c), o);
  o.activation_mib = 1;
  auto const narrow = budgets_of(c, llama<cpu_backend, float>::kept_numbers(c), o);
  CHECK(wide.update == 4096);
  CHECK(narrow.update < wide.update);
  CHECK(narrow.update >= 64);
  CHECK(narrow.masks < wide.masks);
  run_shape const shape{.longest_prompt = 40, .label_tokens = 4};
  experiment_options big = long_step();
  CHECK(estimate_memory<llama<cpu_backend, float>>(c, o, shape).activations <
        estimate_memory<llama<cpu_backend, float>>(c, big, shape).activations);
  big.recompute = true;
  CHECK(estimate_memory<llama<cpu_backend, float>>(c, big, shape).activations <
        estimate_memory<llama<cpu_backend, float>>(c, long_step(), shape).activations);
  o.recompute = true;
  CHECK(budgets_of(c, llama<cpu_backend, float>::kept_numbers(c), o).update > narrow.update);
  big.kv_cache = kv_storage::bf16;
  CHECK(2 * estimate_memory<llama<cpu_backend, float>>(c, big, shape).cache ==
        estimate_memory<llama<cpu_backend, float>>(c, long_step(), shape).cache);
  CHECK(estimate_memory<llama<cpu_backend, bf16>>(c, o, shape).weights <
        estimate_memory<llama<cpu_backend, float>>(c, o, shape).weights);
  CHECK(estimate_memory<llama<cpu_backend, float>>(c, o, shape).optimizer ==
        20 * std::size_t(parameter_layout(c, standard_kind(c)).size()));  // one of two groups' gradients waits
  // Of four ranks each has a gradient and one that waits, and of the rest its slice: here all or none of it.
  o.prompts_per_step = 4;
  auto const alone = estimate_memory<llama<cpu_backend, float>>(c, o, shape),
             shared = estimate_memory<llama<cpu_backend, float>>(c, o, shape, 4);
  CHECK(shared.cache < alone.cache);
  CHECK(shared.weights == alone.weights);
  CHECK(shared.optimizer < alone.optimizer + 4 * sizeof(float) * gradient_sum<cpu_backend, float>::default_piece);
}

TEST_CASE("memory: of several ranks the estimate has what each keeps of a gradient, and one rank keeps it whole") {
  model_config const c = smollm2_config();
  auto const n = std::size_t(parameter_layout(c, standard_kind(c)).size()), slice = comm::slice_of(n, 4, 0).count,
             embedding = std::size_t(c.vocab * c.hidden),
             layer =
                 std::size_t(2 * c.hidden + 2 * c.hidden * (c.heads + c.kv_heads) * c.head_dim + 3 * c.hidden * c.ffn),
             piece = std::size_t(1) << 20;
  experiment_options o = long_step();
  o.prompts_per_step = 16;  // four rounds, of which the third leaves two slices
  auto const optimizer = [&](gradient_memory_options kept, int ranks) {
    o.gradient = kept;
    return estimate_memory<llama<cpu_backend, float>>(c, o, {.longest_prompt = 40}, ranks).optimizer / sizeof(float);
  };
  CHECK(optimizer({gradient_memory::slices}, 4) == 3 * slice + n + 2 * slice + 4 * piece);
  CHECK(optimizer({gradient_memory::layers}, 4) == 3 * slice + embedding + layer + 2 * slice + 4 * piece);
  CHECK(optimizer({gradient_memory::layers, true}, 4) == 3 * slice + embedding + layer + (1 + 2) * slice + 6 * piece);
  CHECK(optimizer({gradient_memory::layers}, 1) == optimizer({}, 1));
  // A group of more rows than a pass has waits on the host, which is the CPU's own memory.
  o.group_size = 40;
  CHECK(optimizer({gradient_memory::layers}, 4) == 3 * slice + embedding + layer + n + 2 * slice + 4 * piece);
}

TEST_CASE("memory: the process's peak is known and sizes are readable") {
  CHECK(peak_process_bytes() > (std::size_t{1} << 20));
  CHECK(format_bytes(std::size_t(1.5 * (1 << 30))) == "1.50 GiB");
  CHECK(format_bytes(std::size_t(12.25 * (1 << 20))) == "12.2 MiB");
}

}  // namespace memory_test
