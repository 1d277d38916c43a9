// Rows of an embedding that no token stands for.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
#include <atmanrl/rl/token_rows.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"

#include <cmath>

using namespace atmanrl;
using namespace atmanrl_test;

namespace token_rows_test {
namespace {

/// Nine tokens for a model of eleven rows, and a hole among them.
struct nine_tokens {
  index_t vocab_size() const { return 9; }
  bool has_token(int id) const { return id >= 0 && id < 9 && id != 4; }
  int bos() const { return -1; }
  std::vector<int> encode(std::string_view) const { return {}; }
  std::vector<int> encode_with_specials(std::string_view) const { return {}; }
  std::string decode(std::span<int const>) const { return {}; }
  std::string_view token_bytes(int) const { return {}; }
  bool is_special(int) const { return false; }
  std::optional<int> token_id(std::string_view) const { return std::nullopt; }
};

std::vector<int> const missing{4, 9, 10};

}  // namespace

TEMPLATE_TEST_CASE("token rows: what no token stands for is never drawn and has no probability", "", float, bf16) {
  cpu_backend backend({.threads = 1});
  auto model = random_model<cpu_backend, TestType>(backend, small_config());
  std::vector<std::vector<int>> const prompts{{1, 2, 3}, {5, 6}};
  generate_options const options{.group_size = 60, .max_new_tokens = 40, .stop_ids = {}, .seed = 3, .on_progress = {}};
  auto const drawn = [&] {
    std::vector<int> counts(11);
    std::vector<std::vector<completion>> all =
        generate(model, std::span<std::vector<int> const>(prompts), options, samplers::multinomial{});
    for (auto const& group : all)
      for (completion const& c : group)
        for (int const id : c.ids) ++counts[std::size_t(id)];
    return std::pair(counts, all);
  };
  auto const before = drawn().first;
  for (int const id : missing) CHECK(before[std::size_t(id)] > 0);

  forbid_missing_tokens(model, nine_tokens{});
  auto const [after, completions] = drawn();
  for (int const id : missing) CHECK(after[std::size_t(id)] == 0);

  // Teacher forcing gives what the sampler recorded, to the last bit.
  std::vector<int> whole = prompts[0];
  completion const& first = completions[0][0];
  whole.insert(whole.end(), first.ids.begin(), first.ids.end());
  auto const log_p = teacher_forced(model, whole);
  for (std::size_t i = 0; i < first.ids.size(); ++i) CHECK(log_p[2 + i] == first.log_probs[i]);
}

TEST_CASE("token rows: the probabilities of the tokens sum to one, and their gradients are exact") {
  reference_backend backend;
  model_config config = small_config();
  config.tied_head = false;
  auto model = random_model<reference_backend, double>(backend, config);
  forbid_missing_tokens(model, nine_tokens{});
  auto const run = [&](tensor<reference_backend, double, 1>* gradient) {
    kv_cache<reference_backend, double> cache(backend, config, 8);
    forward_pass<reference_backend, double> pass(backend);
    ragged_batch batch;
    batch.add(cache.add_sequence(3), std::vector<int>{1, 2, 3});
    model.forward(cache, batch, pass, {.mode = gradient_mode::parameters});
    std::vector<scored_token> all;
    for (int id = 0; id < 11; ++id) all.push_back({2, id});
    model.log_probs(pass, all);
    auto const log_p = pass.log_p();
    if (gradient) {
      std::vector<double> d(11, 0.0);
      d[2] = 1;
      model.backward(cache, pass, {.log_p = d}, {.parameters = gradient->view()});
    }
    return log_p;
  };
  double sum = 0;
  auto const log_p = run(nullptr);
  for (int id = 0; id < 11; ++id) sum += std::exp(log_p[std::size_t(id)]);
  CHECK(sum == Approx(1).epsilon(1e-12));
  for (int const id : missing) CHECK(std::exp(log_p[std::size_t(id)]) == 0);

  auto gradient = tensor<reference_backend, double, 1>::zeros(backend, {model.layout().size()});
  run(&gradient);
  auto const flat = read_parameters(model);
  parameter_info const& head = *model.layout().find("lm_head.weight");
  for (int const id : missing)
    for (index_t c = 0; c < head.columns; ++c) CHECK(gradient.data()[head.offset + id * head.columns + c] == 0);
  for (index_t const at : {head.offset + 2 * head.columns + 1, head.offset + 7 * head.columns, index_t(15)}) {
    auto const moved = [&](double h) {
      std::vector<double> p(flat.begin(), flat.end());
      p[std::size_t(at)] += h;
      set_parameters(model, p);
      return run(nullptr)[2];
    };
    double const h = 1e-6, quotient = (moved(h) - moved(-h)) / (2 * h);
    CHECK(gradient.data()[at] == Approx(quotient).epsilon(1e-6).margin(1e-9));
  }
}

}  // namespace token_rows_test
