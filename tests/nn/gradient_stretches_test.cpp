// Gradients that leave a backward pass stretch by stretch: the same bits as in one flat array, each stretch once, in
// the order that the model says, and no more room at a time than the embedding, the top and a layer.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/gradient_stretches.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"
#include "strangers.hpp"

#include <algorithm>
#include <list>

using namespace atmanrl_test;

namespace gradient_stretches_test {
namespace {

template <class T>
struct collector : gradient_receiver<reference_backend, T> {
  struct open_stretch {
    comm::range elements;
    std::vector<T> values;
  };
  std::vector<T> flat;
  std::vector<comm::range> completed;
  std::list<open_stretch> open;
  std::size_t most = 0;  // elements that were open at once

  view<T, 1> room(comm::range stretch) override {
    open.push_back({stretch, std::vector<T>(stretch.count)});
    std::size_t now = 0;
    for (auto const& o : open) now += o.values.size();
    most = std::max(most, now);
    return {open.back().values.data(), {index_t(stretch.count)}};
  }
  void complete(comm::range stretch) override {
    auto const at = std::ranges::find(open, stretch, &open_stretch::elements);
    expects(at != open.end(), "elements {} to {} are complete without having begun", stretch.first, stretch.end());
    flat.resize(std::max(flat.size(), stretch.end()));
    std::ranges::copy(at->values, flat.begin() + std::ptrdiff_t(stretch.first));
    open.erase(at);  // what is added to it later is found by the sanitizer
    completed.push_back(stretch);
  }
};

enum class from { log_probs, logits };

/// Compares both ways, of a pass that keeps everything and of one that recomputes.
template <class Model>
void check(Model& model, from where = from::log_probs) {
  using T = typename Model::scalar;
  auto const tree = ragged_tree(model.config().vocab);
  auto const all = std::size_t(model.trainable_layout().size());
  for (bool const recompute : {false, true}) {
    std::vector<T> gradient(all);
    collector<T> got;
    for (bool const flat : {true, false}) {
      laid_out<reference_backend, T> run(model.backend(), model.config(), tree);
      forward_pass<reference_backend, T> pass(model.backend());
      pass.set_recompute(recompute);
      model.forward(run.cache, run.batch, pass, {.mode = gradient_mode::parameters});
      pass_gradients<reference_backend, T> into;
      if (flat)
        into.parameters = view<T, 1>(gradient.data(), {index_t(all)});
      else
        into.stretches = &got;
      if (where == from::log_probs) {
        auto const scored = score_all(run.batch.rows(), model.config().vocab);
        auto const weights = converted<T>(random_values(index_t(scored.size()), 7));
        model.log_probs(pass, scored, 0.9, true);
        model.backward(run.cache, pass, {.log_p = weights, .entropy = weights}, into);
      } else {
        tensor<reference_backend, T, 2> logits;
        std::vector<int> const rows{1, 3};
        model.logits(pass, rows, logits);
        logits.assign(converted<T>(random_values(logits.size(), 8)));
        model.backward_from_logits(run.cache, pass, logits.cview(), into);
      }
    }
    CHECK(got.open.empty());
    CHECK((got.flat == gradient));
    CHECK((got.completed == model.gradient_stretches()));
    CHECK(std::ranges::count_if(gradient, [](T x) { return x != T(0); }) > std::ptrdiff_t(all / 2));
    if (model.has_adapters()) return;
    // Each element is in one stretch, and what is open at once is not everything.
    std::size_t covered = 0;
    for (comm::range const& s : got.completed) covered += s.count;
    CHECK(covered == all);
    CHECK(got.most == most_open_elements(model.trainable_layout()));
    CHECK(got.most < all);
  }
}

}  // namespace

TEST_CASE("gradient stretches: the bits of a flat gradient, with the embedding as the output layer and with another") {
  reference_backend backend;
  for (bool const tied : {true, false}) {
    CAPTURE(tied);
    model_config c = rich_config();
    c.tied_head = tied;
    c.layers = 3;
    auto model = random_model<reference_backend, double>(backend, c);
    check(model);
    check(model, from::logits);
    auto floats = random_model<reference_backend, bf16>(backend, c);
    check(floats);
  }
}

TEST_CASE("gradient stretches: those of adapters come at once, an edit's after the layers") {
  reference_backend backend;
  auto adapted = random_model<reference_backend, double>(backend, rich_config());
  adapted.attach({.rank = 2, .alpha = 4}, 9);
  tensor<reference_backend, double, 1> values(backend, {adapted.trainable_layout().size()});
  values.assign(random_values(values.size(), 12, 0.1));
  adapted.assign_trainable(values.cview());
  check(adapted);

  decoder<reference_backend, double, standard_block, strangers::distance_factors> held(
      backend, small_config(), strangers::distance_factors{3, 3});
  tensor<reference_backend, double, 1> all(backend, {held.layout().size()});
  all.assign(random_values(all.size(), 3, 0.4));
  held.assign(all.cview());
  check(held);
  CHECK(held.gradient_stretches().rbegin()[1].count == 9);
}

TEST_CASE("gradient stretches: a stretch of the parameters is put into the model and read back") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config(), 1);
  auto const other = random_parameters(rich_config(), 2);
  for (comm::range const& s : model.gradient_stretches()) {
    std::vector<double> const mine(other.begin() + std::ptrdiff_t(s.first), other.begin() + std::ptrdiff_t(s.end()));
    tensor<reference_backend, double, 1> stretch(backend, {index_t(s.count)}), back(backend, {index_t(s.count)});
    stretch.assign(mine);
    model.assign_trainable(index_t(s.first), stretch.cview());
    model.read_trainable(index_t(s.first), back.view());
    CHECK(back.to_host() == mine);
  }
  tensor<reference_backend, double, 1> all(backend, {model.layout().size()});
  model.read(all.view());
  CHECK(all.to_host() == other);
  CHECK_THROWS_WITH(model.read_trainable(1, all.view()), ATMANRL_CONTAINS("are no whole parameters of the model"));
}

TEST_CASE("gradient stretches: a pass wants gradients flat or in stretches, where it kept what they need") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config());
  auto const tree = ragged_tree(small_config().vocab);
  tensor<reference_backend, double, 1> flat(backend, {model.layout().size()});
  collector<double> got;
  for (gradient_mode const mode : {gradient_mode::parameters, gradient_mode::activations}) {
    laid_out<reference_backend, double> run(backend, small_config(), tree);
    forward_pass<reference_backend, double> pass(backend);
    model.forward(run.cache, run.batch, pass, {.mode = mode});
    auto const scored = score_all(run.batch.rows(), small_config().vocab);
    std::vector<double> const weights(scored.size(), 1.0);
    model.log_probs(pass, scored);
    if (mode == gradient_mode::parameters)
      CHECK_THROWS_WITH(
          model.backward(run.cache, pass, {.log_p = weights}, {.parameters = flat.view(), .stretches = &got}),
          ATMANRL_CONTAINS("are wanted flat and in stretches"));
    else
      CHECK_THROWS_WITH(model.backward(run.cache, pass, {.log_p = weights}, {.stretches = &got}),
                        ATMANRL_CONTAINS("for a forward pass that kept"));
  }
  CHECK(got.completed.empty());
}

}  // namespace gradient_stretches_test
