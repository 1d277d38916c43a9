// Steps after the first find their memory: the backend is not asked for more.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/sft.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"

using namespace atmanrl_test;

namespace allocation_test {
namespace {

/// Nothing ends a completion, so that all steps have the same extents.
model_config endless_config() {
  model_config c = toy_config();
  c.stop_ids.clear();
  return c;
}

struct setting {
  kv_storage storage = kv_storage::full;
  bool recompute = false, adapters = false;
  double beta = 0;
  mask_options masks = mask_options::recommended();
};

/// Allocations of each of four steps.
template <class W>
std::vector<std::size_t> allocations(setting const& s, int threads) {
  cpu_backend backend({.threads = threads});
  auto model = random_model<cpu_backend, W>(backend, endless_config(), 3, 0.3);
  model.set_kv_storage(s.storage);
  if (s.adapters) model.attach({.rank = 2, .alpha = 4}, 5);
  mask_options masks = s.masks;
  masks.scale = 25;
  masks.steps = 3;
  masks.recompute = s.recompute;
  toy_tokenizer const words;
  toy_task const task;
  grpo trainer(model, words, task, rewards::saliency(masks),
               {.prompts_per_step = 2,
                .group_size = 4,
                .max_new_tokens = 12,
                .row_budget = 60,
                .recompute = s.recompute,
                .learning_rate = 1e-9,
                .no_delimiter = no_delimiter_policy::force},
               advantages::mean_centered{}, losses::add_kl(losses::by_name("grpo", {}), "k3", s.beta));
  std::vector<std::size_t> out;
  for (int i = 0; i < 4; ++i) {
    // The same questions; the rate is too small to change what is sampled, the drawn numbers are another step's.
    trainer.set_steps(0);
    std::size_t const before = backend.allocations();
    trainer.step();
    out.push_back(backend.allocations() - before);
  }
  return out;
}

void check_quiet(std::vector<std::size_t> const& steps) {
  CHECK(steps.front() > 0);
  CHECK(std::vector(steps.begin() + 1, steps.end()) == std::vector<std::size_t>(steps.size() - 1, 0));
}

}  // namespace

TEMPLATE_TEST_CASE("memory: sampling, mask training and updates allocate nothing after the first step", "", float,
                   bf16) {
  for (int const threads : {1, 2}) {
    CAPTURE(threads);
    check_quiet(allocations<TestType>({}, threads));
    check_quiet(allocations<TestType>({.storage = kv_storage::bf16, .recompute = true}, threads));
  }
}

TEST_CASE(
    "memory: adapters, a reference model, masks of pairs, divergences and own masks per head allocate nothing after "
    "the first step") {
  check_quiet(allocations<float>({.adapters = true, .beta = 0.1}, 1));
  setting s;
  s.masks.shape = mask_shape::pair;
  s.masks.rows = mask_rows::all_later;
  s.masks.objective = objectives::kl_to_unmasked{};
  s.masks.sharing = mask_sharing::per_head;
  check_quiet(allocations<float>(s, 1));
}

TEST_CASE("memory: one space serves sampling, masks and updates") {
  cpu_backend backend({.threads = 1});
  auto model = random_model<cpu_backend, float>(backend, endless_config(), 3, 0.3);
  std::vector<std::vector<int>> const prompts{random_tokens(9, model.config().vocab, 1)};
  generate_options o;
  o.group_size = 4;
  o.max_new_tokens = 10;
  generate(model, std::span(prompts), o, samplers::multinomial{});
  std::size_t const before = backend.allocated_bytes();
  auto const space = model.borrow_pass(10);
  CHECK(backend.allocated_bytes() == before);
  auto const beside = model.borrow_pass(10);  // while the first one is lent
  CHECK(backend.allocated_bytes() > before);
}

TEST_CASE("memory: supervised steps allocate nothing after the first") {
  cpu_backend backend({.threads = 1});
  auto model = random_model<cpu_backend, float>(backend, endless_config(), 3, 0.3);
  std::vector<sft_example> batch;
  for (unsigned i = 0; i < 6; ++i) batch.push_back({random_tokens(4, 21, i), random_tokens(7, 21, 10 + i)});
  sft_trainer trainer(model, {.steps = 5, .batch_size = 6, .micro_batches = 2, .recompute = true});
  trainer.step(batch);
  std::size_t const before = backend.allocations();
  trainer.step(batch);
  trainer.evaluate(batch);
  CHECK(backend.allocations() == before);
}

}  // namespace allocation_test
