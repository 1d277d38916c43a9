// Low-rank adapters: their gradients, that they can be switched off call by call, merging, and the bit rule.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"
#include "strangers.hpp"

using namespace atmanrl_test;

namespace lora_test {
namespace {

lora_config some_targets() { return {.rank = 3, .alpha = 5, .targets = {"q_proj", "v_proj", "o_proj", "up_proj"}}; }

/// Values for A and B that are not small, so that the adapters change what the model says.
std::vector<double> adapter_values(model_config const& c, lora_config const& l, unsigned seed = 70) {
  return random_values(parameter_layout(c, standard_kind(c), l).size(), seed, 0.4);
}

template <class B, class W>
void give_adapters(llama<B, W>& model, lora_config const& l, std::vector<double> const& values) {
  using T = typename llama<B, W>::scalar;
  model.attach(l, 1);
  tensor<B, T, 1> flat(model.backend(), {index_t(values.size())});
  flat.assign(converted<T>(values));
  model.assign_trainable(flat.cview());
}

/// The model with its adapters merged into the matrices.
template <class B, class W>
llama<B, W> merged(llama<B, W> const& model) {
  using T = typename llama<B, W>::scalar;
  llama<B, W> out(model.backend(), model.config(), {}, model.storage());
  for (parameter_info const& p : model.layout().all()) {
    for (index_t first = 0; first < p.rows; first += 3) {  // in pieces that divide nothing
      tensor<B, T, 2> rows(model.backend(), {std::min<index_t>(3, p.rows - first), p.columns});
      model.read_rows(p, first, rows.view(), adapters::on);
      out.assign_rows(p, first, rows.cview());
    }
  }
  return out;
}

template <class P = attention::none>
void check_gradient(model_config const& config, lora_config const& l, P const& policy = {}) {
  auto const tree = ragged_tree(config.vocab);
  auto const scored = score_all(int(laid_out<reference_backend, double>::rows(tree)), config.vocab);
  auto const dlog_p = random_values(index_t(scored.size()), 21);
  auto const at = adapter_values(config, l);
  auto const loss = [&](std::vector<complex> const& values) {
    reference_backend backend;
    auto model = random_model<reference_backend, complex>(backend, config);
    model.attach(l, 1);
    model.assign_trainable(as(values, {index_t(values.size())}));
    laid_out<reference_backend, complex> on(backend, config, tree);
    forward_pass<reference_backend, complex> pass(backend);
    model.forward(on.cache, on.batch, pass, {}, edited{policy});
    model.log_probs(pass, scored, 0.8);
    return weighted_sum(pass.log_p(), dlog_p);
  };
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, config);
  give_adapters(model, l, at);
  laid_out<reference_backend, double> on(backend, config, tree);
  forward_pass<reference_backend, double> pass(backend);
  model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::parameters}, edited{policy});
  model.log_probs(pass, scored, 0.8);
  std::vector<double> g(at.size(), 0.5);  // added to
  model.backward(on.cache, pass, {.log_p = dlog_p}, {.parameters = as(g, {index_t(g.size())})}, edited{policy});
  for (double& x : g) x -= 0.5;
  auto const exact = complex_step_gradient(at, loss);
  parameter_layout const layout(config, standard_kind(config), l);
  for (parameter_info const& p : layout.all()) {
    INFO(p.name);
    auto const part = [&](std::vector<double> const& all) {
      return std::span(all).subspan(std::size_t(p.offset), std::size_t(p.size()));
    };
    CHECK(relative_difference(part(g), part(exact)) < 1e-9);
    CHECK(relative_difference(part(exact), std::vector<double>(std::size_t(p.size()), 0.0)) ==
          INFINITY);  // it is used at all
  }
}

}  // namespace

TEST_CASE("lora: the gradient of every A and B is exact, for all matrices and for some") {
  check_gradient(small_config(), {.rank = 2, .alpha = 3});
  check_gradient(rich_config(), some_targets());
  check_gradient(small_config(), {.rank = 1, .alpha = 1, .targets = {"k_proj"}}, strangers::capped_recency{});
}

TEST_CASE("lora: the layout names PEFT's tensors, and values survive assigning and reading") {
  auto const l = some_targets();
  parameter_layout const layout(small_config(), standard_kind(small_config()), l);
  REQUIRE(layout.all().size() == 16);
  CHECK(layout.all()[0].name == "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
  CHECK(layout.all()[15].name == "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight");
  CHECK(layout.size() == 2 * 3 * ((10 + 24) + (10 + 12) + (24 + 10) + (10 + 7)));
  reference_backend plain;
  cpu_backend fast({.threads = 1});
  auto a = random_model<reference_backend, double>(plain, small_config());
  auto b = random_model<cpu_backend, bf16>(fast, small_config());
  auto const values = adapter_values(small_config(), l);
  give_adapters(a, l, values);
  give_adapters(b, l, values);
  std::vector<double> exact(values.size());
  a.read_trainable(as(exact, {index_t(exact.size())}));
  CHECK(exact == values);
  std::vector<float> single(values.size());
  b.read_trainable(as(single, {index_t(single.size())}));
  CHECK(single == converted<float>(values));  // never rounded to the base weights' bf16
}

TEST_CASE("lora: fresh adapters do nothing, are drawn in PEFT's range and depend on the seed") {
  cpu_backend backend({.threads = 1});
  auto model = random_model<cpu_backend, float>(backend, small_config());
  auto const tokens = random_tokens(20, 11, 3);
  auto const before = teacher_forced(model, tokens);
  auto const values = [&](std::uint64_t seed) {
    model.attach({.rank = 64}, seed);
    tensor<cpu_backend, float, 1> flat(backend, {model.trainable_layout().size()});
    model.read_trainable(flat.view());
    return flat.to_host();
  };
  auto const one = values(1);
  CHECK(teacher_forced(model, tokens) == before);
  CHECK(values(1) == one);
  CHECK(values(2) != one);
  for (parameter_info const& p : model.trainable_layout().all()) {
    INFO(p.name);
    double largest = 0, sum = 0, squares = 0;
    for (index_t i = p.offset; i < p.offset + p.size(); ++i) {
      double const x = one[std::size_t(i)];
      largest = std::max(largest, std::abs(x));
      sum += x;
      squares += x * x;
    }
    if (p.role == parameter_role::lora_b) {
      CHECK(largest == 0);
      continue;
    }
    double const bound = 1 / std::sqrt(double(p.columns)), n = double(p.size());
    CHECK(largest <= bound);
    CHECK(largest > 0.97 * bound);
    CHECK(std::abs(sum / n) < 4 * bound / std::sqrt(3 * n));
    CHECK(squares / n == Approx(bound * bound / 3).epsilon(0.15));
  }
}

TEST_CASE("lora: off is the model without adapters to the last bit, and the call decides") {
  cpu_backend backend({.threads = 1});
  auto model = random_model<cpu_backend, float>(backend, rich_config());
  auto const tree = ragged_tree(11);
  auto const log_probs = [&](adapters which) {
    laid_out<cpu_backend, float> on(backend, model.config(), tree);
    forward_pass<cpu_backend, float> pass(backend);
    model.forward(on.cache, on.batch, pass, {.adapters = which});
    model.log_probs(pass, score_all(on.batch.rows(), 11));
    return pass.log_p();
  };
  auto const plain = log_probs(adapters::on);
  CHECK(log_probs(adapters::off) == plain);
  give_adapters(model, some_targets(), adapter_values(rich_config(), some_targets()));
  auto const adapted = log_probs(adapters::on);
  CHECK(adapted != plain);
  CHECK(log_probs(adapters::off) == plain);
  CHECK(log_probs(adapters::on) == adapted);
  model.detach();
  CHECK(log_probs(adapters::on) == plain);
}

TEST_CASE(
    "lora: a cache that was filled with the adapters on refuses a call with them off, and one of other adapters") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config());
  give_adapters(model, some_targets(), adapter_values(small_config(), some_targets()));
  kv_cache<reference_backend, double> cache(backend, small_config(), 8);
  forward_pass<reference_backend, double> pass(backend);
  ragged_batch batch;
  batch.add(cache.add_sequence(4), std::array{1, 2});
  auto const call = [&](adapters which, gradient_mode mode = gradient_mode::none) {
    model.forward(cache, batch, pass, {.mode = mode, .adapters = which});
  };
  CHECK_THROWS_WITH(call(adapters::off, gradient_mode::parameters), ATMANRL_CONTAINS("adapters off"));
  call(adapters::on);
  CHECK_THROWS_WITH(call(adapters::off),
                    ATMANRL_CONTAINS("filled with the adapters on") && ATMANRL_CONTAINS("clear()"));
  CHECK_NOTHROW(call(adapters::on));
  std::vector<double> const other = adapter_values(small_config(), some_targets(), 71);
  model.assign_trainable(as(other, {index_t(other.size())}));
  CHECK_THROWS_WITH(call(adapters::on), ATMANRL_CONTAINS("version"));
}

TEST_CASE("lora: the gradient has the adapters' size, and the model's own is refused") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config());
  model.attach(some_targets(), 1);
  kv_cache<reference_backend, double> cache(backend, small_config(), 8);
  forward_pass<reference_backend, double> pass(backend);
  ragged_batch batch;
  batch.add(cache.add_sequence(4), std::array{1, 2});
  model.forward(cache, batch, pass, {.mode = gradient_mode::parameters});
  model.log_probs(pass, std::vector<scored_token>{{0, 1}});
  std::vector<double> const one{1};
  std::vector<double> whole(std::size_t(model.layout().size())), mine(std::size_t(model.trainable_layout().size()));
  CHECK_THROWS_WITH(model.backward(cache, pass, {.log_p = one}, {.parameters = as(whole, {index_t(whole.size())})}),
                    ATMANRL_CONTAINS(fmt::format("{} parameters", mine.size())));
  CHECK_NOTHROW(model.backward(cache, pass, {.log_p = one}, {.parameters = as(mine, {index_t(mine.size())})}));
}

TEST_CASE("lora: merged matrices compute what the adapters compute") {
  auto const tokens = random_tokens(30, 11, 4);
  for (auto const& l : {some_targets(), lora_config{.rank = 2, .alpha = 4}}) {
    reference_backend plain;
    auto exact = random_model<reference_backend, double>(plain, rich_config());
    give_adapters(exact, l, adapter_values(rich_config(), l));
    auto one = merged(exact);
    CHECK(relative_difference(teacher_forced(one, tokens), teacher_forced(exact, tokens)) < 1e-12);
    cpu_backend fast({.threads = 2});
    auto model = random_model<cpu_backend, float>(fast, rich_config());
    give_adapters(model, l, adapter_values(rich_config(), l));
    auto single = merged(model);
    CHECK(relative_difference(teacher_forced(single, tokens), teacher_forced(model, tokens)) < 1e-5);
    CHECK(relative_difference(teacher_forced(model, tokens), teacher_forced(exact, tokens)) < 1e-5);
  }
}

TEST_CASE("lora: cpu_backend's gradients agree with plain loops in double, also through bf16 base weights") {
  auto const l = some_targets();
  model_config const c = rich_config();
  auto const tree = ragged_tree(11);
  auto const gradient = [&]<class B, class W>(B& backend, llama<B, W> model) {
    using T = typename llama<B, W>::scalar;
    give_adapters(model, l, adapter_values(c, l));
    laid_out<B, T> on(backend, c, tree);
    forward_pass<B, T> pass(backend);
    model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::parameters});
    auto const scored = score_all(on.batch.rows(), 11);
    model.log_probs(pass, scored);
    auto const weights = converted<T>(random_values(index_t(scored.size()), 21));
    auto g = tensor<B, T, 1>::zeros(backend, {model.trainable_layout().size()});
    model.backward(on.cache, pass, {.log_p = weights}, {.parameters = g.view()});
    return g.to_host();
  };
  reference_backend plain;
  cpu_backend fast({.threads = 2, .exact_activations = true});
  CHECK(relative_difference(gradient(fast, random_model<cpu_backend, float>(fast, c)),
                            gradient(plain, random_model<reference_backend, double>(plain, c))) < 1e-5);
  // The same rounded weights in double are the exact answer for bf16.
  auto const rounded = random_model<cpu_backend, bf16>(fast, c);
  auto const values = read_parameters(rounded);
  llama<reference_backend, double> exact(plain, c);
  set_parameters(exact, std::vector<double>(values.begin(), values.end()));
  CHECK(relative_difference(gradient(fast, random_model<cpu_backend, bf16>(fast, c)),
                            gradient(plain, std::move(exact))) < 1e-5);
}

TEMPLATE_TEST_CASE("lora on cpu_backend: decoding gives the bits of training, with any number of threads", "", float,
                   bf16) {
  model_config c = rich_config();
  c.hidden = 44;
  c.head_dim = 10;
  c.ffn = 70;
  c.vocab = 1100;
  c.max_positions = 256;
  auto const tokens = random_tokens(50, c.vocab, 8);
  lora_config const l{.rank = 5, .alpha = 7};
  std::vector<float> first;
  for (int const threads : {1, 2}) {
    cpu_backend backend({.threads = threads});
    auto model = random_model<cpu_backend, TestType>(backend, c, 6);
    give_adapters(model, l, adapter_values(c, l));
    auto const whole = teacher_forced(model, tokens, 0.8, gradient_mode::parameters);
    if (first.empty()) first = whole;
    CHECK(whole == first);
    kv_cache<cpu_backend, float> cache(backend, c, 60);
    forward_pass<cpu_backend, float> pass(backend);
    int const id = cache.add_sequence(60);
    std::vector<float> decoded;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      ragged_batch batch;
      batch.add(id, std::span(tokens).subspan(i, 1));
      model.forward(cache, batch, pass);
      model.log_probs(pass, std::vector<scored_token>{{0, tokens[i + 1]}}, 0.8);
      decoded.push_back(pass.log_p()[0]);
    }
    CHECK(decoded == whole);
  }
}

TEST_CASE("lora: impossible configurations are refused by name") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config());
  CHECK_THROWS_WITH(model.attach({.rank = 0}, 1), ATMANRL_CONTAINS("rank is 0"));
  CHECK_THROWS_WITH(model.attach({.alpha = -1}, 1), ATMANRL_CONTAINS("alpha is -1"));
  CHECK_THROWS_WITH(model.attach({.targets = {"q_proj", "lm_head"}}, 1),
                    ATMANRL_CONTAINS("\"lm_head\" is no matrix that can be adapted (q_proj, k_proj, v_proj, o_proj"));
  CHECK_FALSE(model.has_adapters());
  model.attach({.targets = {"v_proj", "q_proj"}}, 1);
  CHECK(model.adapter_config()->targets == std::vector<std::string>{"q_proj", "v_proj"});
  CHECK(parse_lora_targets("v_proj,q_proj", "x") == std::vector<std::string>{"q_proj", "v_proj"});
  CHECK(lora_targets_text(parse_lora_targets("all", "x")) == "all");
  CHECK_THROWS_WITH(parse_lora_targets("q_proj,q_proj", "x"), ATMANRL_CONTAINS("twice"));
  CHECK_THROWS_AS(parse_lora_targets("", "x"), usage_error);
}

}  // namespace lora_test
