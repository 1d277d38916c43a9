// A block of one's own: Llama's, but queries and keys are turned to vectors of one length that every head learns. It
// is proven and then trains from random weights on generated word problems.
#include <atmanrl/grpo.hpp>

#include <atmanrl/rl/sft.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/testing/block.hpp>

using namespace atmanrl;

// [part]
/// Every head's query and key x becomes y = s √d x / |x| with a factor s of its own  (after Henry et al. 2020,
/// arXiv:2010.04245). Plain loops: for backends that compute in the host's memory.
struct equal_lengths {
  template <Backend B, class T>
  struct saved {
    tensor<B, T, 3> unit;    // (rows, heads + kv_heads, head_dim) √d x / |x|
    tensor<B, T, 2> factor;  // (rows, heads + kv_heads) √d / |x|
  };
  static index_t saved_numbers(model_config const& c) { return (c.heads + c.kv_heads) * (c.head_dim + 1); }
  static void parameters(model_config const& c, index_t, parameter_list& list) {
    list.gain("self_attn.qk_length", "attn_qk_length", c.heads + c.kv_heads);
  }
  template <HostBackend B, class T>
  static void forward(nn::part_call<B, T> const& c, view_on<B, T, 3> qkv, saved<B, T>& s) {
    index_t const heads = c.gain(0).size(), d = qkv.extent(2);
    s.unit.resize(c.backend(), {qkv.extent(0), heads, d});
    s.factor.resize(c.backend(), {qkv.extent(0), heads});
    for (index_t r = 0; r < qkv.extent(0); ++r)
      for (index_t h = 0; h < heads; ++h) {
        T squares{};
        for (index_t i = 0; i < d; ++i) squares += qkv(r, h, i) * qkv(r, h, i);
        T const factor = s.factor.view()(r, h) = T(1) / std::sqrt(squares / T(d) + T(c.config.rms_eps));
        for (index_t i = 0; i < d; ++i) qkv(r, h, i) = c.gain(0)(h) * (s.unit.view()(r, h, i) = factor * qkv(r, h, i));
      }
  }
  // With u = √d x / |x|:  ds = dy·u,  dx = s √d / |x| (dy - u (dy·u) / d).
  template <HostBackend B, class T>
  static void backward(nn::part_call<B, T> const& c, view_on<B, T, 3> dqkv, saved<B, T> const& s) {
    auto const u = s.unit.cview();
    auto const ds = c.gain_gradient(0);
    for (index_t r = 0; r < u.extent(0); ++r)
      for (index_t h = 0; h < u.extent(1); ++h) {
        T along{};
        for (index_t i = 0; i < u.extent(2); ++i) along += dqkv(r, h, i) * u(r, h, i);
        if (!ds.empty()) ds(h) += along;
        T const slope = c.gain(0)(h) * s.factor.cview()(r, h);
        for (index_t i = 0; i < u.extent(2); ++i)
          dqkv(r, h, i) = slope * (dqkv(r, h, i) - u(r, h, i) * along / T(u.extent(2)));
      }
  }
};
// [/part]

// [block]
struct my_block : llama_block {
  static constexpr std::string_view model_type = "equal_lengths";
  using qk = nn::in_order<equal_lengths, nn::rope>;
  static architecture files() { return {.class_name = "EqualLengthsForCausalLM"}; }
};
using my_model = decoder<cpu_backend, float, my_block>;
// [/block]

namespace {

model_config small_config(tokenizer const& words) {
  model_config c;
  c.architecture = my_block::model_type;
  c.layers = 2;
  c.hidden = 64;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.ffn = 128;
  c.vocab = words.vocab_size();
  c.max_positions = 512;
  c.stop_ids = {words.eos()};
  validate(c, "custom_block");
  return c;
}

int run() {
  cpu_backend backend;
  auto const words = tokenizer::load("examples/models/tiny");
  my_model model(backend, small_config(words));
  tensor<cpu_backend, float, 1> weights(backend, {model.layout().size()});
  std::vector<float> start(std::size_t(weights.size()), 1.0f);
  random_stream draw(1, 1);
  for (parameter_info const& p : model.layout().all())
    for (index_t i = p.offset; i < p.offset + p.size(); ++i)
      if (!p.is_vector()) start[std::size_t(i)] = float(0.08 * draw.normal());
  weights.assign(start);
  model.assign(weights.cview());

  std::vector<sft_example> problems;
  for (std::uint64_t i = 0; i < 24; ++i)
    problems.push_back(make_sft_example(arithmetic(), arithmetic().training_item(1, i), words, words.eos()));

  // [prove]
  // Every gradient of a small model of it beside difference quotients, and the same bits however tokens are computed.
  testing::check_block<my_block>();
  // [/prove]

  // [train]
  sft_trainer trainer(model, {.steps = 30, .batch_size = 24, .learning_rate = 5e-3}, schedules::constant{});
  double const before = trainer.evaluate(problems);
  for (int step = 1; step <= 30; ++step) {
    double const loss = trainer.step(problems).loss;
    if (step % 5 == 0) fmt::print("step {:2}  {:.4f} nats per token\n", step, loss);
  }
  double const after = trainer.evaluate(problems);
  // [/train]
  fmt::print("{:.4f} -> {:.4f} nats per token\n", before, after);
  return after < 0.7 * before ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (error const& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
