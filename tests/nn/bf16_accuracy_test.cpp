// What bf16 costs in accuracy: log-probabilities of a text under float weights, under weights rounded to bf16, and with
// activations rounded, too.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"
#include "test_data.hpp"

using namespace atmanrl_test;

namespace bf16_accuracy_test {
namespace {

struct difference {
  double mean = 0, largest = 0;
};
difference between(std::vector<float> const& a, std::vector<float> const& b) {
  difference d;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double const x = std::abs(double(a[i]) - double(b[i]));
    d.mean += x / double(a.size());
    d.largest = std::max(d.largest, x);
  }
  return d;
}

template <class Make>
void compare(std::vector<int> const& tokens, Make const& make) {
  cpu_backend exact({.threads = 2, .exact_activations = true}), pairs({.threads = 2});
  auto whole = make(exact, float{});
  auto rounded = make(exact, bf16{}), both = make(pairs, bf16{});
  auto const f32 = teacher_forced(whole, tokens), weights = teacher_forced(rounded, tokens),
             activations = teacher_forced(both, tokens);
  difference const by_weights = between(f32, weights), by_activations = between(weights, activations);
  CAPTURE(by_weights.mean, by_weights.largest, by_activations.mean, by_activations.largest);
  CHECK(by_weights.mean > 0);
  CHECK(by_weights.mean < 0.02);
  CHECK((by_activations.mean > 0) == (pairs.products() != bf16_products::floats));
  CHECK(by_activations.mean < 2 * by_weights.mean);
  CHECK(by_activations.largest < 4 * by_weights.largest);
}

}  // namespace

TEST_CASE("bf16: rounding activations moves log-probabilities about as much as rounding weights does") {
  compare(random_tokens(200, 23, 3), [](cpu_backend& b, auto w) {
    model_config c = rich_config();
    c.max_positions = 256;
    c.vocab = 23;
    return random_model<cpu_backend, decltype(w)>(b, c, 6);
  });
}

TEST_CASE("bf16: the same for a trained model and the text that it writes", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  auto const path = *data / "tinyllamas/stories260K.bin";
  cpu_backend backend({.threads = 2});
  auto writer = llama<cpu_backend>::load(backend, path);
  std::vector<std::vector<int>> const prompts{{1}};
  generate_options o;
  o.group_size = 4;
  o.max_new_tokens = 250;
  o.seed = 5;
  auto const text = generate(writer, prompts, o, samplers::multinomial{});
  for (completion const& c : text[0]) {
    std::vector<int> tokens{1};
    tokens.insert(tokens.end(), c.ids.begin(), c.ids.end());
    compare(tokens, [&](cpu_backend& b, auto w) {
      return llama<cpu_backend>::load(b, path, {}, storage_in<cpu_backend, decltype(w)>);
    });
  }
}

}  // namespace bf16_accuracy_test
