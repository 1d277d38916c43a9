// Mask training by CUDA graphs: the bits of the eager steps, and what a step asks of the device.
#include "catch.hpp"
#include "cuda/launches_of.hpp"
#include "cuda/small_device_model.hpp"
#include "saliency/items.hpp"

using namespace atmanrl_test;

namespace {

/// Items whose masks take different numbers of steps to restore the answer.
template <class W>
std::vector<saliency_result> trained(bool graphs, mask_options const& o, gradient_quantiles* quantiles = nullptr) {
  cuda_backend device({.graphs = graphs});
  model_config const config = device_config();
  auto model = random_model<cuda_backend, W>(device, config);
  auto const items = ragged_items(config.vocab);
  return train_masks(model, std::span<saliency_item const>(views_of(items)), o, quantiles);
}

template <class W>
std::vector<saliency_result> same_bits(mask_options const& o) {
  gradient_quantiles of_graphs, of_eager;
  auto const graphs = trained<W>(true, o, &of_graphs), eager = trained<W>(false, o, &of_eager);
  REQUIRE(graphs.size() == eager.size());
  CHECK(of_graphs.median == of_eager.median);
  for (std::size_t i = 0; i < eager.size(); ++i) {
    INFO("mask " << i);
    CHECK(graphs[i].mask == eager[i].mask);
    CHECK(graphs[i].steps == eager[i].steps);
    CHECK(graphs[i].ce_start == eager[i].ce_start);
    CHECK(graphs[i].ce_end == eager[i].ce_end);
    CHECK(graphs[i].loss_end == eager[i].loss_end);
    CHECK((eager[i].mask != std::vector<float>(eager[i].mask.size(), float(o.initial()))) == (eager[i].steps > 0));
  }
  return eager;
}

/// Half the sum of squares, which is not linear.
struct crooked {
  static constexpr std::string_view name = "crooked";
  static constexpr bool needs_unmasked = false, is_linear = true;
  double operator()(answer_log_probs const& a, std::span<double> d) const {
    double sum = 0;
    for (std::size_t i = 0; i < d.size(); ++i) d[i] = a.masked[i], sum += a.masked[i] * a.masked[i] / 2;
    return sum;
  }
};

}  // namespace

TEST_CASE("cuda mask graphs: masks have the bits of eager steps, for every shape and row choice") {
  for_each_kind([&](mask_shape shape, mask_rows rows) {
    INFO(combination(shape, rows));
    mask_options o = mask_options{}.in_steps(4);
    o.shape = shape;
    o.rows = rows;
    o.sparsity = 0.1;
    same_bits<bf16>(o);
    o.sparsity = 0;
    o.recompute = true;
    same_bits<float>(o);
  });
}

TEST_CASE("cuda mask graphs: rows that leave the batch and objectives that the host reads are recorded right") {
  mask_options o = mask_options{}.in_steps(20);
  o.shape = mask_shape::column;
  o.stop_tolerance = 0.05;
  std::set<int> steps;
  for (auto const& r : same_bits<float>(o)) steps.insert(r.steps);
  CHECK(steps.size() > 1);  // they leave one after the other
  o.stop_tolerance.reset();
  o = o.in_steps(3);
  for (char const* const objective : {"kl_to_unmasked", "excess_cross_entropy"}) {
    INFO(objective);
    o.objective = objectives::by_name(objective);
    same_bits<float>(o);
  }
  o = o.in_steps(20);
  o.objective = objectives::kl_to_unmasked{};
  o.stop_tolerance = 0.05;
  steps.clear();
  for (auto const& r : same_bits<float>(o)) steps.insert(r.steps);
  CHECK(steps.size() > 1);
}

TEST_CASE("cuda mask graphs: the bits are those of eager steps under adapters and 16-bit keys") {
  mask_options o = mask_options{}.in_steps(4);
  o.rows = mask_rows::answer_rows;
  auto const run = [&](bool graphs) {
    cuda_backend device({.graphs = graphs});
    auto model = random_model<cuda_backend, bf16>(device, device_config());
    model.set_kv_storage(kv_storage::bf16);
    model.attach({.rank = 2, .alpha = 4}, 3);
    tensor<cuda_backend, float, 1> values(device, {model.trainable_layout().size()});
    values.assign(converted<float>(random_values(values.size(), 5, 0.1)));  // B is zero in fresh adapters
    model.assign_trainable(values.cview());
    auto const items = ragged_items(model.config().vocab);
    std::vector<std::vector<float>> masks;
    for (int time = 0; time < 2; ++time)  // the second time in the memory of the first
      for (auto const& r : train_masks(model, std::span<saliency_item const>(views_of(items)), o))
        masks.push_back(r.mask);
    return masks;
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("cuda mask graphs: an objective that says it is linear and is not is refused at the next look") {
  mask_options o = mask_options{}.in_steps(17);
  o.shape = mask_shape::column;
  o.rows = mask_rows::answer_rows;
  o.objective = crooked{};
  CHECK_THROWS_WITH(trained<float>(true, o), ATMANRL_CONTAINS("crooked says that it is linear"));
}

TEST_CASE("cuda mask graphs: evaluations between steps, and other values, do not confuse them") {
  auto const run = [](bool graphs) {
    cuda_backend device({.graphs = graphs});
    auto model = random_model<cuda_backend, float>(device, device_config());
    auto const items = ragged_items(model.config().vocab);
    auto const views = views_of(items);
    mask_options o;
    o.shape = mask_shape::column;
    mask_batch<llama<cuda_backend, float>> batch(model, views, o);
    std::vector<std::vector<double>> seen;
    auto const note = [&] { seen.push_back(as_doubles(batch.gradient())); };
    for (std::uint64_t i = 0; i < 12; ++i) {
      batch.values().assign(converted<float>(random_values(batch.parameter_count(), 40 + i, 0.2)));
      if (i == 4) seen.push_back(batch.cross_entropies());
      if (i == 8) batch.drop(1);
      if (i % 4 == 3) {
        seen.push_back(batch.forward());
        batch.backward();
      } else {
        batch.step();
        seen.push_back(batch.look());
      }
      note();
    }
    return seen;
  };
  CHECK(run(true) == run(false));
}

#if defined(ATMANRL_CUDA_EMULATION)
namespace {

cuda_emulation::launch_counts launches_of_training(int first, int last, bool graphs, mask_options o) {
  return launches_of(first, last, [&](int steps) {
    o.steps = steps;
    trained<bf16>(graphs, o);
  });
}

/// Three steps of which each is one graph and AdamW, without a look of the host.
void check_three_recorded(mask_options const& o) {
  auto const three = launches_of_training(2, 5, true, o);
  CHECK(three.graphs == 3);
  CHECK(three.kernels == 3);
  CHECK(three.products == 0);
  CHECK(three.copies == 0);
  CHECK(three.waits == 0);
  CHECK(three.captures == 1);
}

}  // namespace

TEST_CASE("cuda mask graphs: a step is one graph and AdamW, and the host looks at every sixteenth") {
  for (mask_rows const rows : {mask_rows::answer_rows, mask_rows::all_later}) {
    mask_options o;
    o.rows = rows;
    o.sparsity = 0.1;
    check_three_recorded(o);
    auto const eager = launches_of_training(2, 3, false, o);
    CHECK(eager.graphs == 0);
    CHECK(eager.captures == 0);
    CHECK(eager.kernels > 10);
  }
  mask_options o;
  o.rows = mask_rows::answer_rows;
  auto const looked = launches_of_training(15, 17, true, o);
  CHECK(looked.graphs == 2);
  CHECK(looked.copies == 1);  // log-probabilities of step 16
  CHECK(looked.waits == 1);
}

TEST_CASE("cuda mask graphs: a step of the divergence from the unmasked model leaves no logits to the host") {
  mask_options o;
  o.rows = mask_rows::answer_rows;
  auto const of_tokens = launches_of_training(2, 3, false, o);
  o.objective = objectives::kl_to_unmasked{};
  check_three_recorded(o);
  auto const eager = launches_of_training(2, 3, false, o);
  CHECK(eager.copies == of_tokens.copies);  // on the device
  CHECK(eager.waits == 0);
  o.stop_tolerance = -100;  // never reached: the host looks at two numbers a token
  auto const looked = launches_of_training(2, 5, true, o);
  CHECK(looked.graphs == 6);
  CHECK(looked.copies == 3);
  CHECK(looked.waits == 3);
}

TEST_CASE("cuda mask graphs: with a tolerance a step is two graphs and a wait") {
  mask_options o;
  o.shape = mask_shape::column;
  o.stop_tolerance = -100;  // never reached
  auto const three = launches_of_training(2, 5, true, o);
  CHECK(three.graphs == 6);
  CHECK(three.kernels == 3);
  CHECK(three.waits == 3);
  CHECK(three.captures == 2);
}
#endif
