// An attention edit of one's own: one line of arithmetic, which the library applies, differentiates and trains.
// Every head of the frozen, bundled model is made short-sighted; the loss on worked solutions then says which heads
// must look far: their slopes fall towards 0.
#include <atmanrl/llama.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/testing/attention_policy.hpp>

#include <cstdio>

// [policy]
/// A penalty on distance (ALiBi, Press et al. 2022, arXiv:2108.12409) whose slope is learned for each layer and head.
struct distance_penalty {
  struct params_type {
    int heads;
    ATMANRL_HOST_DEVICE atmanrl::index_t parameter(atmanrl::score_site at) const { return at.layer * heads + at.head; }
    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, T slope, atmanrl::score_site at) const {
      return score - slope * float(at.query - at.key);
    }
  };
  int layers, heads;
  params_type params() const { return {heads}; }
  atmanrl::index_t parameter_count() const { return layers * heads; }
};
// [/policy]

namespace {

using namespace atmanrl;
using model_type = llama<cpu_backend>;

/// Worked solutions, packed: the loss is the mean cross-entropy of their tokens.
struct solutions {
  ragged_batch batch;
  std::vector<scored_token> scored;
  kv_cache<cpu_backend, float> cache;
  forward_pass<cpu_backend, float> pass;

  solutions(model_type& model, tokenizer const& words, int count, bool held_out)
      : cache(model.backend(), model.config(), count * 256), pass(model.backend()) {
    arithmetic const task;
    for (int i = 0; i < count; ++i) {
      task_item const item = held_out ? task.evaluation_item(i) : task.training_item(1, std::uint64_t(i));
      std::vector<int> ids = task.prompt(item, words), solution = task.completion(item, words);
      std::size_t const begin = ids.size();
      ids.insert(ids.end(), solution.begin(), solution.end());
      ids.resize(std::min<std::size_t>(ids.size(), 256));
      int const first = batch.add(cache.add_sequence(256), ids, i);
      for (std::size_t t = begin; t < ids.size(); ++t) scored.push_back({first + int(t) - 1, ids[t]});
    }
  }

  // [step]
  /// The loss, and its gradient by the policy's parameters where one is wanted.
  double loss(model_type& model, distance_penalty const& policy, tensor<cpu_backend, float, 1> const& slopes,
              tensor<cpu_backend, float, 1>* gradient = nullptr) {
    for (auto const& e : batch.entries()) cache.truncate(e.sequence, 0);
    model.forward(cache, batch, pass, {.mode = gradient ? gradient_mode::activations : gradient_mode::none},
                  edited{policy, slopes.cview()});
    model.log_probs(pass, scored);
    double sum = 0;
    for (float const log_p : pass.log_p()) sum -= double(log_p);
    if (gradient) {
      // The parameters' gradient comes in one row per key-value head; their sum is the gradient.
      auto by_head =
          tensor<cpu_backend, float, 2>::zeros(model.backend(), {model.config().kv_heads, policy.parameter_count()});
      std::vector<float> const dlog_p(scored.size(), -1.0f / float(scored.size()));
      model.backward(cache, pass, {.log_p = dlog_p}, {.edit = by_head.view()}, edited{policy, slopes.cview()});
      gradient->fill_zero();
      add_bias_backward(model.backend(), by_head.cview(), gradient->view());
    }
    return sum / double(scored.size());
  }
  // [/step]
};

int run(int steps) {
  cpu_backend backend;
  model_type model = model_type::load(backend, "examples/models/tiny");
  tokenizer const words = tokenizer::load("examples/models/tiny");
  distance_penalty const policy{int(model.config().layers), int(model.config().heads)};
  index_t const n = policy.parameter_count();
  std::vector<float> const start(std::size_t(n), 0.2f), zero(std::size_t(n), 0.0f);
  tensor<cpu_backend, float, 1> slopes(backend, {n}), gradient(backend, {n});
  optim::adamw::state<cpu_backend, float> optimizer({}, backend, {n});
  solutions training(model, words, 24, false), held_out(model, words, 24, true);

  // [prove]
  // What the library derived from the line above, beside difference quotients.
  testing::check_attention_policy(distance_penalty{.layers = 1, .heads = 4});
  // [/prove]

  slopes.assign(zero);
  double const unedited = held_out.loss(model, policy, slopes);
  slopes.assign(start);
  double const before = held_out.loss(model, policy, slopes);
  for (int step = 1; step <= steps; ++step) {
    double const loss = training.loss(model, policy, slopes, &gradient);
    if (step == 1 || step % 5 == 0) fmt::print("step {:2}  {:.4f} nats per token\n", step, loss);
    optimizer.step(slopes.view(), gradient.cview(), 0.02);
  }
  double const after = held_out.loss(model, policy, slopes);
  fmt::print("held-out problems: {:.4f} -> {:.4f} nats per token; {:.4f} without an edit\n\nslopes of the heads\n",
             before, after, unedited);
  auto const learned = slopes.to_host();
  for (int layer = 0; layer < policy.layers; ++layer) {
    fmt::print("layer {} ", layer);
    for (int head = 0; head < policy.heads; ++head)
      fmt::print(" {:5.2f}", learned[std::size_t(layer * policy.heads + head)]);
    fmt::print("\n");
  }
  return after < before ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run(15);
  } catch (atmanrl::error const& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
