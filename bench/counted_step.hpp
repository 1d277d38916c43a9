#pragma once
// The phases of a training step, walked by the library's own code over a backend that counts.
#include <atmanrl/counting/counting_backend.hpp>
#include <atmanrl/grpo.hpp>

#include <span>
#include <vector>

namespace atmanrl_bench {

using namespace atmanrl;

/// What a step is made of. Rollouts of a prompt share its rows; all completions have the same length.
struct step_shape {
  index_t prompts = 1, group = 8;
  index_t prompt = 200, completion = 400;        ///< tokens
  index_t cot = 392, delimiter = 2, answer = 5;  ///< tokens of a mask's item
  mask_shape shape = mask_shape::pair;
  mask_rows rows = mask_rows::all_later;
  index_t mask_steps = 200, passes = 2;
  index_t row_budget = 4096;  ///< rows of one pass of the update

  index_t rollouts() const { return prompts * group; }
};

/// config.json of meta-llama/Llama-3.2-3B and -1B.
inline model_config llama_3_2_3b() {
  model_config c;
  c.layers = 28, c.hidden = 3072, c.heads = 24, c.kv_heads = 8, c.head_dim = 128, c.ffn = 8192, c.vocab = 128256;
  c.rope_theta = 5e5, c.rms_eps = 1e-5, c.max_positions = 131072, c.tied_head = true;
  c.rope_scaling = {
      .llama3 = true, .factor = 32, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_positions = 8192};
  return c;
}
inline model_config llama_3_2_1b() {
  model_config c = llama_3_2_3b();
  c.layers = 16, c.hidden = 2048, c.heads = 32, c.kv_heads = 8, c.head_dim = 64;
  return c;
}

/// A model whose weights are nowhere, and the tokens of one step.
template <class W, class Block = standard_block>
class counted_step {
 public:
  using model_type = decoder<counting_backend, W, Block>;

  /// \param skinny_products  see counting_backend
  counted_step(model_config config, step_shape const& shape, machine_limits const& limits = {},
               bool skinny_products = false)
      : backend(limits, skinny_products), model(backend, std::move(config)), shape_(shape) {
    for (index_t p = 0; p < shape.prompts; ++p) prompts_.push_back(std::vector<int>(std::size_t(shape.prompt), int(p)));
    cot_.assign(std::size_t(shape.cot), 0);
    delimiter_.assign(std::size_t(shape.delimiter), 0);
    answer_.assign(std::size_t(shape.answer), 0);
    completion_.assign(std::size_t(shape.completion), 0);
    log_p_.assign(completion_.size(), 0);
    backend.reset();
  }

  /// No completion ends before its limit: nothing is a stop token.
  /// \param tokens  per completion; 1 is the prefill alone
  void sample(index_t tokens) {
    generate_options o;
    o.group_size = int(shape_.group);
    o.max_new_tokens = int(tokens);
    generate(model, std::span<std::vector<int> const>(prompts_), o, samplers::multinomial{});
  }

  void train_masks(index_t steps) {
    mask_options o;
    o.shape = shape_.shape;
    o.rows = shape_.rows;
    o.steps = int(steps);
    o.row_budget = index_t{1} << 40;
    std::vector<saliency_item> items;
    for (index_t i = 0; i < shape_.rollouts(); ++i)
      items.push_back({prompts_[std::size_t(i / shape_.group)], cot_, delimiter_, answer_});
    atmanrl::train_masks(model, std::span<saliency_item const>(items), o);
  }

  /// The same masks without a cache: every step computes every rollout from its first token on.
  void train_masks_from_the_start(index_t steps) {
    std::vector<mask_extent> extents;
    index_t parameters = 0;
    kv_cache<counting_backend, float> cache(backend, model.config(),
                                            shape_.rollouts() * (shape_.prompt + shape_.completion));
    ragged_batch batch;
    std::vector<scored_token> scored;
    std::vector<float> dlog_p;
    int const total = int(shape_.prompt + shape_.cot + shape_.delimiter + shape_.answer);
    for (index_t i = 0; i < shape_.rollouts(); ++i) {
      extents.push_back(make_mask_extent(shape_.shape, shape_.rows, int(shape_.prompt), int(shape_.prompt + shape_.cot),
                                         total, parameters));
      parameters += extents.back().count;
      std::vector<int> const ids(std::size_t(total - 1), 0);
      int const last = batch.add(cache.add_sequence(total), ids, int(i)) + total - 2;
      for (index_t t = shape_.answer; t-- > 0;) scored.push_back({last - int(t), 0});
    }
    dlog_p.assign(scored.size(), -1.0f / float(shape_.answer));
    attention::learned_mask<counting_backend> const policy(backend, shape_.shape, extents);
    auto values = tensor<counting_backend, float, 1>::zeros(backend, {parameters});
    tensor<counting_backend, float, 2> gradient(backend, {model.config().kv_heads, parameters});
    tensor<counting_backend, float, 1> m(backend, {parameters}), v(backend, {parameters});
    forward_pass<counting_backend, float> pass(backend);
    for (index_t step = 0; step < steps; ++step) {
      for (auto const& e : batch.entries()) cache.truncate(e.sequence, 0);
      model.forward(cache, batch, pass, {.mode = gradient_mode::activations}, edited{policy, values.cview()});
      model.log_probs(pass, scored);
      gradient.fill_zero();
      model.backward(cache, pass, {.log_p = dlog_p}, {.edit = gradient.view()}, edited{policy, values.cview()});
      sum_rows(backend, gradient.cview(), values.view());
      adamw_step(backend, values.view(), values.cview(), m.view(), v.view(), {}, 1);
    }
  }

  void update(index_t passes) {
    with_policy([&](auto& policy, std::span<training_rollout const> rollouts) {
      for (index_t i = 0; i < passes; ++i) {
        add_gradient(policy, rollouts);
        policy.update(1e-6, 1);
      }
    });
  }
  /// What a pass of it is made of.
  void gradient() {
    with_policy([&](auto& policy, std::span<training_rollout const> rollouts) { add_gradient(policy, rollouts); });
  }
  void new_weights() {
    with_policy([&](auto& policy, std::span<training_rollout const>) { policy.update(1e-6, 1); });
  }

  std::span<std::vector<int> const> prompts() const { return prompts_; }
  std::span<int const> cot() const { return cot_; }
  std::span<int const> delimiter() const { return delimiter_; }
  std::span<int const> answer() const { return answer_; }

  counting_backend backend;
  model_type model;

 private:
  template <class Walk>
  void with_policy(Walk&& walk) {
    trainable_policy<model_type> policy(model);
    backend.reset();  // the copies that the policy begins with
    std::vector<training_rollout> rollouts;
    for (index_t i = 0; i < shape_.rollouts(); ++i)
      rollouts.push_back({prompts_[std::size_t(i / shape_.group)], completion_, log_p_, 1.0f});
    walk(policy, std::span<training_rollout const>(rollouts));
  }
  void add_gradient(trainable_policy<model_type>& policy, std::span<training_rollout const> rollouts) {
    policy.zero_gradient();
    add_policy_gradient(policy, rollouts, losses::grpo{}, {.row_budget = shape_.row_budget});
  }

  step_shape shape_;
  std::vector<std::vector<int>> prompts_;
  std::vector<int> cot_, delimiter_, answer_, completion_;
  std::vector<float> log_p_;
};

}  // namespace atmanrl_bench
