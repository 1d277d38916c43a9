// The estimate of a run's memory against what real steps take: byte for byte, because the same code asks for it.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/tasks/arithmetic.hpp>

#include <limits>

#include "catch.hpp"
#include "run_setting.hpp"
#include "strangers.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace memory_test {
namespace {

tokenizer arithmetic_words() { return tokenizer{byte_bpe(arithmetic_text::vocabulary())}; }

/// Samples tokens that the small tokenizer knows, whatever the model has, and never a delimiter: with one, chains would
/// be shorter than an estimate can know.
struct any_plain_token {
  int count = arithmetic_words().encode("####").front();
  int operator()(std::span<float const>, double, double u) const { return int(u * count); }
};

struct endless_traits : gsm8k_traits<> {
  using sampler = any_plain_token;
  using reward = rewards::saliency<>;
};

/// Holds memory of the model's backend that nothing else in the library would ask for.
struct hoarder {
  static constexpr std::string_view name = "hoarder";
  template <class Model>
  void operator()(step_rollouts& step, Model& model, std::span<float> out) {
    tensor<typename Model::backend_type, float, 2> hoard(model.backend(), {1 << 10, 2 << 10});
    strangers::width_and_calls{}(step, model, out);
  }
};

/// Nothing of it is the library's but the trainer.
struct strange_traits : endless_traits {
  using block = strangers::offset_block;
  using reward = hoarder;
  using optimizer = strangers::sign_momentum;
  using update_edit = strangers::short_sight;
  using loss = strangers::reinforce;
};

/// A model without stop tokens, so that every completion is as long as allowed.
model_config endless_config() {
  model_config c = random_config();
  c.hidden = 64, c.heads = 4, c.kv_heads = 2, c.head_dim = 16, c.ffn = 160;
  c.stop_ids.clear();
  return c;
}

/// SmolLM2-135M's extents with fewer layers, so that a step takes seconds.
model_config smollm2_config() {
  model_config c;
  c.layers = 4, c.hidden = 576, c.heads = 9, c.kv_heads = 3, c.head_dim = 64, c.ffn = 1536, c.vocab = 49152;
  c.max_positions = 2048;
  c.tied_head = true;
  return c;
}

experiment_options long_step() {
  experiment_options o;
  o.steps = 1;
  o.prompts_per_step = 2;
  o.group_size = 4;
  o.max_new_tokens = 120;
  o.mask.steps = 2;
  o.mask.scale = 10;
  o.no_delimiter = no_delimiter_policy::force;
  o.inner_passes = 1;
  o.eval_questions = 0;
  o.validate_every = 0;
  o.threads = 2;
  return o;
}

/// Real steps of a model with random weights, and what a walk says of them.
template <class Traits, class Model>
void check_estimate(experiment_options const& o, model_config const& c, completion_length length) {
  tokenizer const words = arithmetic_words();
  arithmetic const task;
  cpu_backend backend({.threads = o.threads});
  auto const made = [&](cpu_backend& b) { return Model(b, c, {}, detail::storage_of_matrices<Model>(o)); };
  {
    Model model = made(backend);
    std::vector<float> row;
    for (parameter_info const& p : model.layout().all()) {
      row.resize(std::size_t(p.columns));
      random_stream draw(std::uint64_t(p.offset), 3);
      for (index_t r = 0; r < p.rows; ++r) {
        for (float& x : row) x = p.is_vector() ? 1.0f : float(0.05 * (2 * draw.uniform() - 1));
        model.assign_rows(p, r, view<float const, 2>(row.data(), {1, p.columns}));
      }
    }
    model.set_kv_storage(o.kv_cache);
    if (o.lora_rank > 0) model.attach(o.lora(), 1);
    auto trainer = make_trainer<Traits>(model, words, task, o);
    for (int s = 0; s < o.steps; ++s) trainer.step();
  }
  auto const data = look_at_data(task, words, c, o);
  auto const m = estimate_memory<Traits, Model>(o, task, words, data, length, made);
  REQUIRE(m);
  INFO("measured " << backend.peak_bytes() << ", estimated " << m->peak() << ": " << described(m->by_use));
  CHECK(m->peak() == backend.peak_bytes());
}

void check_small(experiment_options const& o) {
  check_estimate<endless_traits, llama<cpu_backend>>(o, endless_config(), completion_length::longest);
}

template <class Traits = endless_traits, class Model = llama<cpu_backend>>
memory_estimate estimate_of(experiment_options const& o, int ranks = 1, model_config const& c = endless_config()) {
  tokenizer const words = arithmetic_words();
  arithmetic const task;
  return *estimate_memory<Traits, Model>(
      o, task, words, look_at_data(task, words, c, o), completion_length::longest,
      [&](cpu_backend& b) { return Model(b, c, {}, detail::storage_of_matrices<Model>(o)); }, ranks);
}

/// Word problems of which one is too long for any model here.
struct one_long_item : arithmetic {
  std::uint64_t at = 0;
  explicit one_long_item(std::uint64_t i) : at(i) {}
  task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    task_item item = arithmetic::training_item(seed, index);
    if (index == at) item.id = "the long one", item.question += std::string(9000, '9');
    return item;
  }
};

}  // namespace

TEST_CASE("memory: a prompt that is too long is found before the run begins, beyond the steps that are walked, too") {
  tokenizer const words = arithmetic_words();
  experiment_options o;
  o.prompts_per_step = 2;
  o.eval_questions = 0;
  auto const refused = [&](int steps, int rounds, std::uint64_t at) {
    o.steps = steps;
    o.dynamic_sampling_rounds = rounds;
    try {
      look_at_data(one_long_item(at), words, endless_config(), o);
    } catch (usage_error const& e) {
      CHECK_THAT(e.what(), ATMANRL_CONTAINS("the prompt of the long one has"));
      return true;
    }
    return false;
  };
  CHECK(refused(800, 0, 1500));
  CHECK_FALSE(refused(700, 0, 1500));
  CHECK(refused(2, 3, first_replacement_item + 11));
  CHECK_FALSE(refused(2, 2, first_replacement_item + 11));
  CHECK(refused(2000000000, 2000000000, 19999));
  CHECK_FALSE(refused(2000000000, 0, 20000));  // no run looks at all numbers for ever
}

TEST_CASE("memory: the estimate is what a step of a block, a reward, a loss and an optimizer of one's own takes") {
  model_config c = endless_config();
  c.architecture = "offset";
  using model = detail::model_of_traits<strange_traits, float>::type;
  experiment_options o = long_step();
  check_estimate<strange_traits, model>(o, c, completion_length::longest);
  o.recompute = true;  // so that the reward's tensor is the larger part
  check_estimate<strange_traits, model>(o, c, completion_length::longest);
}

TEST_CASE(
    "memory: the estimate is what a step takes in every storage of keys and values, with recomputation and without") {
  for (bool const recompute : {false, true}) {
    for (kv_storage const storage : {kv_storage::full, kv_storage::bf16}) {
      CAPTURE(recompute, int(storage));
      experiment_options o = long_step();
      o.recompute = recompute;
      o.kv_cache = storage;
      check_small(o);
    }
  }
}

TEST_CASE("memory: the estimate is what a step takes when the masks are the largest part") {
  experiment_options o = long_step();
  o.mask.shape = mask_shape::pair;
  o.mask.rows = mask_rows::all_later;
  check_small(o);
  o.recompute = true;
  check_small(o);
  o.mask.sharing = mask_sharing::per_head;
  o.mask.objective = objectives::kl_to_unmasked{};
  check_small(o);
}

TEST_CASE("memory: the estimate is what a step takes in the shape of SmolLM2, all parameters and adapters alone") {
  experiment_options o = long_step();
  o.max_new_tokens = 60;
  check_estimate<endless_traits, llama<cpu_backend>>(o, smollm2_config(), completion_length::longest);
  o.lora_rank = 8;
  check_estimate<endless_traits, llama<cpu_backend>>(o, smollm2_config(), completion_length::longest);
  o.kv_cache = kv_storage::bf16;
  o.recompute = true;
  o.dtype = weight_dtype::bf16;
  check_estimate<endless_traits, llama<cpu_backend>>(o, smollm2_config(), completion_length::longest);
}

TEST_CASE("memory: what is made of other numbers takes other memory, part by part") {
  experiment_options const o = long_step();
  auto const usual = estimate_of(o).by_use;
  auto const with = [&](auto&& change) {
    experiment_options changed = o;
    change(changed);
    return estimate_of(changed).by_use;
  };
  auto const half = with([](auto& x) { x.kv_cache = kv_storage::bf16; });
  CHECK(2 * half[memory_use::cache] == usual[memory_use::cache]);
  CHECK(with([](auto& x) { x.recompute = true; })[memory_use::activations] < usual[memory_use::activations]);
  CHECK(with([](auto& x) { x.activation_mib = 1; })[memory_use::activations] < usual[memory_use::activations]);
  CHECK(with([](auto& x) { x.dtype = weight_dtype::bf16; })[memory_use::weights] < usual[memory_use::weights]);
  // Master weights, gradient, and one of two groups' gradients that waits; two moments, or one.
  auto const parameters = std::size_t(parameter_layout(endless_config(), standard_kind(endless_config())).size());
  CHECK(usual[memory_use::gradient] == 12 * parameters);
  CHECK(usual[memory_use::optimizer] == 8 * parameters);
  CHECK(with([](auto& x) { x.optimizer = "lion"; })[memory_use::optimizer] == 4 * parameters);
}

TEST_CASE("memory: adapters take a gradient and moments for themselves alone, and their packed factors") {
  experiment_options o = long_step(), lora = o;
  lora.lora_rank = 2;
  auto const full = estimate_of(o).by_use, small = estimate_of(lora).by_use;
  model_config const c = endless_config();
  auto const adapters = std::size_t(parameter_layout(c, standard_kind(c), lora.lora()).size());
  CHECK(small[memory_use::gradient] == 12 * adapters);
  CHECK(small[memory_use::optimizer] == 8 * adapters);
  cpu_backend backend({.threads = 1});
  llama<cpu_backend> model(backend, c);
  std::size_t const before = backend.allocated_bytes();
  model.attach(lora.lora(), 1);
  CHECK(backend.allocated_bytes() - before == small[memory_use::weights] - full[memory_use::weights]);
}

TEST_CASE("memory: of several ranks each has its share of the step and a slice of what is trained") {
  experiment_options o = long_step();
  o.prompts_per_step = 4;
  auto const alone = estimate_of(o).by_use, shared = estimate_of(o, 2).by_use;
  CHECK(shared[memory_use::cache] < alone[memory_use::cache]);
  CHECK(shared[memory_use::weights] == alone[memory_use::weights]);
  CHECK(shared[memory_use::optimizer] < alone[memory_use::optimizer]);
}

TEST_CASE("memory: a walk takes no memory of a large model") {
  model_config c;
  c.layers = 28, c.hidden = 3072, c.heads = 24, c.kv_heads = 8, c.head_dim = 128, c.ffn = 8192, c.vocab = 128256;
  c.max_positions = 4096, c.tied_head = true;
  std::size_t const before = peak_process_bytes();
  auto const m = estimate_of(long_step(), 1, c).by_use;
  CHECK(m.all() > std::size_t{60} << 30);
  CHECK(peak_process_bytes() - before < std::size_t{256} << 20);
}

TEST_CASE("memory: numbers that no machine has memory for are known before a walk") {
  model_config const c = random_config();
  auto const bytes = [&](auto&& change) {
    experiment_options o;
    change(o);
    return sampling_bytes(c, o, 1);
  };
  std::size_t const absurd = std::size_t{1} << 40;
  int const most = std::numeric_limits<int>::max();
  CHECK(bytes([](auto&) {}) < (std::size_t{1} << 31));
  CHECK(bytes([&](auto& o) { o.prompts_per_step = 2000000000; }) > absurd);
  CHECK(bytes([&](auto& o) { o.group_size = 2000000000; }) > absurd);
  CHECK(bytes([&](auto& o) { o.prompts_per_step = o.group_size = most; }) > absurd);
  CHECK(bytes([&](auto& o) { o.eval_samples = most; }) > absurd);
  CHECK(bytes([&](auto& o) { o.max_new_tokens = most; }) < absurd);  // bounded by the model's positions
  CHECK(evaluation_bytes(c, 60, 1, 4, 160) == 4u * ((60 + 4 * 160) * 2 * 2 * 1 * 8 + 4u * std::size_t(c.vocab)));
  CHECK(evaluation_bytes(c, 60, most, most, most) > absurd);
}

TEST_CASE("memory: passes have as many rows as fit --activation-mib, and 64 at least") {
  model_config const c = endless_config();
  auto const budgets = [&](experiment_options const& o) {
    return budgets_of(c, llama<cpu_backend>::kept_numbers(c), o);
  };
  experiment_options o = long_step();
  auto const wide = budgets(o);
  CHECK(wide.update == 4096);
  o.mask.shape = mask_shape::pair;
  o.mask.rows = mask_rows::all_later;
  o.activation_mib = 1;
  auto const narrow = budgets(o);
  CHECK(narrow.update < wide.update);
  CHECK(narrow.update >= 64);
  CHECK(narrow.masks < wide.masks);
  o.mask.sharing = mask_sharing::per_head;
  CHECK(budgets(o).masks < narrow.masks);
  o.recompute = true;
  CHECK(budgets(o).update > narrow.update);
}

TEST_CASE("memory: of several ranks the estimate has what each keeps of a gradient, and one rank keeps it whole") {
  model_config const c = smollm2_config();
  auto const n = std::size_t(parameter_layout(c, standard_kind(c)).size()), embedding = std::size_t(c.vocab * c.hidden),
             layer =
                 std::size_t(2 * c.hidden + 2 * c.hidden * (c.heads + c.kv_heads) * c.head_dim + 3 * c.hidden * c.ffn),
             piece = std::size_t(1) << 20;
  experiment_options o = long_step();
  o.max_new_tokens = 20;
  o.prompts_per_step = 16;  // four rounds, of which the third leaves two slices
  auto const held = [&](gradient_memory_options kept, int ranks) {
    o.gradient = kept;
    return estimate_of(o, ranks, c).by_use[memory_use::gradient] / sizeof(float);
  };
  // Of the rank that takes most in all, whichever that is: the slice's master weights, and what the sum needs; beside
  // them a leaf's pass allocates an array of the vocabulary's length. When a rank takes most, no layer need be at hand.
  auto const is_of_a_rank = [&](std::size_t numbers, std::size_t least, std::size_t more) {
    for (int r = 0; r < 4; ++r) {
      std::size_t const all = 3 * comm::slice_of(n, 4, r).count + 4 * piece + least;
      if (numbers >= all && numbers <= all + more) return true;
    }
    return false;
  };
  auto const vocab = std::size_t(c.vocab);
  CHECK(is_of_a_rank(held({gradient_memory::slices}, 4), n, vocab));
  CHECK(is_of_a_rank(held({gradient_memory::layers}, 4), embedding, layer + vocab));
  CHECK(held({gradient_memory::layers}, 1) == held({}, 1));
}

TEST_CASE("memory: the process's peak is known and sizes are readable") {
  CHECK(peak_process_bytes() > (std::size_t{1} << 20));
  CHECK(format_bytes(std::size_t(1.5 * (1 << 30))) == "1.50 GiB");
  CHECK(format_bytes(std::size_t(12.25 * (1 << 20))) == "12.2 MiB");
  memory_by_use m;
  m[memory_use::weights] = std::size_t{3} << 29;
  m[memory_use::masks] = std::size_t{1} << 29;
  CHECK(described(m) == "2.00 GiB = weights 1.50 GiB + masks 512.0 MiB");
}

}  // namespace memory_test
