// Masks that are trained by other optimizers than the paper's AdamW.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/optim/any.hpp>
#include <atmanrl/saliency/estimators/learned_mask.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"
#include "saliency/items.hpp"
#include "strangers.hpp"

#include <set>

using namespace atmanrl_test;

namespace mask_optimizer_test {
namespace {

using without_ranges = optim::one_of<optim::adamw>;  // whose state updates the whole array or nothing

model_config config() {
  model_config c = small_config();
  c.vocab = 50;
  return c;
}

struct setting {
  cpu_backend backend{{.threads = 2}};
  llama<cpu_backend, float> model = random_model<cpu_backend, float>(backend, config(), 3);
  std::vector<owned_item> items = ragged_items(50);
  std::vector<saliency_item> views = views_of(items);
  mask_options options;

  setting() {
    options.steps = 6;
    options.learning_rate = 0.05;
  }
  template <class O>
  std::vector<saliency_result> trained(O const& optimizer) {
    return train_masks(model, std::span<saliency_item const>(views), options, optimizer);
  }
  std::vector<saliency_result> trained() { return train_masks(model, std::span<saliency_item const>(views), options); }
};

bool same(std::vector<saliency_result> const& a, std::vector<saliency_result> const& b) {
  bool same = a.size() == b.size();
  for (std::size_t i = 0; same && i < a.size(); ++i)
    same = a[i].mask == b[i].mask && a[i].ce_end == b[i].ce_end && a[i].steps == b[i].steps;
  return same;
}

}  // namespace

TEST_CASE_METHOD(setting, "train_masks: without another optimizer it is the options' AdamW") {
  options.optimizer.beta1 = 0.3;
  auto const standard = trained();
  CHECK(same(trained(options.optimizer), standard));
  CHECK(same(trained(without_ranges(options.optimizer)), standard));
  CHECK_FALSE(same(trained(optim::adamw{}), standard));
}

TEST_CASE_METHOD(setting, "train_masks: an optimizer that knows no ranges leaves masks that have stopped as they are") {
  // Tolerances that some masks meet in the middle of their training and others do not.
  options.steps = 12;
  std::vector<double> excess;
  for (saliency_result const& r : trained()) {
    excess.push_back(r.ce_end - r.ce_unmasked + 1e-6);
    excess.push_back((r.ce_start + r.ce_end) / 2 - r.ce_unmasked);
  }
  std::set<int> steps;
  for (double const tolerance : excess) {
    options.stop_tolerance = tolerance;
    auto const standard = trained();
    for (saliency_result const& r : standard) steps.insert(r.steps);
    CHECK(same(trained(without_ranges(options.optimizer)), standard));
  }
  CHECK(steps.size() > 3);
}

TEST_CASE_METHOD(setting, "train_masks: with somebody's optimizer each step is its step, alone as in a batch") {
  auto const together = trained(strangers::sign_momentum{});
  for (std::size_t i = 0; i < together.size(); ++i) {
    // Six steps of one rate each, up or down; a gradient of zero at first moves nothing.
    for (float const h : together[i].mask) {
      double const moved = (double(h) - options.init) / options.learning_rate;
      CHECK(moved == Approx(std::round(moved)).margin(1e-4));
      CHECK(std::abs(moved) < 6.5);
    }
    CHECK(together[i].mask != std::vector<float>(together[i].mask.size(), float(options.init)));
    auto const alone =
        train_masks(model, std::span<saliency_item const>(views).subspan(i, 1), options, strangers::sign_momentum{});
    CHECK(alone[0].mask == together[i].mask);
  }
  CHECK_FALSE(same(trained(strangers::sign_momentum{.momentum = 0}), together));
  estimators::learned_mask_with<strangers::sign_momentum> estimator(options);
  CHECK(same(estimator(model, std::span<saliency_item const>(views)).items, together));
}

TEST_CASE_METHOD(setting, "train_masks: Lion, SGD and Muon, to which a mask is a vector, train masks") {
  auto const falls = [&](std::vector<saliency_result> const& r) {
    double start = 0, end = 0;
    for (saliency_result const& each : r) {
      start += each.loss_start;
      end += each.loss_end;
    }
    return end < start;
  };
  CHECK(falls(trained(optim::lion{})));
  CHECK(falls(trained(optim::muon{})));
  options.learning_rate = 1;
  CHECK(falls(trained(optim::sgd{})));
}

TEST_CASE_METHOD(setting, "train_masks: a second batch finds the state of the first and is not disturbed by it") {
  auto const first = trained(optim::lion{}), again = trained(optim::lion{});
  CHECK(same(first, again));
  std::size_t const before = backend.allocations();
  CHECK(same(trained(optim::lion{}), first));
  CHECK(backend.allocations() == before);
}

}  // namespace mask_optimizer_test
