// Decoding by CUDA graphs: the bits of eager decoding, and what a token asks of the device. The emulation's products
// have the same bits for any number of rows, so a rollout may be compared with one that had other neighbours; cuBLAS'
// need not, so on a device runs are compared whose rollouts end together.
#include <atmanrl/rl/generate.hpp>

#include "catch.hpp"
#include "cuda/launches_of.hpp"
#include "cuda/small_device_model.hpp"
#include "io/scratch.hpp"

#include <algorithm>
#include <concepts>
#include <limits>
#include <set>
#include <string>

namespace decode_graph_test {
using namespace atmanrl_test;

namespace {

using completions = std::vector<std::vector<completion>>;

model_config decoded_config(index_t positions = 64) {
  model_config c = device_config();
  c.max_positions = positions;
  c.stop_ids.clear();
  c.tied_head = false;  // else the likeliest token is the last one
  return c;
}

std::vector<std::vector<int>> some_prompts() {
  return {random_tokens(4, 37, 1), random_tokens(9, 37, 2), random_tokens(1, 37, 3)};
}

generate_options sampling(int group, int tokens) {
  generate_options o;
  o.group_size = group;
  o.max_new_tokens = tokens;
  o.seed = 5;
  o.step = 2;
  o.first_prompt = 3;
  return o;
}

/// Where the backend moves the rows on, recorded or not, and where the host does, which is the oracle.
enum class decoding { recorded, unrecorded, eager };

template <class W, bool MovesOn>
struct decoded_model : llama<cuda_backend, W> {
  static constexpr bool is_recordable = MovesOn;
  decoded_model(cuda_backend& device, model_config const& config) : llama<cuda_backend, W>(device, config) {
    set_parameters(static_cast<llama<cuda_backend, W>&>(*this), random_parameters(config, 3, 0.8));
  }
};

/// f(model, device) of a random model.
template <class W, class F>
auto with_model(decoding how, model_config const& config, F const& f) {
  cuda_backend device({.graphs = how == decoding::recorded});
  if (how == decoding::eager) {
    decoded_model<W, false> model(device, config);
    return f(model, device);
  }
  decoded_model<W, true> model(device, config);
  return f(model, device);
}

template <class W, class S = samplers::multinomial>
completions decoded(decoding how, generate_options const& o, std::vector<std::vector<int>> const& prompts,
                    S const& sampler = {}, model_config const& config = decoded_config()) {
  return with_model<W>(how, config,
                       [&](auto& model, auto&) { return generate(model, std::span(prompts), o, sampler); });
}

void check_same(completions const& got, completions const& expected) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t p = 0; p < got.size(); ++p) {
    for (std::size_t m = 0; m < got[p].size(); ++m) {
      INFO("prompt " << p << ", rollout " << m);
      CHECK(got[p][m].ids == expected[p][m].ids);
      CHECK(got[p][m].log_probs == expected[p][m].log_probs);
      CHECK(got[p][m].entropies == expected[p][m].entropies);
      CHECK(got[p][m].truncated == expected[p][m].truncated);
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("cuda decode graphs: tokens, log-probabilities and entropies have the bits of eager steps", "",
                   float, bf16) {
  auto const compare = [](auto const& sampler, double temperature, int group, int tokens) {
    INFO("temperature " << temperature << ", " << group << " rollouts, " << tokens << " tokens");
    generate_options o = sampling(group, tokens);
    o.temperature = temperature;
    check_same(decoded<TestType>(decoding::recorded, o, some_prompts(), sampler),
               decoded<TestType>(decoding::eager, o, some_prompts(), sampler));
  };
  constexpr bool of_floats = std::same_as<TestType, float>;
  compare(samplers::multinomial{}, 1, of_floats ? 2 : 1, 18);
  if (!of_floats) return;  // what draws sees floats in any case
  compare(samplers::multinomial{.top_k = 9, .top_p = 0.9, .min_p = 0.01}, 0.7, 1, 6);
  compare(samplers::greedy{}, 1, 1, 18);
  compare(samplers::multinomial{}, 0, 1, 3);
  compare(samplers::any(samplers::multinomial{.top_p = 0.8}), 1.2, 1, 2);
  compare(samplers::multinomial{}, 1, 2, 1);
}

TEST_CASE("cuda decode graphs: a position that needs more parts of keys has the bits of eager steps") {
  auto const c = decoded_config(320);
  std::vector<std::vector<int>> const prompts{random_tokens(250, 37, 1), random_tokens(60, 37, 2)};
  check_same(decoded<float>(decoding::recorded, sampling(1, 12), prompts, samplers::multinomial{}, c),
             decoded<float>(decoding::eager, sampling(1, 12), prompts, samplers::multinomial{}, c));
}

TEST_CASE(
    "cuda decode graphs: the bits are those of eager steps under adapters and 16-bit keys, in memory that is there") {
  model_config c = rich_device_config();
  c.max_positions = 64;
  auto const run = [&](decoding how) {
    return with_model<bf16>(how, c, [&](auto& model, cuda_backend& device) {
      model.set_kv_storage(kv_storage::bf16);
      model.attach({.rank = 2, .alpha = 4}, 3);
      tensor<cuda_backend, float, 1> values(device, {model.trainable_layout().size()});
      completions all;
      for (unsigned time = 0; time < 2; ++time) {  // other weights, other sizes, the memory of before
        values.assign(converted<float>(random_values(values.size(), 5 + time, 0.3)));
        model.assign_trainable(values.cview());
        auto const prompts = some_prompts();
        for (auto& group : generate(model, std::span(prompts), sampling(2 - int(time), 8), samplers::multinomial{}))
          all.push_back(std::move(group));
      }
      return all;
    });
  };
  auto const eager = run(decoding::eager);
  check_same(run(decoding::recorded), eager);
  check_same(run(decoding::unrecorded), eager);
}

TEST_CASE("cuda decode graphs: a log-probability that is not a number is the error of eager steps") {
  model_config const c = decoded_config();  // whose output layer is another matrix than its embedding
  std::vector<std::vector<int>> const prompts{{2}, {4, 5, 6}};
  generate_options const o = sampling(1, 20);
  auto const run = [&](decoding how, int poisoned) {
    return with_model<float>(how, c, [&](auto& model, cuda_backend& device) {
      if (poisoned >= 0) {
        tensor<cuda_backend, float, 2> row(device, {1, c.hidden});
        row.assign(std::vector<float>(std::size_t(c.hidden), std::numeric_limits<float>::quiet_NaN()));
        model.assign_rows(*model.layout().find("model.embed_tokens.weight"), poisoned, row.cview());
      }
      return generate(model, std::span(prompts), o, samplers::multinomial{});
    });
  };
  auto const drawn = run(decoding::recorded, -1)[1][0].ids;
  std::set<std::string> sentences;
  for (int const place : {0, 5, 17}) {
    auto const sentence_of = [&](decoding how) {
      return complaint<error>([&] { run(how, drawn[std::size_t(place)]); }).value();
    };
    std::string const sentence = sentence_of(decoding::recorded);
    CHECK_THAT(sentence, ATMANRL_CONTAINS("the log-probability of token"));
    CHECK(sentence == sentence_of(decoding::eager));
    sentences.insert(sentence);
  }
  CHECK(sentences.size() > 1);
}

TEST_CASE("cuda decode graphs: somebody's own sampler draws on the host, and progress is told once a block") {
  auto const calls = [](decoding how, auto const& sampler) {
    std::vector<std::vector<index_t>> all;
    generate_options o = sampling(2, 20);
    o.on_progress = [&](int finished, int of, index_t tokens) { all.push_back({finished, of, tokens}); };
    decoded<float>(how, o, {{2, 3}}, sampler);
    return all;
  };
  struct own {
    int operator()(std::span<float const> z, double t, double u) const { return samplers::multinomial{}(z, t, u); }
  };
  CHECK(calls(decoding::recorded, samplers::multinomial{}) ==
        std::vector<std::vector<index_t>>{{0, 2, 2}, {0, 2, 34}, {2, 2, 40}});
  auto const each = calls(decoding::recorded, own{});
  REQUIRE(each.size() == 20);
  CHECK(each == calls(decoding::eager, samplers::multinomial{}));
}

namespace {

/// Its logits depend on a number of the host that changes from call to call.
struct tired_model : llama<cuda_backend, float> {
  using llama<cuda_backend, float>::llama;
  void logits(forward_pass<cuda_backend, float>& pass, std::span<int const> rows, tensor<cuda_backend, float, 2>& out) {
    llama<cuda_backend, float>::logits(pass, rows, out);
    scale<cuda_backend, float>(backend(), out.view().reshaped<1>({out.size()}), 1 + 0.2f * float(++calls));
  }
  int calls = 0;
};

}  // namespace

TEST_CASE("cuda decode graphs: a number of the host that changes between steps shows, as the bits of other steps") {
  auto const run = [](bool graphs) {
    cuda_backend device({.graphs = graphs});
    tired_model model(device, decoded_config());
    set_parameters(static_cast<llama<cuda_backend, float>&>(model), random_parameters(model.config(), 3, 0.8));
    auto const prompts = some_prompts();
    return generate(model, std::span(prompts), sampling(1, 8), samplers::multinomial{})[0][0].log_probs;
  };
  auto const got = run(true), expected = run(false);
  REQUIRE(got.size() == 8);
  // Prefill, the step that lays rows out, the one that is called, the one that is recorded.
  CHECK(std::equal(got.begin(), got.begin() + 4, expected.begin()));
  CHECK(got[4] != expected[4]);
}

TEST_CASE("cuda decode graphs: a backend that only counts takes the memory that sampling takes") {
  auto const peak = [](bool counts) {
    cuda_backend device({.only_counts = counts});
    llama<cuda_backend, bf16> model(device, decoded_config());
    auto const prompts = some_prompts();
    generate(model, std::span(prompts), sampling(2, 20), samplers::multinomial{});
    return device.peak_bytes();
  };
  CHECK(peak(true) == peak(false));
}

#if defined(ATMANRL_CUDA_EMULATION)
TEST_CASE("cuda decode graphs: the model's positions end a rollout, each at its own place") {
  std::vector<std::vector<int>> prompts;
  for (int const left : {1, 2, 3, 17, 18, 21}) prompts.push_back(random_tokens(64 - left, 37, unsigned(left)));
  cuda_emulation::streams().launched = {};
  auto const got = decoded<float>(decoding::recorded, sampling(1, 60), prompts);
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    CHECK(got[p][0].ids.size() == 64 - prompts[p].size());
    CHECK(got[p][0].truncated);
  }
  CHECK(cuda_emulation::streams().launched.captures == 2);  // three of five have ended in the first block
  check_same(got, decoded<float>(decoding::eager, sampling(1, 60), prompts));
}

namespace {

/// What sampling gives with these stop tokens, from what it gives without: rollouts do not see each other.
completions cut_at(completions all, std::vector<int> const& stop) {
  for (auto& group : all) {
    for (completion& c : group) {
      auto const at = std::find_first_of(c.ids.begin(), c.ids.end(), stop.begin(), stop.end());
      if (at == c.ids.end()) continue;
      std::size_t const n = std::size_t(at - c.ids.begin()) + 1;
      c.ids.resize(n);
      c.log_probs.resize(n);
      c.entropies.resize(n);
      c.truncated = false;
    }
  }
  return all;
}

}  // namespace

TEST_CASE(
    "cuda decode graphs: a stop token ends a rollout at every place of a block, and leaves the others as they are") {
  auto config = decoded_config();
  config.vocab = 1999;  // so that few tokens come twice
  std::vector<std::vector<int>> const prompts{{2, 3, 4}, {5}};
  generate_options o = sampling(10, 19);
  o.temperature = 20;
  auto const all = decoded<float>(decoding::eager, o, prompts, samplers::multinomial{}, config);
  auto const lengths_of = [](completions const& cut) {
    std::set<std::size_t> lengths;
    for (auto const& group : cut)
      for (completion const& c : group) lengths.insert(c.ids.size());
    return lengths;
  };
  // One rollout after the other gets a stop token, at one place after the other, unless that cuts others short.
  std::size_t const places = 18;
  std::size_t place = 0;
  for (auto const& group : all) {
    for (completion const& c : group) {
      o.stop_ids.push_back(c.ids[std::min(place, places - 1)]);
      auto const lengths = lengths_of(cut_at(all, o.stop_ids));
      bool fits = place < places;
      for (std::size_t n = 1; n <= place + 1; ++n) fits = fits && lengths.contains(n);
      if (fits)
        ++place;
      else
        o.stop_ids.pop_back();
    }
  }
  REQUIRE(place == places);
  check_same(decoded<float>(decoding::recorded, o, prompts, samplers::multinomial{}, config), cut_at(all, o.stop_ids));
}

namespace {

/// Of the tokens after 17 up to 33.
cuda_emulation::launch_counts launches_of_sixteen(decoding how) {
  return launches_of(17, 33, [&](int tokens) { decoded<bf16>(how, sampling(2, tokens), {{2, 3}}); });
}

}  // namespace

TEST_CASE("cuda decode graphs: sixteen tokens are sixteen graphs, one copy and one wait") {
  auto const block = launches_of_sixteen(decoding::recorded);
  CHECK(block.graphs == 16);
  CHECK(block.kernels == 0);
  CHECK(block.products == 0);
  CHECK(block.copies == 1);
  CHECK(block.waits == 1);
  CHECK(block.captures == 1);
  auto const pieces = launches_of_sixteen(decoding::unrecorded);
  CHECK(pieces.graphs == 0);
  CHECK(pieces.captures == 0);
  CHECK(pieces.kernels == 19 * 16);  // one more than without the host's part
  CHECK(pieces.copies == 1);
  CHECK(pieces.waits == 1);
  auto const eager = launches_of_sixteen(decoding::eager);
  INFO("eager, 16 tokens: " << eager.kernels << " kernels, " << eager.products << " products, " << eager.copies
                            << " copies, " << eager.waits << " waits");
  CHECK(eager.graphs == 0);
  CHECK(eager.captures == 0);
  CHECK(eager.waits == 16);
  CHECK(eager.copies == 7 * 16);    // six of the host's, one of the tokens
  CHECK(eager.kernels == 18 * 16);  // 6 for each of two layers and 6 around them
  CHECK(eager.products == 9 * 16);
}
#endif

}  // namespace decode_graph_test
