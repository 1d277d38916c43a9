// Whole models against PyTorch and transformers: logits, loss and every parameter's gradient of tiny random models.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/io/safetensors.hpp>
#include <atmanrl/nn/decoder.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

std::vector<float> values_of(safetensors_file const& file, std::string const& name) {
  tensor_entry const* const t = file.find(name);
  REQUIRE(t != nullptr);
  std::vector<float> values(std::size_t(t->size()));
  to_float(*t, 0, values);
  return values;
}

/// Largest |a - b|.
template <class A, class B>
double difference(A const& a, B const& b) {
  REQUIRE(a.size() == b.size());
  double d = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double const each = std::abs(double(a[i]) - double(b[i]));
    if (!(each <= d)) d = each;
  }
  return d;
}

template <class B, class W>
void check_model(std::string const& name, double logit_tolerance, double gradient_tolerance) {
  CAPTURE(name, B::name, sizeof(W));
  auto const folder = fixture("llama");
  json const expected = read_json_file(folder / (name + ".json"));
  safetensors_file const logits(folder / (name + ".logits.safetensors")),
      gradients(folder / (name + ".gradient.safetensors"));

  B backend;
  using model_type = llama<B, W>;
  using T = typename model_type::scalar;
  model_type model = model_type::load(backend, folder / name);
  kv_cache<B, T> cache(backend, model.config(), 64);
  forward_pass<B, T> pass(backend);
  ragged_batch batch;
  std::vector<scored_token> scored;
  std::vector<int> every_row;
  for (auto const& sequence : expected.at("sequences")) {
    std::vector<int> const ids = sequence;
    int const first = batch.add(cache.add_sequence(index_t(ids.size())), ids);
    for (int i = 0; i < int(ids.size()); ++i) every_row.push_back(first + i);
    for (int i = 1; i < int(ids.size()); ++i) scored.push_back({first + i - 1, ids[std::size_t(i)]});
  }
  REQUIRE(every_row.size() == 31);
  REQUIRE(scored.size() == 28);

  model.forward(cache, batch, pass, gradient_mode::parameters);
  tensor<B, T, 2> out;
  model.logits(pass, every_row, out);
  CHECK(difference(out.to_host(), values_of(logits, "logits")) < logit_tolerance);

  model.log_probs(pass, scored);
  double loss = 0;
  for (T const x : pass.log_p()) loss -= double(x) / double(scored.size());
  CHECK(loss == Approx(expected.at("loss").get<double>()).epsilon(1e-6));

  auto gradient = tensor<B, T, 1>::zeros(backend, {model.layout().size()});
  std::vector<T> const dlog_p(scored.size(), T(-1.0 / double(scored.size())));
  model.backward(cache, pass, std::span<T const>(dlog_p), {}, gradient.view());
  auto const flat = gradient.to_host();
  CHECK(model.layout().all().size() == gradients.tensors().size());
  for (parameter_info const& p : model.layout().all()) {
    CAPTURE(p.name);
    std::vector<T> const mine(flat.begin() + p.offset, flat.begin() + p.offset + p.size());
    CHECK(relative_difference(mine, values_of(gradients, p.name)) < gradient_tolerance);
  }
}

}  // namespace

TEST_CASE("llama: logits, loss and every gradient of the tied, untied and biased models equal PyTorch's, in double") {
  for (char const* name : {"tied", "untied", "qwen2"}) check_model<reference_backend, double>(name, 2e-6, 1e-6);
}

TEST_CASE("llama: logits, loss and every gradient of the tied, untied and biased models equal PyTorch's, in float") {
  for (char const* name : {"tied", "untied", "qwen2"}) check_model<reference_backend, float>(name, 1e-4, 1e-4);
}

TEST_CASE(
    "llama: logits, loss and every gradient of the tied, untied and biased models equal PyTorch's, on the CPU "
    "backend") {
  for (char const* name : {"tied", "untied", "qwen2"}) check_model<cpu_backend, float>(name, 1e-4, 1e-4);
}

TEST_CASE("llama: the fixtures' rope numbers use all three branches of the llama3 rule") {
  for (char const* name : {"tied", "untied"}) {
    auto const divisors = rope_divisors(model_file::open(fixture("llama") / name, standard_architectures()).config());
    CHECK(std::count(divisors.begin(), divisors.end(), 1.0) > 0);
    CHECK(std::count_if(divisors.begin(), divisors.end(), [](double d) { return std::abs(d - 32) < 1e-9; }) > 0);
    CHECK(std::count_if(divisors.begin(), divisors.end(), [](double d) { return d > 1.01 && d < 31.9; }) > 0);
  }
}
