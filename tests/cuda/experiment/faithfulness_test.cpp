// An arm of the faithfulness experiment, its examination and who reads whom, on the CUDA backend and on the CPU.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/cuda/cuda_backend.cuh>

#include "../../../examples/faithfulness/faithfulness.hpp"
#include "cuda/experiment/alike.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

struct trained_arm {
  json figures;
  std::vector<float> update;  ///< what the training has added to the weights
};

/// From the bundled model, which is of the starts' shape.
template <class B>
trained_arm arm_on(char const* name) {
  faithfulness::options o;
  o.s.prompts = o.s.steps = 1;
  o.s.group = o.s.questions = 2;
  o.s.warmup = 0;
  o.s.new_tokens = 64;  // completions that are cut off get equal rewards, and their chains cannot be edited
  o.s.rate = 3e-4;
  faithfulness::workshop<B> w(o, [] { return false; });
  auto stored = llama<B>::load(w.backend, std::filesystem::path(ATMANRL_FIXTURES) / "../../examples/models/tiny");
  auto const start = weights_of(stored);
  auto result = computed_on<B>(
      [&] { return faithfulness::run_arm(w, o.s, faithfulness::arm_by_name<llama<B>>(name), start, 1, 17, name); });
  result.erase("seconds");
  trained_arm out{std::move(result), weights_of(w.model)};
  for (std::size_t i = 0; i < start.size(); ++i) out.update[i] -= start[i];
  return out;
}

}  // namespace

TEST_CASE("cuda faithfulness: an arm trains and is examined as on the CPU") {
  // Masks and the gradient of the edit reward; answers are edited, chains are cut, both models read both.
  auto const device = arm_on<cuda_backend>("re_enabled_edit_gradient"),
             host = arm_on<cpu_backend>("re_enabled_edit_gradient");
  json const &got = device.figures, &expected = host.figures;
  CHECK(expected["training"][0]["rewards"]["balanced_sum"]["spread"].get<double>() > 0.01);  // else it teaches nothing
  check_alike(got["training"], expected["training"], 2e-3, 1e-4);
  for (char const* const part : {"examination", "cross"}) check_alike(got[part], expected[part], 2e-3);
  REQUIRE(norm_of(host.update) > 0.1);
  CHECK(relative_difference(device.update, host.update) < 2e-3);
}

TEST_CASE("cuda faithfulness: results and starts of another machine are told apart") {
  faithfulness::options o;
  CHECK(faithfulness::machine_of(o) == "");
  CHECK_FALSE(o.s.json_of().contains("machine"));
  o.backend = "cuda";
  o.tf32 = true;
  o.bf16_weight_gradients = true;
  o.s.machine = faithfulness::machine_of(o);
  CHECK(o.s.json_of()["machine"] == "cuda-tf32-bf16-weight-gradients");
}
