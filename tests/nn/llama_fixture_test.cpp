// Whole models against PyTorch and transformers: logits, loss and every parameter's gradient of tiny random models.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>

#include "catch.hpp"
#include "model_fixture.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace llama_fixture_test {
namespace {

template <class B, class W>
void check_models(double logit_tolerance, double gradient_tolerance) {
  for (char const* const name : {"tied", "untied", "qwen2"})
    check_model<llama<B, W>>(fixture("llama") / name, fixture("llama") / name, logit_tolerance, gradient_tolerance);
}

}  // namespace

TEST_CASE("llama: logits, loss and every gradient of the tied, untied and biased models equal PyTorch's, in double") {
  check_models<reference_backend, double>(2e-6, 1e-6);
}

TEST_CASE("llama: logits, loss and every gradient of the tied, untied and biased models equal PyTorch's, in float") {
  check_models<reference_backend, float>(1e-4, 1e-4);
}

TEST_CASE(
    "llama: logits, loss and every gradient of the tied, untied and biased models equal PyTorch's, on the CPU "
    "backend") {
  check_models<cpu_backend, float>(1e-4, 1e-4);
}

TEST_CASE("llama: the fixtures' rope numbers use all three branches of the llama3 rule") {
  for (char const* name : {"tied", "untied"}) {
    auto const divisors = rope_divisors(model_file::open(fixture("llama") / name, standard_architectures()).config());
    CHECK(std::count(divisors.begin(), divisors.end(), 1.0) > 0);
    CHECK(std::count_if(divisors.begin(), divisors.end(), [](double d) { return std::abs(d - 32) < 1e-9; }) > 0);
    CHECK(std::count_if(divisors.begin(), divisors.end(), [](double d) { return d > 1.01 && d < 31.9; }) > 0);
  }
}

}  // namespace llama_fixture_test
