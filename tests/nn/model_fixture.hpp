#pragma once
// A whole model against what PyTorch and transformers computed: logits, loss and every parameter's gradient.
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/io/safetensors.hpp>
#include <atmanrl/nn/forward_pass.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/nn/ragged_batch.hpp>

#include <cmath>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "catch.hpp"
#include "gradient_check.hpp"

namespace atmanrl_test {

inline std::vector<float> values_of(atmanrl::safetensors_file const& file, std::string const& name) {
  atmanrl::tensor_entry const* const t = file.find(name);
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

/// \param expected  path of the fixture's files, less .json, .logits.safetensors and .gradient.safetensors
/// \param files     the model: a folder or a GGUF file
template <class Model>
void check_model(std::filesystem::path const& expected_files, std::filesystem::path const& files,
                 double logit_tolerance, double gradient_tolerance) {
  using namespace atmanrl;
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  CAPTURE(files.filename().string(), B::name, sizeof(T));
  auto const stored = [&](char const* ending) { return std::filesystem::path(expected_files.string() + ending); };
  json const expected = read_json_file(stored(".json"));
  safetensors_file const logits(stored(".logits.safetensors")), gradients(stored(".gradient.safetensors"));

  B backend;
  Model model = Model::load(backend, files);
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

  model.forward(cache, batch, pass, {.mode = gradient_mode::parameters});
  tensor<B, T, 2> out;
  model.logits(pass, every_row, out);
  CHECK(difference(out.to_host(), values_of(logits, "logits")) < logit_tolerance);

  model.log_probs(pass, scored);
  double loss = 0;
  for (T const x : pass.log_p()) loss -= double(x) / double(scored.size());
  CHECK(loss == Approx(expected.at("loss").get<double>()).epsilon(1e-6));

  auto gradient = tensor<B, T, 1>::zeros(backend, {model.layout().size()});
  std::vector<T> const dlog_p(scored.size(), T(-1.0 / double(scored.size())));
  model.backward(cache, pass, {.log_p = dlog_p}, {.parameters = gradient.view()});
  auto const flat = gradient.to_host();
  CHECK(model.layout().all().size() == gradients.tensors().size());
  double const query_factor = files.extension() == ".gguf" ? expected.at("gguf_query_factor").get<double>() : 1;
  for (parameter_info const& p : model.layout().all()) {
    CAPTURE(p.name);
    std::vector<T> const mine(flat.begin() + p.offset, flat.begin() + p.offset + p.size());
    std::vector<float> theirs = values_of(gradients, p.name);
    if (p.name.ends_with("q_proj.weight"))
      for (float& g : theirs) g /= float(query_factor);
    CHECK(relative_difference(mine, theirs) < gradient_tolerance);
  }
}

}  // namespace atmanrl_test
