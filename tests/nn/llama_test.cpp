#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/nn/decoder.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"
#include "nn/small_model.hpp"
#include "test_data.hpp"

#include <regex>

using namespace atmanrl_test;

namespace llama_test {
namespace {

/// Log-probabilities of a batch's own rows and the gradient of their weighted sum, one weight per branch and row.
template <class B, class W>
struct evaluation {
  using T = typename llama<B, W>::scalar;
  std::vector<T> log_p;
  std::vector<double> gradient;
};

template <class B, class W>
evaluation<B, W> evaluate(llama<B, W>& model, std::vector<branch> const& tree, std::vector<int> const& order,
                          bool shared) {
  using T = typename llama<B, W>::scalar;
  B& backend = model.backend();
  kv_cache<B, T> cache(backend, model.config(), 200);
  ragged_batch batch;
  std::vector<int> ids, first(tree.size()), own(tree.size());
  for (branch const& b : tree) {
    std::size_t const i = ids.size();
    own[i] = int(b.tokens.size());
    std::vector<int> const all = whole_sequence(tree, int(i));
    ids.push_back(!shared || b.parent < 0 ? cache.add_sequence(index_t(all.size()))
                                          : cache.add_child(ids[std::size_t(b.parent)], b.visible, own[i]));
  }
  for (int const i : order) {
    std::size_t const at = std::size_t(i);
    std::vector<int> const tokens = shared ? tree[at].tokens : whole_sequence(tree, i);
    first[at] = batch.add(ids[at], tokens, i) + int(tokens.size()) - own[at];
  }
  forward_pass<B, T> pass(backend);
  model.forward(cache, batch, pass, {.mode = gradient_mode::parameters});
  std::vector<scored_token> scored;
  for (std::size_t i = 0; i < tree.size(); ++i)
    for (int r = 0; r < own[i]; ++r)
      scored.push_back({first[i] + r, int(i + std::size_t(r) * 3) % int(model.config().vocab)});
  model.log_probs(pass, scored);
  evaluation<B, W> out;
  out.log_p = pass.log_p();
  auto const weights = converted<T>(random_values(index_t(scored.size()), 5));
  auto gradient = tensor<B, T, 1>::zeros(backend, {model.layout().size()});
  model.backward(cache, pass, {.log_p = weights}, {.parameters = gradient.view()});
  out.gradient = converted<double>(gradient.to_host());
  return out;
}

std::vector<int> in_order(std::size_t n) {
  std::vector<int> order(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = int(i);
  return order;
}

std::string source(std::filesystem::path const& relative) {
  std::ifstream in(std::filesystem::path(ATMANRL_FIXTURES).parent_path().parent_path() / "include" / "atmanrl" /
                   relative);
  REQUIRE(in);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

int count(std::string const& text, std::string const& pattern) {
  std::regex const r(pattern);
  return int(std::distance(std::sregex_iterator(text.begin(), text.end(), r), std::sregex_iterator()));
}

}  // namespace

TEMPLATE_TEST_CASE("llama: a shared prefix tree gives the values and gradients of separate sequences", "", double,
                   float) {
  using B = std::conditional_t<std::is_same_v<TestType, double>, reference_backend, cpu_backend>;
  double const tolerance = std::is_same_v<TestType, double> ? 1e-11 : 2e-5;
  B backend;
  auto model = random_model<B, TestType>(backend, rich_config());
  auto const tree = ragged_tree(11);
  auto const ours = evaluate(model, tree, in_order(tree.size()), true),
             separate = evaluate(model, tree, in_order(tree.size()), false);
  CHECK(relative_difference(ours.log_p, separate.log_p) < tolerance);
  CHECK(relative_difference(ours.gradient, separate.gradient) < tolerance);
  // Any order in the batch, children before their parents too.
  auto const shuffled = evaluate(model, tree, {5, 2, 8, 7, 4, 0, 3, 6, 1}, true);
  CHECK(relative_difference(shuffled.log_p, ours.log_p) < tolerance);
  CHECK(relative_difference(shuffled.gradient, ours.gradient) < tolerance);
}

TEST_CASE("llama: cpu_backend agrees with the plain loops on values and on every parameter's gradient") {
  reference_backend plain;
  cpu_backend fast({.threads = 2});
  for (bool const rich : {false, true}) {
    model_config const config = rich ? rich_config() : small_config();
    auto exact = random_model<reference_backend, double>(plain, config);
    auto model = random_model<cpu_backend, float>(fast, config);
    auto const tree = ragged_tree(11);
    auto const a = evaluate(model, tree, in_order(tree.size()), true);
    auto const b = evaluate(exact, tree, in_order(tree.size()), true);
    CHECK(relative_difference(a.log_p, b.log_p) < 1e-5);
    for (parameter_info const& p : exact.layout().all()) {
      INFO(p.name);
      auto const part = [&](std::vector<double> const& all) {
        return std::span(all).subspan(std::size_t(p.offset), std::size_t(p.size()));
      };
      CHECK(relative_difference(part(a.gradient), part(b.gradient)) < 1e-4);
    }
  }
}

TEST_CASE("llama: rows of earlier calls count as rows of the same call") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config());
  auto const tree = ragged_tree(11);
  auto const expected = evaluate(model, tree, in_order(tree.size()), true).log_p;

  laid_out<reference_backend, double> on(backend, model.config(), tree);
  forward_pass<reference_backend, double> pass(backend);
  std::vector<double> log_p;
  for (std::size_t i = 0; i < tree.size(); ++i) {
    for (std::size_t r = 0; r < tree[i].tokens.size(); ++r) {  // one branch after the other, row by row
      ragged_batch batch;
      batch.add(on.ids[i], std::span(tree[i].tokens).subspan(r, 1), int(i));
      model.forward(on.cache, batch, pass);
      model.log_probs(pass, std::vector<scored_token>{{0, int(i + r * 3) % 11}});
      log_p.push_back(pass.log_p()[0]);
    }
  }
  CHECK(relative_difference(log_p, expected) < 1e-12);
}

TEST_CASE("llama: parameter gradients are refused when an ancestor's rows are of an earlier call") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config());
  kv_cache<reference_backend, double> cache(backend, model.config(), 20);
  forward_pass<reference_backend, double> pass(backend);
  int const root = cache.add_sequence(4), child = cache.add_child(root, 3, 4);
  ragged_batch batch;
  batch.add(root, std::array{1, 2, 3});
  model.forward(cache, batch, pass);
  batch.clear();
  batch.add(child, std::array{4, 5});
  CHECK_THROWS_WITH(model.forward(cache, batch, pass, {.mode = gradient_mode::parameters}),
                    ATMANRL_CONTAINS("3 positions of sequence 0") && ATMANRL_CONTAINS("3 were there before"));
  CHECK(cache.length(child) == 3);
  CHECK_NOTHROW(model.forward(cache, batch, pass, {.mode = gradient_mode::activations}));
  CHECK(cache.length(child) == 5);
  batch.clear();
  batch.add(child, std::array{6});
  CHECK_THROWS_AS(model.forward(cache, batch, pass, {.mode = gradient_mode::parameters}),
                  shape_error);  // its own earlier rows too
}

TEST_CASE("llama: logits, their log-softmax at a temperature and the entropy say the same") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, rich_config());
  auto const tree = ragged_tree(11);
  laid_out<reference_backend, double> on(backend, model.config(), tree);
  forward_pass<reference_backend, double> pass(backend);
  model.forward(on.cache, on.batch, pass);
  double const temperature = 0.6;
  model.log_probs(pass, std::vector<scored_token>{{4, 7}, {9, 0}}, temperature, true);
  auto const log_p = pass.log_p(), entropy = pass.entropy();
  tensor<reference_backend, double, 2> logits;
  model.logits(pass, std::array{4, 9}, logits);
  for (int i = 0; i < 2; ++i) {
    double sum = 0, h = 0;
    for (int j = 0; j < 11; ++j) sum += std::exp(logits.view()(i, j) / temperature);
    for (int j = 0; j < 11; ++j) {
      double const lp = logits.view()(i, j) / temperature - std::log(sum);
      h -= std::exp(lp) * lp;
      if (j == (i == 0 ? 7 : 0)) CHECK(log_p[std::size_t(i)] == Approx(lp).epsilon(1e-12));
    }
    CHECK(entropy[std::size_t(i)] == Approx(h).epsilon(1e-12));
  }
}

TEMPLATE_TEST_CASE("llama: what is assigned is read back, rounded to the storage of matrices", "", float, bf16) {
  cpu_backend backend;
  llama<cpu_backend> model(backend, rich_config(), {}, storage_in<cpu_backend, TestType>);
  auto const flat = random_parameters(model.config(), 3);
  auto const before = model.version();
  set_parameters(model, flat);
  CHECK(model.version() != before);
  auto const back = read_parameters(model);
  bool equal = true;
  for (parameter_info const& p : model.layout().all()) {
    for (index_t i = p.offset; i < p.offset + p.size(); ++i) {
      float const x = float(flat[std::size_t(i)]);
      equal = equal && back[std::size_t(i)] == (p.is_vector() ? x : float(TestType(x)));
    }
    tensor<cpu_backend, float, 2> last(backend, {1, p.columns});
    model.read_rows(p, p.rows - 1, last.view());
    equal =
        equal && std::equal(last.data(), last.data() + p.columns, back.begin() + p.offset + (p.rows - 1) * p.columns);
  }
  CHECK(equal);
  tensor<cpu_backend, float, 1> short_one(backend, {3});
  CHECK_THROWS_WITH(model.assign(short_one.cview()), ATMANRL_CONTAINS("3 values"));
  CHECK_THROWS_AS(model.read(short_one.view()), shape_error);
}

TEMPLATE_TEST_CASE("llama: a Hugging Face folder that was written and loaded gives the same log-probabilities", "",
                   float, bf16) {
  cpu_backend backend;
  auto const model_of = [&](model_config const& c) { return random_model<cpu_backend, TestType>(backend, c, 4); };
  model_config qwen = rich_config();
  qwen.architecture = "qwen2";
  qwen.rope_scaling = {};
  model_config own_head = rich_config();
  own_head.qkv_bias = false;
  for (model_config const& c : {small_config(), own_head, qwen}) {
    auto model = model_of(c);
    scratch_folder const folder;
    auto const rows = [&](std::string_view name, index_t first, index_t n, std::span<float> out) {
      auto const all = model.layout().all();
      auto const p = std::find_if(all.begin(), all.end(), [&](parameter_info const& x) { return x.name == name; });
      REQUIRE(p != all.end());
      if (p->is_vector()) {
        tensor<cpu_backend, float, 2> whole(backend, {1, p->columns});
        model.read_rows(*p, 0, whole.view());
        std::copy_n(whole.data() + first, n, out.begin());
      } else {
        model.read_rows(*p, first, view<float, 2>(out.data(), {n, p->columns}));
      }
    };
    save_hugging_face_folder(
        folder / "model", model.config(), model.kind(), rows,
        {.type = std::is_same_v<TestType, bf16> ? dtype::bf16 : dtype::f32, .max_shard_bytes = 3000});
    auto loaded = llama<cpu_backend>::load(backend, folder / "model", {}, storage_in<cpu_backend, TestType>);
    CHECK(loaded.config() == model.config());
    if (std::is_same_v<TestType, float>) CHECK(read_parameters(loaded) == read_parameters(model));
    std::vector<int> const tokens = random_tokens(20, c.vocab, 9);
    auto const a = teacher_forced(loaded, tokens), b = teacher_forced(model, tokens);
    // A folder has one element type, so bf16 rounds the gains too.
    if (std::is_same_v<TestType, float>)
      CHECK(a == b);
    else
      CHECK(relative_difference(a, b) < 0.02);
  }
}

TEST_CASE(
    "llama: a token outside the vocabulary and a sequence beyond the model's positions are named, the cache stays") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config());
  kv_cache<reference_backend, double> cache(backend, model.config(), 200);
  forward_pass<reference_backend, double> pass(backend);
  int const s = cache.add_sequence(100);
  ragged_batch batch;
  for (int const bad : {11, -1}) {
    batch.clear();
    batch.add(s, std::array{1, bad});
    CHECK_THROWS_WITH(model.forward(cache, batch, pass),
                      ATMANRL_CONTAINS(fmt::format("token id {}", bad)) && ATMANRL_CONTAINS("vocabulary of 11"));
  }
  batch.clear();
  batch.add(s, std::vector<int>(64, 1));
  CHECK_NOTHROW(model.forward(cache, batch, pass));
  CHECK_THROWS_AS(model.log_probs(pass, std::vector<scored_token>{{3, 11}}), usage_error);
  CHECK_THROWS_AS(model.log_probs(pass, std::vector<scored_token>{{64, 1}}), shape_error);
  CHECK_THROWS_AS(model.log_probs(pass, std::vector<scored_token>{{0, 1}}, 0), usage_error);
  batch.clear();
  batch.add(s, std::array{1});
  CHECK_THROWS_WITH(model.forward(cache, batch, pass),
                    ATMANRL_CONTAINS("65 tokens") && ATMANRL_CONTAINS("limit is 64"));
  CHECK(cache.length(s) == 64);
  ragged_batch const nothing;
  CHECK_THROWS_AS(model.forward(cache, nothing, pass), shape_error);

  int const small = cache.add_sequence(2);
  batch.clear();
  batch.add(small, std::array{1, 2, 3});
  CHECK_THROWS_WITH(model.forward(cache, batch, pass), ATMANRL_CONTAINS("room for 2"));
  CHECK(cache.length(small) == 0);
}

TEST_CASE("llama: rotation tables that grow with the sequences are those of a model that began with a long one") {
  reference_backend backend;
  model_config config = rich_config();
  config.max_positions = 600;  // tables begin with 256 positions
  auto grown = random_model<reference_backend, double>(backend, config),
       fresh = random_model<reference_backend, double>(backend, config);
  auto const tokens = random_tokens(530, config.vocab, 12);
  for (std::size_t const length : {3u, 257u, 530u})
    teacher_forced(grown, {tokens.begin(), tokens.begin() + std::ptrdiff_t(length)});
  CHECK(teacher_forced(grown, tokens) == teacher_forced(fresh, tokens));
}

TEST_CASE("llama: a cache of other weights is refused, in the backward pass too") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config());
  kv_cache<reference_backend, double> cache(backend, model.config(), 20);
  forward_pass<reference_backend, double> pass(backend);
  ragged_batch batch;
  batch.add(cache.add_sequence(5), std::array{1, 2});
  model.forward(cache, batch, pass, {.mode = gradient_mode::parameters});
  model.log_probs(pass, std::vector<scored_token>{{0, 1}});
  std::vector<double> gradient(std::size_t(model.layout().size()));
  std::vector<double> const one{1.0};
  auto const backward = [&] {
    model.backward(cache, pass, {.log_p = one}, {.parameters = as(gradient, {index_t(gradient.size())})});
  };
  CHECK_NOTHROW(backward());
  set_parameters(model, random_parameters(model.config(), 2));
  CHECK_THROWS_WITH(model.forward(cache, batch, pass), ATMANRL_CONTAINS("version") && ATMANRL_CONTAINS("clear()"));
  CHECK_THROWS_AS(backward(), shape_error);
  cache.clear();
  batch.clear();
  batch.add(cache.add_sequence(5), std::array{1, 2});
  CHECK_NOTHROW(model.forward(cache, batch, pass));
}

TEST_CASE("llama: backward says what it misses") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, small_config());
  std::vector<double> gradient(std::size_t(model.layout().size()));
  std::vector<double> const one{1.0}, two{1.0, 2.0};
  auto const all = as(gradient, {index_t(gradient.size())});
  kv_cache<reference_backend, double> cache(backend, model.config(), 20);
  forward_pass<reference_backend, double> pass(backend);
  auto const forward = [&](gradient_mode mode) {
    cache.clear();
    ragged_batch batch;
    batch.add(cache.add_sequence(5), std::array{1, 2});
    model.forward(cache, batch, pass, {.mode = mode});
  };
  auto const backward = [&](std::vector<double> const& d, view<double, 1> g) {
    model.backward(cache, pass, {.log_p = d}, {.parameters = g});
  };
  forward(gradient_mode::none);
  CHECK_THROWS_WITH(backward(one, all), ATMANRL_CONTAINS("kept its activations"));
  forward(gradient_mode::activations);
  CHECK_THROWS_WITH(backward(one, all), ATMANRL_CONTAINS("activations only"));
  forward(gradient_mode::parameters);
  CHECK_THROWS_WITH(backward(one, {}), ATMANRL_CONTAINS("parameter gradients"));
  CHECK_THROWS_WITH(backward(one, all), ATMANRL_CONTAINS("needs log_probs"));
  model.log_probs(pass, std::vector<scored_token>{{0, 1}});
  CHECK_THROWS_WITH(backward(two, all), ATMANRL_CONTAINS("for 1 scored tokens"));
  CHECK_THROWS_AS(backward(one, all.rows(0, 5)), shape_error);
  tensor<reference_backend, double, 2> logits;
  model.logits(pass, std::array{1}, logits);  // gathers other rows, so log_probs must come again
  CHECK_THROWS_WITH(backward(one, all), ATMANRL_CONTAINS("needs log_probs"));
}

TEST_CASE("llama: one function walks the layers") {
  std::string const model = source("nn/decoder.hpp");
  // One loop over the layers; in nn/decoder_weights.hpp one more, of the constructor that makes them.
  CHECK(count(model, R"(for \([^\n]*layers)") == 1);
  CHECK(count(source("nn/decoder_weights.hpp"), R"(for \([^\n]*layers)") == 1);
  CHECK(count(model, R"(for \(std::size_t step = 0; step < layers_\.size\(\); \+\+step\))") == 1);
  CHECK(count(model, R"(void walk_layers\()") == 1);
  CHECK(count(model, R"([^_ ]\s+walk_layers\(cache, pass)") == 2);  // by forward and by backward
  CHECK(count(model, R"(layer\.forward\()") == 1);
  CHECK(count(model, R"(layer\.backward\()") == 1);
  // Nobody else has layers at all but the adapters, which live in them; the compiled library's list only says which are
  // compiled once.
  auto const top = std::filesystem::path(ATMANRL_FIXTURES).parent_path().parent_path() / "include" / "atmanrl";
  std::vector<std::string> users;
  for (auto const& entry : std::filesystem::recursive_directory_iterator(top)) {
    if (!entry.is_regular_file()) continue;
    std::string const name = entry.path().lexically_relative(top).generic_string();
    if (count(source(name), R"((?:^|\n)(?!ATMANRL_TEMPLATE class )[^\n]*decoder_layer<)") > 0) users.push_back(name);
  }
  std::sort(users.begin(), users.end());
  CHECK(users == std::vector<std::string>{"nn/decoder.hpp", "nn/decoder_weights.hpp", "nn/lora_adapters.hpp"});
}

TEST_CASE("llama: the head works on the scored rows alone, whatever the size of the batch") {
  auto const bytes = [](std::size_t rows, std::size_t scored) {
    reference_backend backend;
    auto model = random_model<reference_backend, float>(backend, small_config());
    auto const tokens = random_tokens(rows, 11, 4);
    kv_cache<reference_backend, float> cache = model.new_cache(index_t(rows));
    forward_pass<reference_backend, float> pass(backend);
    ragged_batch batch;
    batch.add(cache.add_sequence(index_t(rows)), tokens);
    model.forward(cache, batch, pass);
    std::size_t const before = backend.allocated_bytes();
    std::vector<scored_token> some;
    for (std::size_t i = 0; i < scored; ++i) some.push_back({int(i), 1});
    model.log_probs(pass, some);
    return backend.allocated_bytes() - before;
  };
  CHECK(bytes(60, 3) == bytes(6, 3));
  CHECK(bytes(60, 30) > 5 * bytes(60, 3));
}

}  // namespace llama_test
