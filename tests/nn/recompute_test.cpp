// Passes that keep only the layers' inputs, and models whose keys and values are bfloat16: the same bits where bits
// must be the same, and the memory that is promised.
#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"

using namespace atmanrl_test;

namespace recompute_test {
namespace {

model_config deep_config() {
  model_config c = rich_config();
  c.layers = 6;
  c.hidden = 24;
  c.ffn = 40;
  c.head_dim = 8;
  c.vocab = 70;
  return c;
}

struct result {
  std::vector<float> log_p, gradient, edit;
  std::vector<float> input;  // of the pass, after the backward pass
  std::size_t bytes = 0;     // of the pass alone
  bool same_bits(result const& o) const {
    return log_p == o.log_p && gradient == o.gradient && edit == o.edit && input == o.input && !input.empty();
  }
};

template <class W>
model_in<cpu_backend, W> deep_model(cpu_backend& backend, bool adapters) {
  auto model = random_model<cpu_backend, W>(backend, deep_config(), 4);
  if (adapters) {
    model.attach({.rank = 2, .alpha = 4}, 9);
    tensor<cpu_backend, float, 1> values(backend, {model.trainable_layout().size()});
    values.assign(converted<float>(random_values(values.size(), 12, 0.1)));
    model.assign_trainable(values.cview());
  }
  return model;
}

/// Forward and backward over the ragged tree, in training or under masks on two of its sequences.
template <class W>
result run(gradient_mode mode, bool recompute, bool adapters = false, kv_storage storage = kv_storage::full,
           int threads = 1) {
  cpu_backend backend({.threads = threads});
  auto model = deep_model<W>(backend, adapters);
  model.set_kv_storage(storage);
  auto const tree = ragged_tree(70);
  std::size_t const before = backend.allocated_bytes();
  result r;
  auto const space = model.borrow_pass(laid_out<cpu_backend, float>::rows(tree), recompute);
  auto& [cache, pass] = *space;
  std::vector<int> ids;
  ragged_batch batch;
  for (branch const& b : tree) {
    index_t const n = index_t(b.tokens.size());
    ids.push_back(b.parent < 0 ? cache.add_sequence(n) : cache.add_child(ids[std::size_t(b.parent)], b.visible, n));
    batch.add(ids.back(), b.tokens, int(ids.size()) - 1);
  }
  std::vector<mask_extent> extents;
  index_t count = 0;
  for (std::size_t i = 0; i < tree.size(); ++i) {
    int const length = int(whole_sequence(tree, int(i)).size());
    extents.push_back(make_mask_extent(mask_shape::column, mask_rows::all_later, 0, std::max(1, length - 1),
                                       std::max(2, length), count));
    count += extents.back().count;
  }
  attention::learned_mask<cpu_backend> const masks(backend, mask_shape::column, extents, 3.0f);
  auto const values = converted<float>(random_values(count, 31, 0.3));
  bool const masked = mode == gradient_mode::activations;
  auto const scored = score_all(batch.rows(), 70);
  auto const weights = converted<float>(random_values(index_t(scored.size()), 7));
  r.gradient.resize(masked ? 0 : std::size_t(model.trainable_layout().size()));
  r.edit.resize(masked ? std::size_t(deep_config().kv_heads * count) : 0);
  auto const forward_and_backward = [&](auto const& policy, view<float const, 1> h, view<float, 2> edit) {
    model.forward(cache, batch, pass, {.mode = mode}, edited{policy, h});
    model.log_probs(pass, scored, 0.9, true);
    r.log_p = pass.log_p();
    model.backward(cache, pass, {.log_p = weights, .entropy = weights},
                   {.parameters = view<float, 1>(r.gradient.data(), {index_t(r.gradient.size())}), .edit = edit},
                   edited{policy, h});
    auto const x = pass.input();
    r.input.assign(x.data(), x.data() + x.size());
  };
  if (masked)
    forward_and_backward(masks, {values.data(), {count}}, {r.edit.data(), {deep_config().kv_heads, count}});
  else
    forward_and_backward(attention::none{}, {}, {});
  r.bytes = backend.allocated_bytes() - before;
  return r;
}

}  // namespace

TEMPLATE_TEST_CASE("recompute: values and gradients have the bits of a pass that keeps everything, in less memory", "",
                   float, bf16) {
  for (gradient_mode const mode : {gradient_mode::activations, gradient_mode::parameters}) {
    for (bool const adapters : {false, true}) {
      for (kv_storage const storage : {kv_storage::full, kv_storage::bf16}) {
        CAPTURE(int(mode), adapters, int(storage));
        result const kept = run<TestType>(mode, false, adapters, storage);
        for (int const threads : {1, 2}) {
          result const again = run<TestType>(mode, true, adapters, storage, threads);
          CHECK(again.same_bits(kept));
        }
        CHECK(run<TestType>(mode, true, adapters, storage).bytes < 0.6 * double(kept.bytes));
        CHECK(std::any_of(kept.gradient.begin(), kept.gradient.end(), [](float x) { return x != 0; }) ==
              (mode == gradient_mode::parameters));
        CHECK(std::any_of(kept.edit.begin(), kept.edit.end(), [](float x) { return x != 0; }) ==
              (mode == gradient_mode::activations));
      }
    }
  }
}

TEST_CASE("recompute: a pass may change between both ways, and backward may be called again") {
  cpu_backend backend({.threads = 1});
  auto model = deep_model<float>(backend, false);
  auto const tokens = random_tokens(20, 70, 3);
  kv_cache<cpu_backend, float> cache = model.new_cache(20);
  forward_pass<cpu_backend, float> pass(backend);
  std::vector<scored_token> scored;
  for (int i = 0; i + 1 < 20; ++i) scored.push_back({i, tokens[std::size_t(i) + 1]});
  std::vector<float> const weights(scored.size(), -1);
  std::vector<std::vector<float>> gradients;
  for (bool const recompute : {false, true, false, true}) {
    pass.set_recompute(recompute);
    cache.clear();
    ragged_batch batch;
    batch.add(cache.add_sequence(20), tokens);
    model.forward(cache, batch, pass, {.mode = gradient_mode::parameters});
    pass.set_recompute(!recompute);  // says nothing about the pass that was made
    model.log_probs(pass, scored);
    // Keeping everything, the backward pass overwrites gate and up; the inputs serve any number of times.
    for (int i = 0; i < (recompute ? 2 : 1); ++i) {
      auto g = tensor<cpu_backend, float, 1>::zeros(backend, {model.layout().size()});
      model.backward(cache, pass, {.log_p = weights}, {.parameters = g.view()});
      gradients.push_back(g.to_host());
    }
  }
  for (auto const& g : gradients) CHECK(g == gradients.front());
}

TEST_CASE(
    "16-bit keys and values: a cache of half the size changes log-probabilities a little, and training as much as "
    "sampling") {
  result const full = run<float>(gradient_mode::parameters, false),
               half = run<float>(gradient_mode::parameters, false, false, kv_storage::bf16);
  CHECK(full.log_p != half.log_p);
  CHECK(relative_difference(half.log_p, converted<double>(full.log_p)) < 0.02);
  CHECK(relative_difference(half.gradient, converted<double>(full.gradient)) < 0.1);
  using cache = kv_cache<cpu_backend, float>;
  index_t const rows = laid_out<cpu_backend, float>::rows(ragged_tree(70));
  CHECK(full.bytes - half.bytes == cache::bytes(deep_config(), rows, kv_storage::bf16));
}

TEST_CASE("16-bit keys and values: row by row, in a tree and at once a token has the same bits") {
  cpu_backend backend({.threads = 2});
  auto model = deep_model<bf16>(backend, false);
  model.set_kv_storage(kv_storage::bf16);
  auto const tokens = random_tokens(50, 70, 8);
  auto const forward = [&](std::vector<int> const& cuts, gradient_mode mode) {
    auto const space = model.borrow_pass(50);
    std::vector<float> all;
    int const prompt = space->cache.add_sequence(20), rest = space->cache.add_child(prompt, 20, 30);
    int at = 0;
    for (int const end : cuts) {
      ragged_batch batch;
      std::vector<scored_token> scored;
      auto const part = [&](int id, int first, int last) {
        if (first >= last) return;
        int const row = batch.add(id, std::span(tokens).subspan(std::size_t(first), std::size_t(last - first)));
        for (int i = first; i < std::min(last, 49); ++i)
          scored.push_back({row + i - first, tokens[std::size_t(i) + 1]});
      };
      part(prompt, at, std::min(end, 20));
      part(rest, std::max(at, 20), end);
      model.forward(space->cache, batch, space->pass, {.mode = mode});
      if (!scored.empty()) {
        model.log_probs(space->pass, scored);
        auto const some = space->pass.log_p();
        all.insert(all.end(), some.begin(), some.end());
      }
      at = end;
    }
    return all;
  };
  auto const whole = forward({50}, gradient_mode::parameters);
  CHECK(whole.size() == 49);
  std::vector<int> one_by_one{20};
  for (int i = 21; i <= 50; ++i) one_by_one.push_back(i);
  CHECK(forward(one_by_one, gradient_mode::none) == whole);
  CHECK(forward({20, 33, 50}, gradient_mode::none) == whole);
}

TEST_CASE("16-bit keys and values: the model refuses a cache of the other storage, and scalars that are not float") {
  cpu_backend backend({.threads = 1});
  auto model = deep_model<float>(backend, false);
  kv_cache<cpu_backend, float> cache(backend, model.config(), 5);
  model.set_kv_storage(kv_storage::bf16);
  forward_pass<cpu_backend, float> pass(backend);
  ragged_batch batch;
  batch.add(cache.add_sequence(5), random_tokens(5, 70, 1));
  CHECK_THROWS_AS(model.forward(cache, batch, pass), shape_error);
  CHECK(model.new_cache(5).storage() == kv_storage::bf16);
  reference_backend exact;
  llama<reference_backend, double> doubles(exact, small_config());
  CHECK_THROWS_AS(doubles.set_kv_storage(kv_storage::bf16), usage_error);
}

}  // namespace recompute_test
